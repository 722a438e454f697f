"""Become a child program that cannot outlive the server that wanted it.

The law: before the program runs, the kernel knows which signal it gets when the server dies, and
its lock file names its pid. There is no moment in which a killed server leaves a child that nobody
can find: until the pid is written, the child is this script, and this script looks for its parent
before it goes on.

`vision/children.py` runs it as a script, not as a module, with a Python that reads neither site
packages nor the environment: so it starts in about 15 ms. It imports nothing of ours.

    python -I -S -E launcher.py PARENT_PID LOCK_FD DEATH_SIGNAL PROGRAM [ARGUMENT ...]
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

# <linux/prctl.h>: the signal this process gets when the thread that started it ends.
PR_SET_PDEATHSIG = 1
# EX_TEMPFAIL of sysexits.h: the parent was gone before the program could begin.
ORPHANED = 75
# What a shell answers for a command that cannot be run.
CANNOT_RUN = 127


def launch(parent: int, lock: int, death: int, program: list[str]) -> None:
    """Tie this process to `parent`, write its pid into the lock file, become `program`.

    Returns only by SystemExit, when the parent is gone or the program cannot be run.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, death)
    os.ftruncate(lock, 0)
    os.pwrite(lock, b"%d\n" % os.getpid(), 0)
    # A parent that died before prctl sent no signal; it shows here, because orphans are adopted.
    if os.getppid() != parent:
        sys.exit(ORPHANED)
    # Python ignores SIGPIPE, and what is ignored stays ignored in the program.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    os.umask(0o077)  # its files are its user's alone
    try:
        os.execv(program[0], program)  # noqa: S606 - the path is absolute and our own
    except OSError as error:
        sys.stderr.write(f"cannot run {program[0]}: {error}\n")
        sys.exit(CANNOT_RUN)


if __name__ == "__main__":
    launch(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
