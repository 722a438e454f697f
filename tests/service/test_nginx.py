"""Streams pass a real nginx, configured with nothing but `proxy_pass`, token by token."""

from __future__ import annotations

import json
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import require
from tests.contract.conftest import KEY, chat
from tests.nginx import configuration
from tests.processes import ServerProcess, UpstreamProcess

SITE = """\
server {{
    listen 127.0.0.1:{port};
    location / {{ proxy_pass {server}; }}
  }}"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


@pytest.fixture
def proxied(data_dir: Path, tmp_path: Path) -> Iterator[str]:
    """The address of nginx before a server before a scripted upstream."""
    nginx, port = require("nginx"), free_port()
    with UpstreamProcess(tmp_path / "upstream.log") as upstream:
        models = upstream.write_models(tmp_path / "models.toml")
        with ServerProcess(data_dir, f"--models={models}") as server:
            config = tmp_path / "nginx.conf"
            site = SITE.format(port=port, server=server.base_url)
            config.write_text(configuration(tmp_path, site))
            process = subprocess.Popen([nginx, "-c", str(config), "-p", str(tmp_path)])
            try:
                wait_for_port(port)
                yield f"http://127.0.0.1:{port}"
            finally:
                process.terminate()
                process.wait(10)


def wait_for_port(port: int) -> None:
    deadline = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return


@pytest.mark.parametrize("accept", ["*/*", "text/event-stream"])
def test_a_token_passes_nginx_before_the_next_has_come(proxied: str, accept: str) -> None:
    prompt = chat("a", "one then nothing [[tokens=5 stop_after=1 hang=true]]")
    body = json.dumps({"promptList": [prompt]}).encode()
    request = urllib.request.Request(
        f"{proxied}/api/completion/st/generate", data=body, headers=KEY | {"Accept": accept}
    )

    with urllib.request.urlopen(request, timeout=10) as stream:
        lines = [stream.readline() for _ in range(2 if accept != "*/*" else 1)]

    data = lines[-1].removeprefix(b"data: ")
    assert json.loads(data)["type"] == "token"
