"""One task owns a child through all its restarts, and leaves none behind."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

import pytest

from tests.service.owners import a_new_process, is_alive
from vision.children import Child, DataFolder, Program
from vision.errors import StoreUnavailable
from vision.supervision import Supervisor

SLEEPER = "import time; print('up', flush=True); time.sleep(600)"


class Toy:
    """Launches a child that only sleeps, after as many failures as it is told."""

    def __init__(self, folder: DataFolder, failures: int = 0) -> None:
        self._folder = folder
        self.failures = failures

    async def launch(self) -> Child:
        if self.failures:
            self.failures -= 1
            raise StoreUnavailable("not yet")
        argv = (sys.executable, "-c", SLEEPER)
        child = await Child.start(self._folder, Program("toy", argv, signal.SIGKILL, 1.0))
        await child.hear()
        return child


@pytest.fixture
def folder(tmp_path):
    taken = DataFolder(tmp_path)
    yield taken
    taken.close()


@pytest.mark.gen_test
async def test_child_that_dies_is_started_again(folder, io_loop):
    supervisor = Supervisor("toy", Toy(folder).launch)
    await supervisor.start()
    for _ in range(2):
        killed = supervisor.pid
        os.kill(killed, signal.SIGKILL)
        await a_new_process(supervisor, killed)
    await supervisor.stop()


@pytest.mark.gen_test
async def test_first_launch_that_fails_raises_from_start(folder, io_loop):
    supervisor = Supervisor("toy", Toy(folder, failures=1).launch)
    with pytest.raises(StoreUnavailable, match="not yet"):
        await supervisor.start()
    assert not supervisor.ready
    await supervisor.stop()


@pytest.mark.gen_test
async def test_launches_that_fail_are_tried_again_and_the_last_failure_is_kept(folder, io_loop):
    supervisor = Supervisor("toy", Toy(folder, failures=2).launch)
    supervisor.start_soon()
    with pytest.raises(TimeoutError):
        await supervisor.up(within=0.1)
    assert str(supervisor.failure) == "not yet"
    await supervisor.up(within=5.0)
    await supervisor.stop()


@pytest.mark.gen_test
async def test_stop_right_after_start_ends_the_child(folder, io_loop):
    supervisor = Supervisor("toy", Toy(folder).launch)
    await supervisor.start()
    pid = supervisor.pid
    await supervisor.stop()
    assert not is_alive(pid)
    assert not supervisor.ready


@pytest.mark.gen_test
async def test_stop_raises_a_bug_of_the_launch(folder, io_loop):
    async def broken() -> Child:
        raise ZeroDivisionError

    supervisor = Supervisor("toy", broken)
    supervisor.start_soon()
    await asyncio.sleep(0)
    with pytest.raises(ZeroDivisionError):
        await supervisor.stop()
