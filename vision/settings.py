"""Every setting of the server: its name, its default, what it means, and where it may come from.

The law: a setting is a flag `--name=value`, an environment variable `VISION_NAME`, or a line
`name=value` in the file of `--config`; a flag beats the environment, the environment beats the
file. Nothing else reads the environment. A wrong setting ends the start with one line that names
it and where it came from, and never shows a secret. The one rule across settings: with the default
key, which everybody knows, the server listens on loopback only.

Each default is written once, in `Settings`; `table()` gives the rows for the help and the README.
How the texts are read is in `setting_values.py`.
"""
# ruff: noqa: RUF009 - the call in a default is dataclasses.field, with what we say about it

from __future__ import annotations

import argparse
import dataclasses
import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NoReturn, TypeVar

import configargparse  # type: ignore[import-untyped] # it has no type information

from vision import setting_values as read
from vision.errors import SettingError

PREFIX = "VISION_"
CONFIG = "config"
# The key that the contract's examples use.
DEFAULT_KEY = "chat"

T = TypeVar("T")


def _setting(reader: Callable[[str], T], default: str, meaning: str, *, secret: bool = False) -> T:
    metadata = {"reader": reader, "default": default, "meaning": meaning, "secret": secret}
    return field(default=reader(default), repr=not secret, metadata=metadata)


@dataclass(frozen=True, slots=True)
class Settings:
    """What one server runs with. `Settings()` has the defaults."""

    port: int = _setting(read.port, "8888", "the port to listen on; 0 takes any free one")
    address: str = _setting(
        str, "127.0.0.1", "the address or host name to listen on; empty means all interfaces"
    )
    data_dir: Path = _setting(
        read.path, "./data", "the folder for everything the server keeps; one server each"
    )
    redis_url: str = _setting(
        read.redis_url,
        "",
        "redis://, rediss://, unix://, redis+sentinel:// or redis+cluster:// URL; "
        "empty starts a private Valkey in data-dir",
        secret=True,
    )
    models: Path | None = _setting(
        read.optional_path, "", "a TOML file that maps model names to endpoints"
    )
    auth_keys: tuple[str, ...] = _setting(
        read.keys,
        DEFAULT_KEY,
        "the keys that clients may use, separated by commas; the default is for loopback only",
        secret=True,
    )
    payment_keys: tuple[str, ...] = _setting(
        read.optional_keys,
        "",
        "the keys of internal callers that tell of payments (/api/payment/notify)",
        secret=True,
    )
    admin_keys: tuple[str, ...] = _setting(
        read.optional_keys,
        "",
        "the keys of those who may refund, and change products and promotion codes",
        secret=True,
    )
    log_format: str = _setting(
        read.one_of("text", "json"), "text", "how log lines look: text (for people) or json"
    )
    max_body: int = _setting(
        read.size, "8MiB", "the largest request body, in bytes or with K, M or G"
    )
    max_nodes: int = _setting(read.at_least(1), "10000", "the most prompts in one mission")
    room: int = _setting(read.at_least(1), "64", "the most missions that this process runs at once")
    claim_timeout: float = _setting(
        read.seconds, "10", "seconds after which the missions of a silent process are taken over"
    )
    mission_ttl: float = _setting(
        read.seconds, "86400", "seconds that a finished mission can be queried and replayed"
    )
    drain_timeout: float = _setting(
        read.seconds, "30", "seconds that running requests get when the server is asked to end"
    )
    ping_interval: float = _setting(
        read.seconds, "15", "seconds between heartbeats on a silent stream"
    )
    key_connections: int = _setting(
        read.at_least(1), "20000", "the most streams and sockets of one key on this process"
    )
    key_subscriptions: int = _setting(
        read.at_least(1), "50000", "the most subscriptions of one key's sockets on this process"
    )
    production: bool = _setting(
        read.switch, "false", "true refuses what is only for trying out, such as the sandbox"
    )
    database_url: str = _setting(
        read.database_url,
        "",
        "mysql+aiomysql://user:password@host/name; empty keeps orders in data-dir (SQLite)",
        secret=True,
    )
    order_ttl: float = _setting(
        read.seconds, "7200", "seconds that an order can be paid; then it is closed"
    )
    wechat_merchant_id: str = _setting(str, "", "the merchant's number at WeChat Pay (mchid)")
    wechat_app_id: str = _setting(str, "", "the app's id at WeChat Pay (appid)")
    wechat_private_key: Path | None = _setting(
        read.optional_path, "", "the merchant's private key, a PEM file (apiclient_key.pem)"
    )
    wechat_certificate: Path | None = _setting(
        read.optional_path, "", "the merchant's certificate, a PEM file (apiclient_cert.pem)"
    )
    wechat_api_v3_key: str = _setting(str, "", "the merchant's API v3 key, 32 bytes", secret=True)
    wechat_public_key: Path | None = _setting(
        read.optional_path,
        "",
        "WeChat Pay's public key, a PEM file; without it certificates are fetched",
    )
    wechat_public_key_id: str = _setting(
        str, "", "the id of WeChat Pay's public key: PUB_KEY_ID_..."
    )
    wechat_notify_url: str = _setting(
        str, "", "where WeChat Pay sends notifications: https, no query"
    )
    wechat_gateway_url: str = _setting(
        read.base_url, "https://api.mch.weixin.qq.com", "the address of WeChat Pay, or of a proxy"
    )
    alipay_app_id: str = _setting(str, "", "the app's id at Alipay (app_id)")
    alipay_seller_id: str = _setting(str, "", "the merchant's number at Alipay (seller_id)")
    alipay_private_key: Path | None = _setting(
        read.optional_path, "", "the app's private key, PEM or bare base64"
    )
    alipay_public_key: Path | None = _setting(
        read.optional_path, "", "public-key mode: Alipay's public key, PEM or bare base64"
    )
    alipay_app_certificate: Path | None = _setting(
        read.optional_path, "", "certificate mode: the app's certificate (appCertPublicKey)"
    )
    alipay_certificate: Path | None = _setting(
        read.optional_path, "", "certificate mode: Alipay's certificate; two during a change"
    )
    alipay_root_certificate: Path | None = _setting(
        read.optional_path, "", "certificate mode: Alipay's root certificates (alipayRootCert)"
    )
    alipay_notify_url: str = _setting(str, "", "where Alipay sends notifications: https, no query")
    alipay_gateway_url: str = _setting(
        read.base_url,
        "https://openapi.alipay.com/gateway.do",
        "the address of Alipay's gateway, of its sandbox, or of a proxy",
    )
    openai_api_key: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """The rule across settings. Raises SettingError."""
        if DEFAULT_KEY in self.auth_keys and not read.is_loopback(self.address):
            raise SettingError(
                f'auth-keys: everybody knows the default key "{DEFAULT_KEY}", so with it the '
                f'server listens on loopback only, not on address "{self.address}"; set auth-keys'
            )


