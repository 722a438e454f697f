"""The Vision server: settings, parts, listen, drain.

The law: what can be wrong with the settings is told before the parts are imported, which takes
longer than all else at a start.

    python server.py --help
"""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import signal
import socket
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

import structlog
import uvloop
from tornado.httpserver import HTTPServer
from tornado.iostream import IOStream
from tornado.netutil import bind_sockets
from tornado.web import Application

from vision.children import DataFolder
from vision.errors import SettingError, VisionError
from vision.logs import set_up
from vision.settings import DEFAULT_KEY, Settings, load_settings

if TYPE_CHECKING:
    from handlers.connections import Connections
    from vision.services import Services

_logger = structlog.get_logger("vision.server")

WELCOME: Final = """\
Vision listens on {base}
The key is: {key}
A page to try it is at {base}/ and this streams a prompt in a terminal:

curl -N {base}/api/completion/st/generate -H 'Authorization: Vision {key}' \\
  -d '{{"promptList": [{{"id": "1", "mid": "gpt-3.5-turbo", "prompt": "Who are you?"}}]}}'

"""

# A connection between two requests, or one that is slow with its head. Longer than the keep-alive
# of nginx towards us (60 s), so that nginx closes and no request meets a closing connection.
IDLE_SECONDS: Final = 75.0

# A body of the usual limit takes this long at one megabit a second; slower ones hold a connection.
BODY_SECONDS: Final = 60.0

# Some 10 kB a connection: a million would be 10 GB, and other limits come first.
MOST_DESCRIPTORS: Final = 1_048_576

# For Redis, upstreams, files and what libraries open.
RESERVED_DESCRIPTORS: Final = 512

# Objects between two looks for cycles among the young ones: about those of a hundred missions,
# which may begin at once; some MB. A look holds the loop for 1.3 ms then.
YOUNG_OBJECTS: Final = 50_000

# Connections that wait to be accepted: a burst of clients that come back after a restart.
BACKLOG: Final = 1024


def main() -> int:
    """Run a server until it is asked to end. The exit status: 2 for a wrong setting, else 0."""
    try:
        settings = load_settings(sys.argv[1:], os.environ)
        set_up(settings.log_format, sys.stderr)
        folder = DataFolder(settings.data_dir)
        uvloop.run(serve(settings, folder))
    except VisionError as error:
        sys.stderr.write(f"vision: {error.message}\n")
        return 2 if isinstance(error, SettingError) else 1
    return 0


async def serve(settings: Settings, folder: DataFolder) -> None:
    """Serve until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)

    # On a thread: nothing else is to do, but signals are heard meanwhile.
    await asyncio.to_thread(import_module, "handlers.app")
    from handlers.app import make_app
    from handlers.connections import Connections, Limits
    from vision.services import open_services

    sockets = _bind(settings)
    base_url = _base_url(settings, sockets[0].getsockname()[1])
    async with open_services(settings, folder, os.environ, base_url) as services:
        connections = Connections(Limits(settings.key_connections, settings.key_subscriptions))
        server = _listen(settings, make_app(services, connections), sockets)
        _settle_garbage()
        _announce(settings, base_url)
        run = asyncio.create_task(services.run(), name="services")
        stopped = asyncio.create_task(stop.wait(), name="stop signal")
        await asyncio.wait({run, stopped}, return_when=asyncio.FIRST_COMPLETED)
        server.stop()
        if not run.done():
            await _drain(settings, services, connections)
        await server.close_all_connections()
        for task in (run, stopped):
            task.cancel()
        result, _ = await asyncio.gather(run, stopped, return_exceptions=True)
    if isinstance(result, Exception):
        # A part that crashed ends the server, with its error, for a supervisor to see.
        raise result


async def _drain(settings: Settings, services: Services, connections: Connections) -> None:
    """Hand the missions over, send clients elsewhere, finish what is being answered.

    A request on a connection that is still open is served: a mission that it queues runs elsewhere.
    """
    try:
        async with asyncio.timeout(settings.drain_timeout):
            await services.runner.drain()
            connections.dismiss()
            await connections.quiet()
    except TimeoutError:
        _logger.warning("drain_timeout", seconds=settings.drain_timeout)
        connections.dismiss()


def _settle_garbage() -> None:
    """What was built at the start stays; looking through it again and again took a fifth of the
    processor under load.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, *gc.get_threshold()[1:])


class BoundedServer(HTTPServer):
    """Takes no more connections than there are file descriptors for.

    Out of descriptors, `accept` fails at once, again and again, and nothing else gets a turn.
    """

    def initialize(self, *args: Any, **options: Any) -> None:
        super().initialize(*args, **options)
        self._open: set[IOStream] = set()
        self._most = _raise_descriptor_limit() - RESERVED_DESCRIPTORS

    def handle_stream(self, stream: IOStream, address: tuple[str, int]) -> None:
        if len(self._open) >= self._most:
            self._open = {each for each in self._open if not each.closed()}
        if len(self._open) >= self._most:
            stream.close()
            return
        self._open.add(stream)
        super().handle_stream(stream, address)


def _raise_descriptor_limit() -> int:
    """As many as the system allows without asking; how many that are."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MOST_DESCRIPTORS)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return most


def _bind(settings: Settings) -> list[socket.socket]:
    try:
        return bind_sockets(settings.port, settings.address, backlog=BACKLOG)
    except OSError as error:
        where = f"{settings.address}:{settings.port}"
        raise SettingError(f"port: cannot listen on {where}: {error.strerror}") from error


def _listen(settings: Settings, app: Application, sockets: list[socket.socket]) -> HTTPServer:
    server = BoundedServer(
        app,
        # Bodies are bounded by the handlers, with a proper answer; this is the bound behind theirs.
        max_body_size=2 * settings.max_body,
        idle_connection_timeout=IDLE_SECONDS,
        body_timeout=BODY_SECONDS,
    )
    server.add_sockets(sockets)
    return server


def _base_url(settings: Settings, port: int) -> str:
    host = settings.address or "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _announce(settings: Settings, base_url: str) -> None:
    """Tell a person at a terminal where the server is and what to try."""
    default = settings.auth_keys == (DEFAULT_KEY,)
    key = DEFAULT_KEY if default else "<one of your auth-keys>"
    sys.stdout.write(WELCOME.format(base=base_url, key=key))
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
