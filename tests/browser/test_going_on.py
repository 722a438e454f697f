"""The page that goes away, loses its connection or its server, and goes on.

The law: what the page shows in the end is what mission-query says, whatever happened in between:
no event is lost, none counts twice.
"""

from __future__ import annotations

import os
import re
import signal

import pytest
from playwright.sync_api import Page, expect

from tests.browser.driver import GRAPH, KEY, SLOW, MissionPage, hanging, words
from tests.processes import ServerProcess

# Puts the page's sockets, and what it sends, within a test's reach: `spoil(message, socket)` may
# change a message before it goes out; a socket breaks with each of the messages in `breakAt`,
# counted over all sockets.
KEEP_SOCKETS = """
globalThis.sockets = [];
globalThis.sent = [];
globalThis.heard = 0;
globalThis.breakAt = [];
globalThis.spoil = (message) => message;
globalThis.WebSocket = class extends WebSocket {
  constructor(address) {
    super(address);
    sockets.push(this);
    this.addEventListener("message", () => {
      heard += 1;
      if (breakAt.includes(heard)) this.close();
    });
  }
  send(text) {
    const message = spoil(JSON.parse(text), this);
    sent.push(message);
    super.send(JSON.stringify(message));
  }
};
"""


@pytest.fixture
def spoiled(page: Page, server: ServerProcess) -> MissionPage:
    """The page of the shared server, its sockets within reach."""
    page.add_init_script(KEEP_SOCKETS)
    return MissionPage(page, server.base_url).open()


def test_reload_in_the_middle_ends_with_the_same_text(mission):
    mission.run([*SLOW, *GRAPH])
    mission.expect_text("slow", containing="word5 ")
    assert mission.state("slow") == "streaming"
    mission.page.reload()
    mission.expect_end("Finished: 4 of 4 nodes")
    assert mission.texts()["slow"] == words(40)
    assert mission.texts() == mission.queried()
    assert mission.rows() == [["slow", "fox", "owl"], ["both"]]


def test_link_shows_the_mission_to_who_has_the_key(mission, context):
    mission.run(GRAPH)
    mission.expect_end("Finished")
    other = MissionPage(context.new_page(), mission.page.url)
    other.page.goto(mission.page.url)
    other.expect_error("Enter the key")
    other.page.get_by_label("Key").fill(KEY)
    other.page.get_by_role("button", name="Watch").click()
    other.expect_end("Finished: 3 of 3 nodes")
    assert other.texts() == mission.texts()


def test_back_leads_to_the_mission_before(mission):
    mission.run(GRAPH[:1])
    mission.expect_end("Finished: 1 of 1 nodes")
    mission.run(GRAPH)
    mission.expect_end("Finished: 3 of 3 nodes")
    mission.page.go_back()
    mission.expect_end("Finished: 1 of 1 nodes")
    assert mission.texts() == {"fox": "echo: a quick brown fox"}


def test_link_to_a_mission_that_is_gone_says_so(page, server):
    page.add_init_script(f"sessionStorage.setItem('vision.key', '{KEY}')")
    page.goto(f"{server.base_url}/#mission=gone")
    mission = MissionPage(page, server.base_url)
    mission.expect_error("The server refused")
    expect(page.get_by_role("button", name="Run")).to_be_enabled()


def test_lost_socket_is_followed_by_one_from_the_cursor(spoiled):
    spoiled.page.evaluate("breakAt.push(8, 20)")
    spoiled.run(SLOW)
    spoiled.expect_end("Finished")
    assert spoiled.texts() == {"slow": words(40)} == spoiled.queried()
    first, second = cursors(spoiled)
    assert 1 < first < second


def test_cursor_that_the_server_does_not_know_leads_back_to_the_beginning(spoiled):
    spoiled.run(hanging("lose the log"))
    spoiled.expect_text("slow", containing="word2 ")
    spoiled.page.evaluate(
        """() => {
          globalThis.spoil = (message) => message.after ? { ...message, after: 999 } : message;
          sockets.at(-1).close();
        }"""
    )
    spoiled.expect_connection("connected")
    spoiled.cancel()
    spoiled.expect_end("Cancelled")
    assert spoiled.texts() == {"slow": words(3)} == spoiled.queried()
    assert cursors(spoiled) == [999, 0]


def test_events_that_come_again_change_nothing(spoiled):
    spoiled.page.evaluate(
        """() => {
          globalThis.spoil = (message) => message.after ? { ...message, after: 0 } : message;
          breakAt.push(10);
        }"""
    )
    spoiled.run([{**SLOW[0], "prompt": "again [[tokens=20 delay=0.01]]"}])
    spoiled.expect_end("Finished")
    assert cursors(spoiled) == [0]
    assert spoiled.texts() == {"slow": words(20)}


def test_socket_lost_before_the_answer_to_run_does_not_run_it_twice(spoiled):
    spoiled.page.evaluate(
        """() => {
          globalThis.spoil = (message, socket) => {
            queueMicrotask(() => socket.close());
            return message;
          };
        }"""
    )
    spoiled.run(GRAPH)
    spoiled.expect_error("The connection broke before the server took the mission")
    assert spoiled.page.evaluate("sockets.length") == 1


def cursors(spoiled: MissionPage) -> list[int]:
    """The cursors from which the page has subscribed, in order."""
    messages = spoiled.page.evaluate("sent")
    return [message["after"] for message in messages if message["type"] == "subscribe"]


def test_killed_server_comes_back_and_the_page_goes_on_without_doubled_text(
    page, own_server, models, tmp_path
):
    mission = MissionPage(page, own_server.base_url).open()
    mission.run([*GRAPH, *SLOW])
    mission.expect_text("slow", containing="word5 ")
    own_server.kill()
    mission.expect_connection("connection lost")
    again = ServerProcess(tmp_path / "data", f"--models={models}", port=own_server.port)
    with again:
        mission.expect_end("Finished: 4 of 4 nodes", seconds=20)
        assert mission.texts()["slow"] == words(40)
        assert mission.texts() == mission.queried()


def test_server_that_falls_silent_is_left_and_found_again(page, own_server):
    page.clock.install()
    mission = MissionPage(page, own_server.base_url).open()
    mission.run(hanging("fall silent"))
    mission.expect_text("slow", containing="word2 ")
    os.kill(own_server.pid, signal.SIGSTOP)
    page.clock.run_for(31_000)
    mission.expect_connection(re.compile("connection lost|connecting"))
    os.kill(own_server.pid, signal.SIGCONT)
    mission.expect_connection("connected")
    mission.cancel()
    mission.expect_end("Cancelled")
    assert mission.texts() == {"slow": words(3)}