@dataclass(frozen=True, slots=True)
class Row:
    """One setting, as the help and the README show it: `--port`, `VISION_PORT`, `8888`, ..."""

    flag: str
    variable: str
    default: str
    meaning: str


def table() -> tuple[Row, ...]:
    """Every setting, in the order of the help."""
    config = Row(f"--{CONFIG}", f"{PREFIX}CONFIG", "", "a file with a line name=value per setting")
    return (config, *(_row(each) for each in _fields()))


def load_settings(argv: Sequence[str], environ: Mapping[str, str]) -> Settings:
    """The settings of a server started with these arguments (without the program's name).

    Raises SettingError; `--help` prints the help and raises SystemExit(0).
    """
    _refuse_unknown_variables(environ)
    parser = _parser()
    found, unknown = parser.parse_known_args(list(argv), env_vars=dict(environ))
    if unknown:
        raise _unknown(unknown[0].split("=")[0], "flag", [row.flag for row in table()])
    origins = _origins(parser.get_source_to_settings_dict())
    texts: dict[str, str] = {name: text for name, text in vars(found).items() if text is not None}
    values: dict[str, Any] = {
        each.name: _value(each, texts[each.name], origins.get(each.name, f"flag {_flag(each)}"))
        for each in _fields()
        if each.name in texts
    }
    return Settings(**values, openai_api_key=environ.get("OPENAI_API_KEY") or None)


