"""A child process never outlives the server, and two servers never share a data folder."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.service.owners import Owner, is_alive, is_gone
from vision.children import Child, DataFolder, Program
from vision.errors import SettingError

SLEEPER = "import time; print('up', flush=True); time.sleep(600)"
# Says nothing, so that a pipe whose reader was killed does not end it.
SILENT = "import time; time.sleep(600)"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEPER}"

START = """
program = Program("toy", (sys.executable, "-c", {code!r}), signal.{death}, 1.0)
say("starting")
child = await Child.start(folder, program)
await child.hear()
say(child.pid)
"""


def toy(code: str, grace: float = 5.0) -> Program:
    return Program("toy", (sys.executable, "-c", code), signal.SIGTERM, grace)


@pytest.fixture
def folder(tmp_path):
    taken = DataFolder(tmp_path / "data")
    yield taken
    taken.close()


def test_second_server_on_a_folder_is_refused_with_the_pid_of_the_first(tmp_path):
    with Owner(tmp_path, "say('ready')") as first:
        assert first.hear() == "ready"
        with pytest.raises(SettingError) as refusal:
            DataFolder(tmp_path)
    assert str(refusal.value) == (
        f"data-dir: {tmp_path} belongs to a running server (process {first.pid})"
    )


def test_folder_of_a_killed_server_is_free_at_once(tmp_path):
    with Owner(tmp_path, "say('ready')") as first:
        assert first.hear() == "ready"
    DataFolder(tmp_path).close()


def test_folder_that_is_a_file_is_refused_with_its_name(tmp_path):
    (tmp_path / "data").write_text("")
    with pytest.raises(SettingError, match=r"^data-dir: .*/data cannot be used: File exists$"):
        DataFolder(tmp_path / "data")


def test_new_folder_is_closed_to_other_users(folder):
    assert folder.path.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("death", ["SIGTERM", "SIGKILL"])
def test_child_is_gone_within_two_seconds_of_a_killed_server(tmp_path, death):
    with Owner(tmp_path, START.format(code=SLEEPER, death=death)) as server:
        assert server.hear() == "starting"
        pid = int(server.hear())
        assert is_alive(pid)
    assert is_gone(pid, within=2.0)


def test_server_killed_in_the_middle_of_a_start_leaves_no_child(tmp_path):
    """Killed at thirty moments, from before the fork to after the exec; the lock tells."""
    for moment in range(30):
        with Owner(tmp_path, START.format(code=SILENT, death="SIGKILL")) as server:
            assert server.hear() == "starting"
            time.sleep(moment * 0.003)
        lock = os.open(tmp_path / "toy.lock", os.O_RDWR | os.O_CREAT)
        deadline = time.monotonic() + 2.0
        while not is_free(lock):
            assert time.monotonic() < deadline, f"a child is left of moment {moment}"
            time.sleep(0.01)
        os.close(lock)


def is_free(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@pytest.mark.gen_test
async def test_child_that_does_not_obey_is_killed_by_the_next_start(tmp_path, io_loop):
    with Owner(tmp_path, START.format(code=STUBBORN, death="SIGTERM")) as server:
        assert server.hear() == "starting"
        stubborn = int(server.hear())
    assert is_alive(stubborn)
    folder = DataFolder(tmp_path)
    child = await Child.start(folder, toy(SLEEPER))
    assert not is_alive(stubborn)
    await child.stop()
    folder.close()


@pytest.mark.gen_test
async def test_second_start_of_a_name_ends_the_first(folder, io_loop):
    first = await Child.start(folder, toy(SLEEPER))
    second = await Child.start(folder, toy(SLEEPER))
    assert await first.wait() == -signal.SIGKILL
    await second.stop()


@pytest.mark.gen_test
async def test_stop_asks_first_and_kills_after_the_grace(folder, io_loop):
    polite = await Child.start(folder, toy(SLEEPER))
    assert await polite.hear() == b"up\n"
    assert await polite.stop() == -signal.SIGTERM
    stubborn = await Child.start(folder, toy(STUBBORN, grace=0.1))
    assert await stubborn.hear() == b"up\n"
    assert await stubborn.stop() == -signal.SIGKILL


@pytest.mark.gen_test
async def test_kill_ends_what_the_child_forked_too(folder, io_loop):
    forks = r"import os, time; os.fork(); os.write(1, b'up\n'); time.sleep(600)"
    child = await Child.start(folder, toy(forks))
    assert [await child.hear(), await child.hear()] == [b"up\n", b"up\n"]
    await child.kill()
    next_one = await Child.start(folder, toy(SLEEPER))
    assert is_alive(next_one.pid)
    await next_one.stop()


@pytest.mark.gen_test
async def test_log_holds_what_the_last_child_said_and_nothing_older(folder, io_loop):
    for word in ("first", "second"):
        child = await Child.start(folder, toy(f"import sys; sys.exit('the {word} one')"))
        assert await child.wait() == 1
        assert child.last_lines() == f"the {word} one"


@pytest.mark.gen_test
async def test_program_that_cannot_be_run_says_so(folder, io_loop):
    child = await Child.start(folder, Program("toy", ("/nowhere/at-all",), signal.SIGKILL, 1.0))
    assert await child.wait() == 127
    assert "cannot run /nowhere/at-all: " in child.last_lines()


@pytest.mark.gen_test
async def test_child_hears_and_answers_over_its_pipes(folder, io_loop):
    child = await Child.start(folder, toy("print(input()[::-1])"))
    child.tell(b"abc")
    assert await child.hear() == b"cba\n"
    assert await child.hear() == b""
    assert await child.wait() == 0


def open_files(pid: int) -> set[str]:
    return {Path(os.readlink(fd)).name for fd in Path(f"/proc/{pid}/fd").iterdir()}


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.gen_test
async def test_child_inherits_its_own_lock_and_not_the_servers(folder, io_loop):
    child = await Child.start(folder, toy(SLEEPER))
    assert await child.hear() == b"up\n"
    held = open_files(child.pid)
    assert "toy.lock" in held
    assert "lock" not in held
    await child.stop()


def test_launcher_whose_parent_is_gone_ends_without_running_the_program(tmp_path):
    lock = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    launcher = Path(__file__).parents[2] / "vision" / "launcher.py"
    nobody = "1" if os.getpid() != 1 else "2"
    argv = [sys.executable, str(launcher), nobody, str(lock), "9", "/bin/echo", "ran"]
    ended = subprocess.run(argv, pass_fds=(lock,), capture_output=True, check=False)
    os.close(lock)
    assert (ended.returncode, ended.stdout) == (75, b"")
