"""Several processes on one Redis: whoever dies, freezes or is cut off, another goes on."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.contract.conftest import chat, contents_of
from tests.processes import ServerProcess, UpstreamProcess
from tests.service.calling import call, first_events, generate, watch
from tests.service.partition import Proxy
from tests.valkeys import Valkey, until

CLAIM_SECONDS = 1


@dataclass(frozen=True)
class Site:
    folder: Path
    valkey: Valkey
    upstream: UpstreamProcess
    models: Path

    def server(self, name: str, *flags: str) -> ServerProcess:
        common = [f"--redis-url={self.valkey.url}", f"--models={self.models}"]
        return ServerProcess(
            self.folder / name, *common, f"--claim-timeout={CLAIM_SECONDS}", *flags
        )

    def epoch(self, mission_id: str) -> int:
        return int(self.valkey.client.hget(f"vision:{{{mission_id}}}:head", "epoch"))

    def calls(self) -> Counter[str]:
        """How often each prompt was sent to the model, without its directive."""
        prompts = self.upstream.seen()["prompts"]
        return Counter(re.sub(r"\s*\[\[.*?\]\]", "", prompt) for prompt in prompts)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with (
        Valkey(tmp_path / "valkey", "--appendonly", "yes") as valkey,
        UpstreamProcess(tmp_path / "upstream.log") as upstream,
    ):
        yield Site(tmp_path, valkey, upstream, upstream.write_models(tmp_path / "models.toml"))


def check(events: list) -> None:
    assert [event["seq"] for event in events] == [*range(1, len(events) + 1)]
    assert events[-1]["status"] == "succeeded"


SLOW = "slow [[tokens=60 delay=0.05]]"


def test_a_killed_processs_missions_go_on_elsewhere_and_finished_nodes_are_not_run_again(
    site: Site,
) -> None:
    with site.server("one") as one, site.server("two") as two:
        mission_id = generate(one, chat("a", "quick"), chat("b", SLOW, "a"))
        seen = first_events(one, mission_id, 5)
        one.kill()

        events = [*seen, *watch(two, mission_id, after=5)]

    check_restarted(site, events)


def test_a_process_that_starts_after_the_kill_takes_the_mission_up(site: Site) -> None:
    with site.server("one") as one:
        mission_id = generate(one, chat("a", "quick"), chat("b", SLOW, "a"))
        seen = first_events(one, mission_id, 5)
        one.kill()

    with site.server("two") as two:
        events = [*seen, *watch(two, mission_id, after=5)]

    check_restarted(site, events)


def check_restarted(site: Site, events: list) -> None:
    """Of "a" and then "b": only what was not finished ran twice."""
    check(events)
    assert [e["statue"] for e in events if e.get("id") == "b" and "statue" in e] == [
        "[RESTARTED]",
        "[DONE]",
    ]
    assert site.calls()["quick"] == 1
    assert contents_of(events)["a"] == "echo: quick"


def test_a_frozen_processs_late_writes_are_refused(site: Site) -> None:
    long = "long [[tokens=140 delay=0.05]]"  # still running when the process thaws
    with site.server("one") as one:
        mission_id = generate(one, chat("a", long))
        first_events(one, mission_id, 3)
        os.kill(one.pid, signal.SIGSTOP)
        with site.server("two") as two:
            until(lambda: site.epoch(mission_id) == 2)
            os.kill(one.pid, signal.SIGCONT)

            events = watch(two, mission_id)

            check(events)
            assert len(contents_of(events)["a"].split()) == 140
            assert site.epoch(mission_id) == 2
            assert watch(one, mission_id) == events
            # The old runner has closed its call: it was told, or found out with its next write.
            site.upstream.wait_closed(long, seconds=CLAIM_SECONDS + 2)


def test_a_process_that_lost_its_redis_is_replaced_and_its_late_writes_are_refused(
    site: Site,
) -> None:
    with Proxy(site.valkey.port) as proxy:
        url = f"--redis-url=redis://127.0.0.1:{proxy.port}"
        flags = [f"--models={site.models}", f"--claim-timeout={CLAIM_SECONDS}"]
        one = ServerProcess(site.folder / "cut off", url, *flags)
        with one, site.server("two") as two:
            mission_id = generate(one, chat("a", SLOW))
            first_events(one, mission_id, 3)
            proxy.cut()
            until(lambda: site.epoch(mission_id) == 2)
            proxy.heal()

            events = watch(two, mission_id)

            check(events)
            assert site.epoch(mission_id) == 2
            until(lambda: metric(one, "vision_missions_running") == 0)
            assert watch(one, mission_id) == events


def test_a_process_that_starts_later_replaces_one_that_lost_its_redis(site: Site) -> None:
    with Proxy(site.valkey.port) as proxy:
        url = f"--redis-url=redis://127.0.0.1:{proxy.port}"
        with site.server("cut off", url) as one:
            mission_id = generate(one, chat("a", "long [[tokens=140 delay=0.05]]"))
            first_events(one, mission_id, 3)
            proxy.cut()
            with site.server("two") as two:
                until(lambda: site.epoch(mission_id) == 2)
                proxy.heal()

                events = watch(two, mission_id)

                check(events)
                until(lambda: metric(one, "vision_missions_running") == 0)
                assert watch(one, mission_id) == events


def test_work_is_shared_and_a_full_process_leaves_the_queue_to_the_others(site: Site) -> None:
    with site.server("one", "--room=2") as one, site.server("two", "--room=3") as two:
        missions = [generate(one, chat("a", f"{n} never [[before_first=never]]")) for n in range(7)]
        until(lambda: metric(one, "vision_missions_running") == 2)
        until(lambda: metric(two, "vision_missions_running") == 3)

        assert metric(one, 'vision_queue_missions{state="waiting"}') == 2
        assert metric(two, 'vision_queue_missions{state="claimed"}') == 5
        assert metric(two, "vision_queue_age_seconds") > 0
        for mission_id in missions:
            body = {"missionId": mission_id}
            answer = json.loads(call(two, "/api/completion/cancel", body)[1])
            assert answer["data"]["status"] == "cancelled"


def metric(server: ServerProcess, name: str) -> float:
    text = call(server, "/metrics")[1].decode()
    return float(next(line for line in text.splitlines() if line.startswith(f"{name} ")).split()[1])


def test_cancelling_through_another_process_closes_the_model_call_within_a_second(
    site: Site,
) -> None:
    with site.server("one", "--room=1") as one, site.server("two", "--room=1") as two:
        prompts = [f"{n} never [[before_first=never]]" for n in range(2)]
        missions = [generate(one, chat("a", prompt)) for prompt in prompts]
        until(lambda: site.upstream.seen()["running"] == 2)

        for prompt, mission_id in zip(prompts, missions, strict=True):
            call(two, "/api/completion/cancel", {"missionId": mission_id})
            site.upstream.wait_closed(prompt, seconds=1)


def test_a_process_that_was_asked_to_end_hands_its_missions_over_at_once(site: Site) -> None:
    never = "--claim-timeout=60"
    with site.server("one", never) as one, site.server("two", never) as two:
        mission_id = generate(one, chat("a", "quick"), chat("b", SLOW, "a"))
        first_events(one, mission_id, 5)
        assert one.terminate() == 0
        ended = time.monotonic()

        until(lambda: site.epoch(mission_id) == 2)

        assert time.monotonic() - ended < 30, "not after the claim time"
        check(watch(two, mission_id))
    assert site.calls()["quick"] == 1


def test_a_process_that_starts_later_finds_what_was_handed_over(site: Site) -> None:
    never = "--claim-timeout=60"
    with site.server("one", never) as one:
        mission_id = generate(one, chat("a", "quick"), chat("b", SLOW, "a"))
        first_events(one, mission_id, 5)
        assert one.terminate() == 0

    with site.server("two", never) as two:
        until(lambda: site.epoch(mission_id) == 2)  # long before the claim would have run out

        check(watch(two, mission_id))
    assert site.calls()["quick"] == 1


def test_a_mission_that_kills_whoever_runs_it_is_failed_with_its_reason(site: Site) -> None:
    with site.server("watcher", "--room=1") as watcher:
        # The watcher's only place is taken, so that it is always a victim who takes the mission.
        busy = generate(watcher, chat("a", "never [[before_first=never]]"))
        until(lambda: metric(watcher, "vision_missions_running") == 1)
        deadly = generate(watcher, chat("a", "deadly [[before_first=never]]"))
        for number in range(1, 6):
            with site.server("victim") as victim:
                until(lambda number=number: site.epoch(deadly) == number)
                victim.kill()
        with site.server("victim") as victim:
            events = watch(victim, deadly)
            call(victim, "/api/completion/cancel", {"missionId": busy})

    assert events[-1]["status"] == "failed"
    failed = next(event for event in events if event["type"] == "failed")
    assert failed["error"]["code"] == "runner_lost"
    assert "5" in failed["error"]["message"]
