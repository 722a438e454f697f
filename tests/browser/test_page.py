"""The page at `/`, as a person uses it: in Chromium, before a real server.

The law: what a person sees follows from what the server said; a refusal is said beside what is
wrong, and leaves nothing behind. What happens when the page or the server goes away and comes back
is in `test_going_on.py`.
"""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from tests.browser.driver import GRAPH, SLOW, MissionPage, hanging
from tests.processes import ServerProcess

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
        mission.expect_end("Finished: 3 of 3 nodes", seconds=50)
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
