"""What a user has is what the grants add up to; a refund takes only from its own order."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, strategies as st

from vision.payments.entitlement import (
    DAY_MS,
    Entitlement,
    Grant,
    Refunded,
    add_up,
    revoke,
    unspent,
)

NOTHING = Entitlement("u1", "line", ends_at=0, tokens=0, tokens_used=0)


def days(order_id: str, at: int, length: int) -> Grant:
    return Grant(order_id, at * DAY_MS, length * DAY_MS, tokens=0)


def end(*grants: Grant) -> float:
    return add_up(NOTHING, grants).ends_at / DAY_MS


def refund_all(grants: list[Grant], order_id: str, day: int) -> list[Grant]:
    left = revoke(grants, 0, Refunded(order_id, 100, 0, 100), day * DAY_MS)
    assert left is not None
    return [left if each.order_id == order_id else each for each in grants]


def test_renewing_while_active_extends_from_the_current_end() -> None:
    assert end(days("a", 0, 30), days("b", 10, 30)) == 60


def test_renewing_after_the_end_begins_now() -> None:
    assert end(days("a", 0, 30), days("b", 40, 30)) == 70


def test_a_user_is_active_until_the_end() -> None:
    entitlement = add_up(NOTHING, [days("a", 0, 1)])
    assert entitlement.active(DAY_MS - 1)
    assert not entitlement.active(DAY_MS)
    assert not add_up(NOTHING, []).active(0)


def test_a_refund_takes_the_days_that_have_not_passed() -> None:
    assert end(*refund_all([days("a", 0, 30)], "a", 10)) == 10


def test_a_refund_of_days_that_have_passed_leaves_a_later_order_whole() -> None:
    assert end(*refund_all([days("a", 0, 30), days("b", 40, 30)], "a", 45)) == 70


def test_a_refund_moves_what_follows_forward() -> None:
    grants = refund_all([days("a", 0, 30), days("b", 5, 30), days("c", 6, 30)], "a", 10)
    assert end(*grants) == 70
    assert end(*refund_all(grants, "b", 35)) == 65


def test_a_refund_of_days_that_have_not_begun_takes_all_of_them() -> None:
    assert end(*refund_all([days("a", 0, 30), days("b", 5, 30)], "b", 10)) == 30


def test_a_part_takes_its_share() -> None:
    left = revoke([days("a", 0, 30)], 0, Refunded("a", 100, 0, 50), 0)
    assert left is not None
    assert left.revoked_ms == 15 * DAY_MS


def test_spent_tokens_stay_spent_and_others_tokens_are_not_touched() -> None:
    first = Grant("a", 0, 0, 100)
    half = revoke([first], 80, Refunded("a", 100, 0, 50), 1)
    assert half == replace(first, revoked_tokens=20)
    second = Grant("b", 2, 0, 100)

    rest = revoke([half, second], 80, Refunded("a", 100, 50, 100), 3)

    assert rest == half
    assert add_up(replace(NOTHING, tokens_used=80), [half, second]).tokens_left == 100


def test_there_is_nothing_to_take_back_where_nothing_was_granted() -> None:
    assert revoke([days("a", 0, 30)], 0, Refunded("b", 100, 0, 100), 0) is None


GRANTS = st.lists(
    st.builds(
        Grant,
        order_id=st.uuids().map(lambda each: each.hex),
        granted_at=st.integers(0, 10**6),
        access_ms=st.integers(0, 10**6),
        tokens=st.integers(0, 10**6),
    ),
    min_size=1,
    max_size=6,
    unique_by=lambda each: each.order_id,
)


@given(GRANTS, st.data())
def test_the_order_in_which_grants_are_read_makes_no_difference(
    grants: list[Grant], data: st.DataObject
) -> None:
    shuffled = data.draw(st.permutations(grants))
    assert add_up(NOTHING, shuffled) == add_up(NOTHING, grants)


@given(GRANTS, st.data())
def test_refunds_in_parts_never_take_more_than_was_granted_nor_what_is_used(
    grants: list[Grant], data: st.DataObject
) -> None:
    order_id = data.draw(st.sampled_from(grants)).order_id
    used = data.draw(st.integers(0, sum(each.tokens for each in grants)))
    amount = data.draw(st.integers(1, 1000))
    steps = sorted(data.draw(st.lists(st.integers(0, amount), max_size=4)))
    now = 0
    for before, after in zip([0, *steps], [*steps, amount], strict=True):
        now += data.draw(st.integers(0, 10**6))
        others = [each for each in grants if each.order_id != order_id]
        granted = revoke(grants, used, Refunded(order_id, amount, before, after), now)
        assert granted is not None
        grants = [*others, granted]
        assert 0 <= granted.revoked_ms <= granted.access_ms
        assert 0 <= granted.revoked_tokens <= granted.tokens
        left = add_up(replace(NOTHING, tokens_used=used), grants)
        assert left.tokens_left >= 0
        assert sum(each for _, each in unspent(grants, used)) == left.tokens_left


@given(GRANTS, st.data())
def test_a_refund_before_anything_is_used_leaves_what_the_other_orders_granted(
    grants: list[Grant], data: st.DataObject
) -> None:
    refunded = data.draw(st.sampled_from(grants))
    others = [each for each in grants if each is not refunded]

    left = revoke(grants, 0, Refunded(refunded.order_id, 7, 0, 7), 0)

    assert left is not None
    assert add_up(NOTHING, [*others, left]) == add_up(NOTHING, others)