class _Parser(configargparse.ArgumentParser):  # type: ignore[misc] # it has no type information
    def error(self, message: str) -> NoReturn:
        """Instead of printing the usage: the one line that matters is lost in it."""
        raise SettingError(message)


class _Lines(configargparse.ConfigFileParser):  # type: ignore[misc] # it has no type information
    """Reads `name=value` lines and nothing else: a lenient reader would turn typos into values."""

    def get_syntax_description(self) -> str:
        return "A line name=value per setting; # begins a comment line."

    def parse(self, stream: IO[str]) -> dict[str, str]:
        values: dict[str, str] = {}
        for number, line in enumerate(_lines(stream), start=1):
            if line.strip() and not line.lstrip().startswith("#"):
                name, value = _assignment(line, f"file {stream.name}, line {number}")
                values[name] = value
        return values


def _lines(stream: IO[str]) -> list[str]:
    try:
        return stream.readlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingError(f"{CONFIG}: {stream.name} cannot be read: {error}") from error


def _assignment(line: str, origin: str) -> tuple[str, str]:
    name, equals, value = (part.strip() for part in line.partition("="))
    if not equals:
        raise SettingError(f"{name}: not a line name=value ({origin})")
    names = [_name(each) for each in _fields()]
    if name not in names:
        raise _unknown(name, origin, names)
    return name, value


def _open(path: str, mode: str = "r") -> IO[str]:
    return Path(path).open(mode, encoding="utf-8")


def _parser() -> _Parser:
    parser = _Parser(
        prog="server.py",
        description="Run graphs of prompts on language models and stream every token.",
        epilog="A flag beats its environment variable, which beats a line in the config file. "
        "OPENAI_API_KEY is read too: with it and no models file, the names go to OpenAI.",
        allow_abbrev=False,
        add_config_file_help=False,
        add_env_var_help=False,
        config_file_parser_class=_Lines,
        config_file_open_func=_open,
    )
    for row in table():
        shown = f"{row.meaning} (default: {row.default or 'empty'}; {row.variable})"
        parser.add_argument(
            row.flag,
            env_var=row.variable,
            metavar="VALUE",
            help=shown.replace("%", "%%"),
            is_config_file_arg=row.flag == f"--{CONFIG}",
        )
    return parser


def _fields() -> tuple[dataclasses.Field[Any], ...]:
    return tuple(each for each in dataclasses.fields(Settings) if each.metadata)


def _name(each: dataclasses.Field[Any]) -> str:
    return each.name.replace("_", "-")


def _flag(each: dataclasses.Field[Any]) -> str:
    return f"--{_name(each)}"


def _row(each: dataclasses.Field[Any]) -> Row:
    variable = PREFIX + each.name.upper()
    return Row(_flag(each), variable, each.metadata["default"], each.metadata["meaning"])


def _value(each: dataclasses.Field[Any], text: str, origin: str) -> object:
    try:
        return each.metadata["reader"](text)
    except ValueError as error:
        shown = "" if each.metadata["secret"] else f'"{text}" '
        raise SettingError(f"{_name(each)}: {shown}{error} ({origin})") from None


def _origins(sources: Mapping[str, Mapping[str, tuple[argparse.Action, str]]]) -> dict[str, str]:
    """Where each value came from that did not come from a flag, by the name of the field."""
    origins: dict[str, str] = {}
    for source, entries in sources.items():
        for key, (action, _) in entries.items():
            if source == "environment_variables":
                origins[action.dest] = f"environment variable {key}"
            elif source.startswith("config_file|"):
                origins[action.dest] = f"file {source.partition('|')[2]}"
    return origins


def _refuse_unknown_variables(environ: Mapping[str, str]) -> None:
    known = [row.variable for row in table()]
    for variable in environ:
        if variable.startswith(PREFIX) and variable not in known:
            raise _unknown(variable, "environment", known)


def _unknown(name: str, origin: str, known: Sequence[str]) -> SettingError:
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {near[0]}?" if near else "; --help lists all"
    return SettingError(f"{name}: there is no such setting ({origin}){hint}")
