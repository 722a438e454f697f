"""Slots go round in order, and none is lost whatever is cancelled."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings, strategies as st

from vision.models.limits import Limiter


async def holding(limiter, entered, leave, name):
    async with limiter.slot():
        entered.append(name)
        await leave.wait()


@pytest.mark.gen_test
async def test_slots_are_given_in_the_order_of_asking(io_loop):
    limiter, entered, leave = Limiter(2), [], asyncio.Event()
    tasks = [asyncio.ensure_future(holding(limiter, entered, leave, n)) for n in range(6)]
    await asyncio.sleep(0)
    assert (entered, limiter.running, limiter.waiting) == ([0, 1], 2, 4)
    leave.set()
    await asyncio.gather(*tasks)
    assert entered == [0, 1, 2, 3, 4, 5]
    assert (limiter.running, limiter.waiting) == (0, 0)


@pytest.mark.gen_test
async def test_a_newcomer_does_not_overtake_one_who_was_just_given_the_slot(io_loop):
    limiter, entered, leave = Limiter(1), [], asyncio.Event()
    leave.set()
    async with limiter.slot():
        first = asyncio.ensure_future(holding(limiter, entered, leave, "first"))
        await asyncio.sleep(0)
    await asyncio.gather(first, holding(limiter, entered, leave, "newcomer"))
    assert entered == ["first", "newcomer"]


@pytest.mark.gen_test
async def test_a_slot_given_in_the_moment_of_cancellation_goes_to_the_next(io_loop):
    limiter, entered, leave = Limiter(1), [], asyncio.Event()
    async with limiter.slot():
        unlucky = asyncio.ensure_future(holding(limiter, entered, leave, "unlucky"))
        following = asyncio.ensure_future(holding(limiter, entered, leave, "next"))
        await asyncio.sleep(0)
    unlucky.cancel()  # the slot is already its own, but it has not run since
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert entered == ["next"]
    leave.set()
    await following
    assert unlucky.cancelled()
    assert limiter.running == 0


@given(
    capacity=st.integers(1, 3),
    steps=st.lists(
        st.tuples(st.sampled_from(["ask", "cancel", "leave", "turn"]), st.integers(0, 9)),
        max_size=40,
    ),
)
@settings(deadline=None)
def test_whatever_is_cancelled_the_bound_holds_and_every_slot_comes_back(capacity, steps):
    async def scenario():
        limiter, entered, events, tasks = Limiter(capacity), [], [], []
        for step, number in steps:
            if step == "ask":
                events.append(asyncio.Event())
                held = holding(limiter, entered, events[-1], len(tasks))
                tasks.append(asyncio.ensure_future(held))
            elif step == "turn":
                await asyncio.sleep(0)
            elif tasks and step == "cancel":
                tasks[number % len(tasks)].cancel()
            elif tasks:
                events[number % len(events)].set()
            assert limiter.running <= capacity
        for event in events:
            event.set()
        await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 5)
        # With more slots, two that were given in order may still wake up in another one.
        assert capacity > 1 or entered == sorted(entered)
        assert (limiter.running, limiter.waiting) == (0, 0)

    loop = asyncio.new_event_loop()  # `asyncio.run` would leave the thread without one
    try:
        loop.run_until_complete(scenario())
    finally:
        loop.close()


def test_a_limiter_without_slots_is_a_mistake():
    with pytest.raises(ValueError, match="at least one slot"):
        Limiter(0)
