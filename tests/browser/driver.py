"""The page at `/` as tests handle it: what a person does, and what they then see.

The law: it waits for what is to be seen, with a bound, and never sleeps; it touches the page only
as a person does, and reads the server's own answer where the two are compared.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Self
from urllib.parse import urlsplit

from playwright.sync_api import Locator, Page, expect

# The default key of the server.
KEY = "chat"
# The scripted missions take up to three seconds; on a busy machine more.
SECONDS = 15.0

GRAPH = [
    {"id": "fox", "mid": "gpt-3.5-turbo", "prompt": "a quick brown fox [[delay=0.01]]"},
    {"id": "owl", "mid": "text-davinci-003", "prompt": "an old grey owl"},
    {
        "id": "both",
        "mid": "gpt-3.5-turbo",
        "prompt": "{{fox}} / {{owl}}",
        "dependenceIdList": ["fox", "owl"],
    },
]
# Long enough to do something in the middle: 40 words in two seconds.
SLOW = [{"id": "slow", "mid": "gpt-3.5-turbo", "prompt": "count [[tokens=40 delay=0.05]]"}]


def hanging(about: str) -> list[dict[str, str]]:
    """Three words, and then nothing until somebody ends it."""
    prompt = f"{about} [[tokens=3 stop_after=3 hang=true]]"
    return [{"id": "slow", "mid": "gpt-3.5-turbo", "prompt": prompt}]


def words(number: int) -> str:
    """What the scripted upstream says for `[[tokens=number]]`."""
    return "".join(f"word{each} " for each in range(number))


class MissionPage:
    """The page, and the mission that it shows."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self._base = "{0.scheme}://{0.netloc}".format(urlsplit(url))
        self.editor = page.get_by_label("promptList", exact=True)

    # --- what a person does ----------------------------------------------------------------------

    def open(self, key: str = KEY) -> Self:
        self.page.goto(self._base)
        self.page.get_by_label("Key").fill(key)
        return self

    def write(self, prompt_list: Sequence[Mapping[str, Any]]) -> None:
        self.editor.fill(json.dumps(prompt_list, indent=2))

    def run(self, prompt_list: Sequence[Mapping[str, Any]] = (), *, text: str = "") -> None:
        """Run a promptList, or a text, or what the editor has already."""
        if prompt_list:
            self.write(prompt_list)
        elif text:
            self.editor.fill(text)
        self.page.get_by_role("button", name="Run").click()

    def cancel(self) -> None:
        self.page.get_by_role("button", name="Cancel").click()

    # --- what they wait for ----------------------------------------------------------------------

    def expect_end(self, status: str, seconds: float = SECONDS) -> None:
        """Until the mission has ended with this status, and the page is ready for the next."""
        expect(self.page.locator("#mission-status")).to_contain_text(status, timeout=1000 * seconds)
        expect(self.page.get_by_role("button", name="Run")).to_be_enabled()

    def expect_text(self, node_id: str, *, containing: str) -> None:
        expect(self.card(node_id).locator(".text")).to_contain_text(containing)

    def expect_error(self, message: str | re.Pattern[str]) -> None:
        expect(self.page.locator("#error")).to_contain_text(message)

    def expect_connection(self, state: str | re.Pattern[str]) -> None:
        expect(self.page.locator("#connection")).to_contain_text(state, timeout=1000 * SECONDS)

    # --- what they see ---------------------------------------------------------------------------

    def card(self, node_id: str) -> Locator:
        return self.page.locator(f'[data-node="{node_id}"]')

    def state(self, node_id: str) -> str:
        return self.card(node_id).locator(".state").inner_text()

    def texts(self) -> dict[str, str]:
        """The text of every card, to the last space."""
        return dict(self.page.evaluate(_TEXTS))

    def rows(self) -> list[list[str]]:
        """The ids of the cards, row by row."""
        rows: list[list[str]] = self.page.evaluate(_ROWS)
        return rows

    # --- what the server says --------------------------------------------------------------------

    @property
    def id(self) -> str:
        """Of the mission in the address."""
        return self.page.url.partition("#mission=")[2]

    def queried(self) -> dict[str, str]:
        """What mission-query says of the mission: id -> content."""
        address = f"{self._base}/api/completion/mission-query?missionId={self.id}"
        answer = self.page.request.get(address, headers=_HEADERS).json()
        return {result["id"]: result["content"] for result in answer["data"]}

    def ticket(self) -> str:
        answer = self.page.request.post(f"{self._base}/api/ticket", headers=_HEADERS).json()
        ticket: str = answer["data"]["ticket"]
        return ticket


_HEADERS = {"Authorization": f"Vision {KEY}"}

_TEXTS = """() => [...document.querySelectorAll(".node")].map(
  (node) => [node.dataset.node, node.querySelector(".text").textContent])"""

_ROWS = """() => [...document.querySelectorAll(".level")].map(
  (level) => [...level.children].map((node) => node.dataset.node))"""
