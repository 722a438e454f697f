"""However events fall into writes, what a subscriber can make of them is the same."""

from __future__ import annotations

import secrets

from hypothesis import HealthCheck, given, settings, strategies as st
from tornado.ioloop import IOLoop

from tests.unit.missions.writing import RUNNING, in_flight, open_writing, short, token
from vision.missions.events import Batch, Event, NodeRestarted, Token
from vision.missions.log import MissionLog
from vision.missions.writer import LogWriter

_NODES = st.sampled_from("ab")
_PUTS = st.one_of(
    st.builds(token, _NODES, st.text("xyz", max_size=3)),
    st.builds(NodeRestarted, _NODES, st.just(RUNNING)),
    st.just(None),  # time passes
)


# Every example has a mission of its own.
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(puts=st.lists(_PUTS, max_size=20))
def test_however_writes_fall_a_subscriber_gets_the_same(
    io_loop: IOLoop,
    log: MissionLog,
    writer: LogWriter,
    puts: list[Event | None],
):
    name = secrets.token_hex(8)

    async def scenario() -> Batch:
        writing = await open_writing(log, name)
        for event in puts:
            if event is None:
                await in_flight()
            else:
                writer.put(writing, event)
        await writer.settled(writing)
        return await log.read(name, 0)

    assert by_node(short(io_loop.run_sync(scenario))) == by_node(
        [
            f"{event.node_id}:{event.text}"
            if isinstance(event, Token)
            else f"{event.node_id}[RESTARTED]"
            for event in puts
            if event is not None
        ]
    )


def by_node(told: list[str]) -> dict[str, str]:
    """All that was told of each node, in order, with the seams between tokens gone."""
    texts: dict[str, str] = {"a": "", "b": ""}
    for line in told:
        texts[line[0]] += line[1:].removeprefix(":")
    return texts
