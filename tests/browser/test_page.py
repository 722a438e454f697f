"""The page at `/`, as a person uses it: in Chromium, before a real server.

The law: what the page shows in the end is what mission-query says, whatever happened in between.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.driver import KEY, MissionPage, words
from tests.processes import ServerProcess

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


@pytest.fixture
def mission(page: Page, server: ServerProcess) -> MissionPage:
    """The page of the shared server, with the key entered."""
    return MissionPage(page, server.base_url).open()


# --- as it comes ---------------------------------------------------------------------------------


def test_page_loads_without_a_word_on_the_console(page, server):
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    response = page.goto(server.base_url, wait_until="networkidle")
    assert response.headers["content-security-policy"].startswith("default-src 'self'")
    expect(page.get_by_role("button", name="Run")).to_be_enabled()
    assert said == []


def test_example_runs_on_the_embedded_model_as_it_stands(page, tmp_path):
    with ServerProcess(tmp_path / "data") as server:
        mission = MissionPage(page, server.base_url).open()
        mission.run()
        mission.expect_end("Finished: 3 of 3 nodes", seconds=40)
        shown = mission.texts()
        assert list(shown) == ["place", "person", "story"]
        assert all(shown.values())
        assert shown == mission.queried()


@pytest.mark.parametrize("width", [360, 1200])
def test_nothing_is_wider_than_the_window(mission, width):
    mission.page.set_viewport_size({"width": width, "height": 800})
    mission.run([*GRAPH, {"id": "i" * 200, "mid": "gpt-3.5-turbo", "prompt": "w" * 400}])
    mission.expect_end("Finished")
    assert mission.page.evaluate("document.documentElement.scrollWidth") <= width


# --- running -------------------------------------------------------------------------------------


def test_every_node_of_a_graph_fills_in_rows_by_depth(mission):
    mission.run(GRAPH)
    mission.expect_end("Finished: 3 of 3 nodes")
    fox, owl = "echo: a quick brown fox", "echo: an old grey owl"
    assert mission.texts() == {"fox": fox, "owl": owl, "both": f"echo: {fox} / {owl}"}
    assert mission.rows() == [["fox", "owl"], ["both"]]
    expect(mission.card("both")).to_contain_text("gpt-3.5-turbo · uses fox, owl")
    expect(mission.card("both").locator(".meta")).to_have_text(
        re.compile(r"^\d+ tokens in, \d+ out · \d+\.\d s$")
    )


def test_node_waits_for_those_it_uses_and_text_comes_word_by_word(mission):
    graph = [*SLOW, {**SLOW[0], "id": "next", "dependenceIdList": ["slow"], "prompt": "{{slow}}"}]
    mission.run(graph)
    mission.expect_text("slow", containing="word1 ")
    assert mission.state("slow") == "streaming"
    assert mission.state("next") == "waiting"
    assert "word39" not in mission.texts()["slow"]
    mission.expect_end("Finished: 2 of 2 nodes")


def test_text_of_a_model_is_never_markup(mission):
    text = "<img src=x onerror=alert(1)><b>bold</b>"
    mission.run([{"id": "<i>id</i>", "mid": "gpt-3.5-turbo", "prompt": text}])
    mission.expect_end("Finished")
    assert mission.texts() == {"<i>id</i>": f"echo: {text}"}
    expect(mission.page.locator("#levels :is(img, b, i)")).to_have_count(0)


def test_failed_node_shows_its_error_and_its_dependent_is_skipped(mission):
    failing = {"id": "fox", "mid": "gpt-3.5-turbo", "prompt": "x [[status=400]]"}
    mission.run([failing, {**GRAPH[2], "prompt": "y", "dependenceIdList": ["fox"]}])
    mission.expect_end("Finished with errors: 2 of 2 nodes")
    assert (mission.state("fox"), mission.state("both")) == ("failed", "skipped")
    expect(mission.card("fox").locator(".error")).to_contain_text("400")
    expect(mission.card("both").locator(".error")).to_contain_text('"fox" has no result')


def test_attempt_that_broke_off_leaves_none_of_its_text(mission):
    cut = "z [[tokens=3 stop_after=2 cut=true]]"
    node = {"id": "cut", "mid": "gpt-3.5-turbo", "prompt": cut, "retries": 0}
    mission.run([{**node, "onError": {"default": "instead"}}])
    mission.expect_end("Finished")
    assert mission.texts() == {"cut": "instead"}


def test_control_and_enter_in_the_editor_runs(mission):
    mission.write(GRAPH[:2])
    mission.editor.press("Control+Enter")
    mission.expect_end("Finished: 2 of 2 nodes")


# --- refusals ------------------------------------------------------------------------------------


def test_wrong_key_is_said_and_the_field_has_the_focus(page, server):
    mission = MissionPage(page, server.base_url).open(key="wrong")
    mission.run(GRAPH)
    mission.expect_error("the key is not one of this server's")
    expect(page.get_by_label("Key")).to_be_focused()
    expect(page.get_by_role("button", name="Run")).to_be_enabled()
    assert mission.texts() == {}


def test_cycle_is_shown_with_its_path(mission):
    mission.run([{**GRAPH[0], "dependenceIdList": ["both"]}, *GRAPH[1:]])
    mission.expect_error("promptList[")
    mission.expect_error(
        re.compile(r"dependenceIdList: .*cycle: (fox -> both -> fox|both -> fox -> both)")
    )
    assert mission.texts() == {}


def test_broken_json_is_refused_before_anything_is_sent(mission):
    sent: list[str] = []
    mission.page.on("request", lambda request: sent.append(request.url))
    mission.run(text='[{"id": "a",}]')
    mission.expect_error("This is not JSON yet")
    mission.run(text='{"id": "a"}')
    mission.expect_error("A promptList is a JSON array")
    assert sent == []


# --- cancelling ----------------------------------------------------------------------------------


def test_cancel_ends_the_mission_and_the_call_of_the_model(mission, upstream):
    graph = hanging("cancel me")
    mission.run(graph)
    mission.expect_text("slow", containing="word2 ")
    mission.cancel()
    mission.expect_end("Cancelled: 1 of 1 nodes")
    upstream.wait_closed(graph[0]["prompt"])
    assert mission.state("slow") == "cancelled"
    assert mission.texts() == mission.queried()


def test_cancel_in_the_moment_of_run_starts_nothing(mission, upstream):
    prompt = "never to be seen"
    mission.write([{**GRAPH[0], "prompt": prompt}])
    mission.page.evaluate("for (const id of ['run', 'cancel']) document.getElementById(id).click()")
    expect(mission.page.get_by_role("button", name="Run")).to_be_enabled()
    mission.run(GRAPH)
    mission.expect_end("Finished")
    assert prompt not in upstream.seen()["prompts"]


# --- going on ------------------------------------------------------------------------------------


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


@pytest.fixture
def own_server(models: Path, tmp_path: Path) -> Iterator[ServerProcess]:
    """A server that a test may stop."""
    with ServerProcess(tmp_path / "data", f"--models={models}") as process:
        yield process


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


# --- the API from a page's script ----------------------------------------------------------------


def test_event_source_with_a_ticket_gets_every_event_with_its_number(mission):
    mission.run(GRAPH)
    mission.expect_end("Finished")
    numbers, texts = mission.page.evaluate(EVENT_SOURCE, [mission.id, mission.ticket()])
    assert numbers == [str(number) for number in range(1, len(numbers) + 1)]
    assert texts == mission.texts()


EVENT_SOURCE = """([missionId, ticket]) => new Promise((resolve, reject) => {
  const address = `/api/completion/st/mission?missionId=${missionId}&ticket=${ticket}`;
  const source = new EventSource(address);
  const numbers = [];
  const texts = {};
  source.onmessage = ({ data, lastEventId }) => {
    const event = JSON.parse(data);
    numbers.push(lastEventId);
    if (event.choices) texts[event.id] = (texts[event.id] ?? "") + event.choices[0].text;
    if (event.statue === "[FINISHED]") { source.close(); resolve([numbers, texts]); }
  };
  source.onerror = () => reject(new Error("the EventSource failed"));
})"""


def test_web_socket_with_a_ticket_runs_a_mission(mission):
    types = mission.page.evaluate(WEB_SOCKET, [GRAPH[:1], mission.ticket()])
    assert types[0] == "accepted"
    assert types[-2:] == ["done", "finished"]
    assert set(types[1:-2]) == {"token"}


def test_ticket_is_good_once(mission):
    ticket = mission.ticket()
    mission.page.evaluate(WEB_SOCKET, [GRAPH[:1], ticket])
    with pytest.raises(Exception, match="the WebSocket failed"):
        mission.page.evaluate(WEB_SOCKET, [GRAPH[:1], ticket])


WEB_SOCKET = """([promptList, ticket]) => new Promise((resolve, reject) => {
  const socket = new WebSocket(`ws://${location.host}/api/completion/ws?ticket=${ticket}`);
  const types = [];
  socket.onopen = () => socket.send(JSON.stringify({ type: "generate", promptList }));
  socket.onmessage = ({ data }) => {
    const { type } = JSON.parse(data);
    types.push(type);
    if (type === "finished") { socket.close(); resolve(types); }
  };
  socket.onerror = () => reject(new Error("the WebSocket failed"));
})"""
