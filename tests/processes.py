"""Real processes for tests: `server.py` as a user starts it, and the scripted upstream.

The law: a process is ready when its constructor returns, and gone when `kill` or `terminate`
returns. What it wrote is kept and is part of the message when it does not come up.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.request import urlopen

ROOT = Path(__file__).parents[1]

# A start takes well under a second; a machine that is busy with other tests may need many.
START_SECONDS = 20.0
# Longer than the server's parts take to close; a server that hangs at its end is a failure.
END_SECONDS = 15.0
POLL_SECONDS = 0.01


class NotStarted(AssertionError):
    """The process ended, or did not say that it is ready; the message has what it wrote."""


class _Process:
    """A Python process that says on its standard output when it is ready."""

    def __init__(self, argv: Sequence[str], log: Path, ready: re.Pattern[str]) -> None:
        self._log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as file:
            begin = file.tell()
            self._process = subprocess.Popen(
                [sys.executable, *argv],
                stdout=file,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                cwd=ROOT,
                env=_environment(),
            )
        try:
            self._ready = self._wait(ready, begin)
        except BaseException:
            self.kill()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def log(self) -> str:
        """All that it has written until now, on both outputs."""
        return self._log.read_text(errors="replace")

    def kill(self) -> None:
        """As `kill -9` does it, and wait until it is gone."""
        self._process.kill()
        self._process.wait(END_SECONDS)

    def terminate(self) -> int:
        """As a supervisor does it; the exit status. Raises subprocess.TimeoutExpired."""
        self._process.terminate()
        return self._process.wait(END_SECONDS)

    def _wait(self, ready: re.Pattern[str], begin: int) -> str:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            ended = self._process.poll() is not None
            written = self._log.read_bytes()[begin:].decode(errors="replace")
            if found := ready.search(written):
                return found.group(1)
            if ended:
                raise NotStarted(f"it ended with {self._process.returncode}:\n{written}")
            time.sleep(POLL_SECONDS)
        raise NotStarted(f"it was not ready within {START_SECONDS} s:\n{self.log}")


class ServerProcess(_Process):
    """`python server.py`, with flags such as `--models=FILE`; on any free port unless one is given.

    The same `data_dir` may be given again after the process has ended; the log goes on.
    """

    _ADDRESS = re.compile(r"^Vision listens on (\S+)$", re.MULTILINE)

    def __init__(self, data_dir: Path, *flags: str, port: int = 0) -> None:
        argv = ["server.py", f"--port={port}", f"--data-dir={data_dir}", *flags]
        super().__init__(argv, data_dir.with_suffix(".log"), self._ADDRESS)

    @classmethod
    def start(cls, data_dir: Path, *flags: str, port: int = 0) -> Self:
        """Start it and wait until it listens. Raises NotStarted."""
        return cls(data_dir, *flags, port=port)

    @property
    def base_url(self) -> str:
        """Without a slash at the end."""
        return self._ready

    @property
    def port(self) -> int:
        return int(self._ready.rpartition(":")[2])


class UpstreamProcess(_Process):
    """`python -m tests.upstream`: the scripted upstream, told what to do in the prompts."""

    def __init__(self, log: Path) -> None:
        super().__init__(["-m", "tests.upstream", "--port", "0"], log, re.compile(r"^(\d+)$", re.M))

    @property
    def port(self) -> int:
        return int(self._ready)

    def seen(self) -> dict[str, Any]:
        """What it has recorded: `prompts`, `closed` (whose client left), `running`."""
        with urlopen(f"http://127.0.0.1:{self.port}/seen", timeout=END_SECONDS) as answer:
            seen: dict[str, Any] = json.load(answer)
            return seen

    def wait_closed(self, prompt: str, seconds: float = 1.0) -> None:
        """Until the client of this prompt has left early. Raises TimeoutError."""
        deadline = time.monotonic() + seconds
        while prompt not in self.seen()["closed"]:
            if time.monotonic() > deadline:
                raise TimeoutError(f"the call of {prompt!r} was not closed within {seconds} s")
            time.sleep(POLL_SECONDS)

    def write_models(self, path: Path) -> Path:
        """A models file that leads the documented names here; the path."""
        text = f'[upstreams.scripted]\nbase_url = "http://127.0.0.1:{self.port}/v1"\n'
        for name, kind in _NAMES.items():
            text += f'\n[models."{name}"]\nupstream = "scripted"\nname = "{name}"\n'
            text += f'kind = "{kind}"\n'
        path.write_text(text)
        return path


_NAMES = {
    "gpt-3.5-turbo": "chat",
    "text-davinci-003": "completion",
    "text-davinci-002": "completion",
}


def _environment() -> dict[str, str]:
    """Ours, without what would change a server's settings."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("VISION_")}
    ours.pop("OPENAI_API_KEY", None)
    return ours
