"""What every case stands on: the upstream, and a server of ours that leads to it.

The law: real processes on loopback, one upstream for all that are compared, and all in a temporary
folder that is gone at the end.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from benchmarks.load import Target, chat, post, question
from benchmarks.processes import Running, free_port
from tests.processes import ServerProcess

HERE = Path(__file__).parent
MODEL = "gpt-3.5-turbo"


class Size(StrEnum):
    """How long a case takes: `quick` for all of them in three minutes."""

    QUICK = "quick"
    FULL = "full"


@dataclass(frozen=True, slots=True)
class Rig:
    """A folder and an upstream."""

    folder: Path
    upstream: Running

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.upstream.port}/v1"

    @contextmanager
    def server(self, *flags: str) -> Iterator[ServerProcess]:
        """`python server.py` with its embedded Valkey and a route to the upstream.

        It is asked to end, not killed: its Valkey would go on writing into the folder for a moment.
        """
        models = self.folder / "models.toml"
        models.write_text(
            f'[upstreams.bench]\nbase_url = "{self.base_url}"\nmax_concurrency = 4096\n\n'
            f'[models."{MODEL}"]\nupstream = "bench"\nname = "bench"\nkind = "chat"\n'
        )
        folder = Path(tempfile.mkdtemp(dir=self.folder)) / "data"
        with ServerProcess(folder, f"--models={models}", *flags) as server:
            try:
                yield server
            finally:
                with suppress(subprocess.TimeoutExpired):  # then it is killed after all
                    server.terminate()

    def direct(self, tokens: int, gap: int) -> Target:
        """A stream of the upstream itself."""
        return chat(self.upstream.port, tokens, gap)


@contextmanager
def rig() -> Iterator[Rig]:
    """An upstream in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="vision-bench-") as name:
        folder, port = Path(name), free_port()
        argv = ["node", str(HERE / "upstream.mjs"), str(port)]
        with Running(argv, port, folder / "upstream.log") as upstream:
            yield Rig(folder, upstream)


def one_node(tokens: int, gap: int) -> dict[str, object]:
    """The body that asks for a mission of one node."""
    return {"promptList": [{"id": "1", "mid": MODEL, "prompt": question(tokens, gap)}]}


def generate(server: ServerProcess, tokens: int, gap: int) -> Target:
    """A mission of one node, watched in the answer that starts it."""
    path, key = "/api/completion/st/generate", "Vision chat"
    return post(server.port, path, one_node(tokens, gap), b"[FINISHED]", Authorization=key)
