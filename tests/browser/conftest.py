"""A real Chromium before a real server whose models are scripted.

The law: a page that throws, that breaks its content security policy or that logs an error of its
own fails the test that it was opened in. The browser's own lines about a network that failed are
let through: some tests make it fail.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, sync_playwright

from tests.browser.driver import MissionPage
from tests.conftest import require
from tests.processes import ServerProcess, UpstreamProcess

# Chromium downloads parts of itself, and syncs, unless it is told not to.
ARGUMENTS = (
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

_NETWORK_FAILED = ("Failed to load resource", "WebSocket connection to")


# For this package, not for the session: while Playwright's synchronous API lives, an event loop of
# its own runs in this thread, in which no asynchronous test could run.
@pytest.fixture(scope="package")
def chromium() -> Iterator[Browser]:
    executable = require("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=list(ARGUMENTS))
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UpstreamProcess]:
    with UpstreamProcess(tmp_path_factory.mktemp("upstream") / "log") as process:
        yield process


@pytest.fixture(scope="package")
def models(upstream: UpstreamProcess, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models file that leads every documented name to the scripted upstream."""
    return upstream.write_models(tmp_path_factory.mktemp("models") / "models.toml")


@pytest.fixture(scope="package")
def server(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """The server that these tests share; one that is to be killed is a test's own."""
    with ServerProcess(tmp_path_factory.mktemp("server") / "data", f"--models={models}") as process:
        yield process


@pytest.fixture
def context(chromium: Browser) -> Iterator[BrowserContext]:
    """A browser without a past; its pages must not complain."""
    complaints: list[str] = []
    context = chromium.new_context(viewport={"width": 1200, "height": 800})
    context.on("console", lambda message: complaints.extend(_complaint(message)))
    context.on("weberror", lambda error: complaints.append(str(error.error)))
    yield context
    context.close()
    assert complaints == []


def _complaint(message: ConsoleMessage) -> list[str]:
    if message.type not in ("error", "warning") or message.text.startswith(_NETWORK_FAILED):
        return []
    return [message.text]


@pytest.fixture
def page(context: BrowserContext) -> Page:
    return context.new_page()


@pytest.fixture
def mission(page: Page, server: ServerProcess) -> MissionPage:
    """The page of the shared server, with the key entered."""
    return MissionPage(page, server.base_url).open()


@pytest.fixture
def own_server(models: Path, tmp_path: Path) -> Iterator[ServerProcess]:
    """A server that a test may stop."""
    with ServerProcess(tmp_path / "data", f"--models={models}") as process:
        yield process
