"""Where Redis is: one server, the primary that sentinels name, or a cluster.

    redis://[user:password@]host[:port][/db]      rediss:// with TLS, unix:///path a socket
    redis+sentinel://[user:password@]host:port[,host:port]/name
    redis+cluster://[user:password@]host:port[,host:port]

The law: pure. The first three are the client's own form (redis-py, `from_url`) and only looked
over; user and password in the other two are those of the data servers, percent-encoded.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit


@dataclass(frozen=True, slots=True)
class RedisUrl:
    """A Redis URL, taken apart. `name` is the primary's at its sentinels."""

    scheme: str
    hosts: tuple[tuple[str, int], ...]
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    name: str = ""


def parse_redis_url(text: str) -> RedisUrl:
    """Raises ValueError for what is none."""
    scheme, _, rest = text.partition("://")
    if scheme in {"redis", "rediss", "unix"}:
        parts = urlsplit(text)
        place = parts.path if scheme == "unix" else parts.hostname
        if not place or parts.port == 0:  # asking for the port is what checks it
            raise ValueError(text)
        return RedisUrl(scheme, ())
    if scheme not in {"redis+sentinel", "redis+cluster"}:
        raise ValueError(text)
    access, _, place = rest.rpartition("@")
    username, _, password = access.partition(":")
    hosts, _, name = place.partition("/")
    if bool(name) != (scheme == "redis+sentinel"):
        raise ValueError(text)
    return RedisUrl(
        scheme,
        tuple(_host(each) for each in hosts.split(",")),
        unquote(username) or None,
        unquote(password) or None,
        name,
    )


def _host(text: str) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    if not parts.hostname or not parts.port or parts.path:
        raise ValueError(text)
    return parts.hostname, parts.port
