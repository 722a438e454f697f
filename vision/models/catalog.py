"""Which model name leads to which upstream.

The law: a catalog that exists is complete: every route's upstream is in it, every key is known.
What is wrong in a models file is said in one line that names the file and the place in it. Keys
never appear in a repr. The upstream `local`, the embedded model, has no address here: it has one
only while its process runs.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jsonschema_rs

from vision.errors import InvalidRequest, SettingError
from vision.models.call import Kind, Route, Timeouts

__all__ = ["Catalog", "Endpoint", "Route", "Upstream", "default_catalog", "load_catalog"]

# Enough for one process on a paid tier, and few enough that a large graph does not trip the
# upstream's own rate limit at once.
DEFAULT_MAX_CONCURRENCY = 64

SCHEMA = Path(__file__).parents[2] / "schemas" / "models.schema.json"

OPENAI_URL = "https://api.openai.com/v1"


@dataclass(frozen=True, slots=True)
class Upstream:
    """One OpenAI-compatible endpoint; `base_url` None means the embedded model."""

    name: str
    base_url: str | None
    api_key: str | None = field(default=None, repr=False)
    max_concurrency: int = DEFAULT_MAX_CONCURRENCY
    timeouts: Timeouts = field(default_factory=Timeouts)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where an upstream listens now, and the key that it wants."""

    base_url: str
    api_key: str | None = field(default=None, repr=False)


# The embedded model generates for four callers at once (`vision/models/local.py`). More would only
# wait inside it, out of reach of our queue, and its answers could time out there.
LOCAL = Upstream(name="local", base_url=None, max_concurrency=4)
# The embedded model's name, as its own server reports it; llama.cpp ignores the one it is sent.
LOCAL_MODEL = "smollm2-135m-instruct"
# llama.cpp ignores `suffix` on its completion endpoint: it must be refused, not dropped.
_LOCAL_UNSUPPORTED = frozenset({"suffix"})


@dataclass(frozen=True, slots=True)
class Catalog:
    """All upstreams and routes of this server, by name."""

    upstreams: Mapping[str, Upstream]
    routes: Mapping[str, Route]

    def route(self, model: str, *, path: str = "") -> Route:
        """The route of a public model name; InvalidRequest lists the known names."""
        try:
            return self.routes[model]
        except KeyError:
            known = ", ".join(sorted(self.routes))
            raise InvalidRequest(f'no model "{model}"; there are: {known}', path=path) from None

    def upstream(self, route: Route) -> Upstream:
        """Where the route leads."""
        return self.upstreams[route.upstream]

    @property
    def uses_local(self) -> bool:
        """Whether any route needs the embedded model."""
        return any(upstream.base_url is None for upstream in self.upstreams.values())


def default_catalog(openai_api_key: str | None) -> Catalog:
    """The three documented names: on OpenAI with a key, on the embedded model without.

    OpenAI retired text-davinci-002 and -003 and names gpt-3.5-turbo-instruct as their successor.
    """
    if not openai_api_key:
        chat = Route("gpt-3.5-turbo", "local", LOCAL_MODEL, "chat", _LOCAL_UNSUPPORTED)
        return _catalog([LOCAL], [chat, *_davinci("local", LOCAL_MODEL, _LOCAL_UNSUPPORTED)])
    openai = Upstream("openai", OPENAI_URL, openai_api_key)
    chat = Route("gpt-3.5-turbo", "openai", "gpt-3.5-turbo", "chat")
    return _catalog([openai], [chat, *_davinci("openai", "gpt-3.5-turbo-instruct", frozenset())])


def load_catalog(path: Path, environ: Mapping[str, str]) -> Catalog:
    """The catalog of a models file (TOML, `schemas/models.schema.json`).

    Raises SettingError, in one line that names the file and the place.
    """
    document = _read(path)
    upstreams = {
        name: _upstream(path, name, table, environ)
        for name, table in document.get("upstreams", {}).items()
    }
    routes = [_route(path, name, table, upstreams) for name, table in document["models"].items()]
    if any(route.upstream == LOCAL.name for route in routes):
        upstreams[LOCAL.name] = LOCAL
    return _catalog(upstreams.values(), routes)


def _catalog(upstreams: Iterable[Upstream], routes: list[Route]) -> Catalog:
    return Catalog(
        MappingProxyType({upstream.name: upstream for upstream in upstreams}),
        MappingProxyType({route.model: route for route in routes}),
    )


def _davinci(upstream: str, name: str, unsupported: frozenset[str]) -> list[Route]:
    models = ("text-davinci-003", "text-davinci-002")
    return [Route(model, upstream, name, "completion", unsupported) for model in models]


def _read(path: Path) -> dict[str, Any]:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SettingError(f"{path}: is not UTF-8: {error.reason}") from error
    except tomllib.TOMLDecodeError as error:  # its message ends with the line and the column
        raise SettingError(f"{path}: is not TOML: {error}") from error
    schema = SCHEMA.read_text("utf-8")
    # TOML's dates, inf and nan have no JSON form; as text the schema refuses them by their place.
    for wrong in jsonschema_rs.validator_for(schema).iter_errors(_json(document)):
        raise SettingError(_line(path, wrong.instance_path, wrong.message))
    return document


def _json(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_json(item) for item in value]
    if isinstance(value, float) and not isfinite(value):
        return str(value)
    return value if isinstance(value, str | bool | int | float) else str(value)


def _upstream(
    path: Path, name: str, table: Mapping[str, Any], environ: Mapping[str, str]
) -> Upstream:
    given = {key.removesuffix("_timeout"): table[key] for key in table if key.endswith("_timeout")}
    return Upstream(
        name=name,
        base_url=table["base_url"],
        api_key=_key(path, name, table, environ),
        max_concurrency=int(table.get("max_concurrency", DEFAULT_MAX_CONCURRENCY)),
        timeouts=Timeouts(**{key: float(value) for key, value in given.items()}),
    )


def _key(path: Path, name: str, table: Mapping[str, Any], environ: Mapping[str, str]) -> str | None:
    variable = table.get("api_key_env")
    if variable is None:
        return None
    key = environ.get(variable)
    if not key:
        place = ["upstreams", name, "api_key_env"]
        raise SettingError(_line(path, place, f"the environment variable {variable} is not set"))
    return key


def _route(
    path: Path, model: str, table: Mapping[str, Any], upstreams: Mapping[str, Upstream]
) -> Route:
    upstream: str = table["upstream"]
    kind: Kind = table["kind"]
    unsupported = frozenset(table.get("unsupported", ()))
    if upstream == LOCAL.name:
        unsupported |= _LOCAL_UNSUPPORTED
    elif upstream not in upstreams:
        known = ", ".join([*sorted(upstreams), f"{LOCAL.name} (built in)"])
        place = ["models", model, "upstream"]
        raise SettingError(_line(path, place, f'no upstream "{upstream}"; there are: {known}'))
    return Route(model, upstream, table["name"], kind, unsupported)


def _line(path: Path, place: Sequence[str | int], message: str) -> str:
    """`models.toml: models."gpt-4.1".kind: message`, the place in the form of TOML."""
    where = ""
    for step in place:
        if isinstance(step, int):
            where += f"[{step}]"
            continue
        bare = step.replace("-", "").replace("_", "").isalnum() and step.isascii()
        where += ("." if where else "") + (step if bare else f'"{step}"')
    return ": ".join(part for part in (str(path), where, message) if part)
