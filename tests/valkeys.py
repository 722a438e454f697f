"""Real Valkey servers for tests, from the embedded binary: single, a cluster, a watched pair.

The law: each listens on free loopback ports, keeps its files in the test's folder, and is gone
when its `with` block ends.
"""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import redis

from vision.valkey import binary

START_SECONDS = 20.0  # some tens of milliseconds on a quiet machine


class Valkey:
    """One server process on a TCP port."""

    def __init__(self, folder: Path, *options: str, port: int = 0) -> None:
        self.port = port or free_port()
        folder.mkdir(parents=True, exist_ok=True)
        command = [str(binary()), *options, "--port", str(self.port), "--bind", "127.0.0.1"]
        command += ["--dir", str(folder), "--loglevel", "warning", "--save", ""]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        self.client = redis.Redis(port=self.port)
        until(self._answers)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def _answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except redis.ConnectionError:
            return False

    def kill(self) -> None:
        """As `kill -9` does it."""
        self.process.kill()
        self.process.wait(10)

    def __enter__(self) -> Valkey:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        self.kill()


@contextmanager
def cluster(folder: Path) -> Iterator[tuple[str, list[Valkey]]]:
    """Three primaries that share the slots; the URL for the server, and the primaries."""
    with ExitStack() as stack:
        nodes = [
            stack.enter_context(
                Valkey(folder / str(number), "--cluster-enabled", "yes", port=low_port())
            )
            for number in range(3)
        ]
        for number, node in enumerate(nodes):
            first, last = number * 16384 // 3, (number + 1) * 16384 // 3 - 1
            node.client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, last)
            node.client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            node.client.execute_command("CLUSTER", "MEET", "127.0.0.1", nodes[0].port)
        for node in nodes:
            until(lambda node=node: b"cluster_state:ok" in info(node))
        yield f"redis+cluster://127.0.0.1:{nodes[0].port}", nodes


def info(node: Valkey) -> bytes:
    answer = node.client.execute_command("CLUSTER", "INFO")
    return answer if isinstance(answer, bytes) else repr(answer).encode().replace(b"', '", b":")


@contextmanager
def sentinel(folder: Path) -> Iterator[tuple[str, Valkey, Valkey]]:
    """A primary with a replica and a sentinel that watches them: the URL, and the two."""
    with ExitStack() as stack:
        primary = stack.enter_context(Valkey(folder / "primary"))
        replica = stack.enter_context(
            Valkey(folder / "replica", "--replicaof", f"127.0.0.1 {primary.port}")
        )
        until(lambda: replica.client.info("replication")["master_link_status"] == "up")
        config = folder / "sentinel.conf"
        config.write_text(
            f"sentinel monitor main 127.0.0.1 {primary.port} 1\n"
            "sentinel down-after-milliseconds main 500\n"
            "sentinel failover-timeout main 5000\n"
        )
        port = free_port()
        command = [str(binary()), str(config), "--sentinel", "--port", str(port)]
        watcher = subprocess.Popen([*command, "--bind", "127.0.0.1"], stdout=subprocess.DEVNULL)
        stack.callback(watcher.wait, 10)
        stack.callback(watcher.kill)
        watching = stack.enter_context(redis.Redis(port=port))
        until(lambda: knows_replica(watching))
        yield f"redis+sentinel://127.0.0.1:{port}/main", primary, replica


def knows_replica(watching: redis.Redis) -> bool:
    try:
        return watching.sentinel_masters()["main"]["num-slaves"] == 1
    except (redis.ConnectionError, KeyError):
        return False


def until(condition: Callable[[], object]) -> None:
    """Wait for a condition that another process brings about."""
    deadline = time.monotonic() + START_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.02)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


def low_port() -> int:
    """A free port whose cluster bus port (10,000 above it) is a port too, and free."""
    while True:
        port = free_port() - 20_000
        with socket.socket() as one, socket.socket() as two:
            try:
                one.bind(("127.0.0.1", port))
                two.bind(("127.0.0.1", port + 10_000))
            except OSError:
                continue
        return port
