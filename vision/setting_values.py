"""How the text of a setting becomes its value.

The law: each reader takes the text as the user wrote it and returns the value, or raises ValueError
with the end of the sentence `"text" ...`. Only `is_loopback` asks anybody (the resolver).
"""

from __future__ import annotations

import ipaddress
import math
import re
import socket
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from vision.errors import SettingError
from vision.redis_url import parse_redis_url

HIGHEST_PORT = 65535
# What may stand in a header without quotes (RFC 9110, token68 and more): visible ASCII, no comma,
# because commas separate the keys.
KEY = re.compile(r"[!-+\--~]+")
DATABASE = re.compile(r"mysql\+aiomysql://[^/]+/[^/?]+(\?.*)?|sqlite\+aiosqlite:///.+")
SIZE = re.compile(r"(\d+) ?(?:([KMG])?(?:i?B)?)", re.IGNORECASE)
UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def whole(text: str) -> int:
    """A whole number in decimal digits."""
    # int() alone takes "1_000" and digits of every script.
    if not (text.isascii() and text.isdigit()):
        raise ValueError("is not a whole number")
    return int(text)


def port(text: str) -> int:
    """A TCP port, 0 for any free one."""
    number = whole(text)
    if number > HIGHEST_PORT:
        raise ValueError(f"is not a port: the highest is {HIGHEST_PORT}")
    return number


def at_least(least: int) -> Callable[[str], int]:
    """A reader of whole numbers from `least` on."""

    def reader(text: str) -> int:
        number = whole(text)
        if number < least:
            raise ValueError(f"is too small: it must be at least {least}")
        return number

    return reader


def seconds(text: str) -> float:
    """A time span: more than none, and finite."""
    try:
        number = float(text)
    except ValueError:
        raise ValueError("is not a number of seconds") from None
    if not (math.isfinite(number) and number > 0):
        raise ValueError("is not a number of seconds above 0")
    return number


def size(text: str) -> int:
    """A number of bytes: `1048576`, `1024K`, `1M`, `1MB` and `1MiB` are the same."""
    match = SIZE.fullmatch(text)
    if match is None or not int(match[1]):
        raise ValueError("is not a size above 0 such as 500000, 512K or 8MiB")
    return int(match[1]) * UNITS[(match[2] or "").upper()]


def one_of(*choices: str) -> Callable[[str], str]:
    """A reader that takes exactly these words."""

    def reader(text: str) -> str:
        if text not in choices:
            raise ValueError(f"is not one of: {', '.join(choices)}")
        return text

    return reader


def switch(text: str) -> bool:
    """`true` or `false`."""
    if text not in {"true", "false"}:
        raise ValueError("is neither true nor false")
    return text == "true"


def base_url(text: str) -> str:
    """The address of a server, with a path or without, and nothing behind it."""
    parts = urlsplit(text)  # ValueError for half of an IPv6 address
    if parts.scheme not in {"http", "https"} or not parts.hostname or "?" in text or "#" in text:
        raise ValueError("is not an https://host or http://host URL without a query")
    return text.rstrip("/")


def path(text: str) -> Path:
    """A path, `~` included."""
    if not text or "\0" in text:
        raise ValueError("is not a path")
    return Path(text).expanduser()


def optional_path(text: str) -> Path | None:
    """A path, or None when empty."""
    return path(text) if text else None


def keys(text: str) -> tuple[str, ...]:
    """Keys separated by commas, each fit for a header."""
    found = tuple(key.strip() for key in text.split(","))
    for number, key in enumerate(found, start=1):
        if not KEY.fullmatch(key):
            raise ValueError(
                f"key {number} is not usable: a key is one or more visible ASCII characters"
            )
    return found


def optional_keys(text: str) -> tuple[str, ...]:
    """The same, or none at all."""
    return keys(text) if text.strip() else ()


def redis_url(text: str) -> str:
    """A URL that `redis_edge.connect` understands, or nothing."""
    if text:
        try:
            parse_redis_url(text)
        except ValueError:
            raise ValueError(
                "is not a redis://host, rediss://host, unix:///path, "
                "redis+sentinel://host:port,host:port/name or redis+cluster://host:port URL"
            ) from None
    return text


def database_url(text: str) -> str:
    """A URL of a database that the payments run on, or nothing."""
    if text and not DATABASE.fullmatch(text):
        raise ValueError(
            "is not a mysql+aiomysql://user:password@host/name or sqlite+aiosqlite:///path URL"
        )
    return text


def is_loopback(address: str) -> bool:
    """Whether every address that this one stands for is on loopback; "" stands for all.

    Raises SettingError for a host name that nobody knows.
    """
    if not address:
        return False
    try:
        found = socket.getaddrinfo(address, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise SettingError(f'address: "{address}" cannot be resolved: {error}') from error
    return all(_is_local(str(entry[4][0])) for entry in found)


def _is_local(text: str) -> bool:
    ip = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped:
        return ip.ipv4_mapped.is_loopback
    return ip.is_loopback
