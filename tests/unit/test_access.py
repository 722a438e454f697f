"""Who may call: keys in the header, and tickets where there is no header."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from redis.asyncio import Redis
from tornado.ioloop import IOLoop

from vision.access import TICKET_SECONDS, Keys, Role, Tickets
from vision.errors import Forbidden, StoreUnavailable, Unauthorized
from vision.redis_edge import connect

KEYS = Keys(
    {Role.CLIENT: ["chat", "k2 with blanks"], Role.PAYMENT: ["pay"], Role.ADMIN: ["boss", "pay"]}
)


@pytest.fixture
def client(io_loop: IOLoop, redis_url: str) -> Iterator[Redis]:
    redis = connect(redis_url)
    yield redis
    io_loop.run_sync(redis.aclose)


@pytest.mark.parametrize(
    "header", ["Vision chat", "vision chat", "VISION  chat ", "Vision k2 with blanks"]
)
def test_header_with_any_of_the_keys_is_let_in(header: str):
    """The scheme in any case (RFC 9110, section 11.1); blanks around the key are nothing."""
    KEYS.check(header)


@pytest.mark.parametrize("header", [None, ""])
def test_missing_header_is_told_how(header: str | None):
    with pytest.raises(Unauthorized) as refused:
        KEYS.check(header)
    assert refused.value.message == (
        "the key is missing; send the header `Authorization: Vision <key>`"
    )


@pytest.mark.parametrize(
    "header",
    [
        "Vision",
        "Vision ",
        "chat",
        "Bearer chat",
        "Visionchat",
        "Vision cha",
        "Vision chatt",
        "Vision Chat",
        "Vision chat k2 with blanks",
        "Vision k2",
        "Vision ключ",
        "Vision \udcff",
    ],
)
def test_anything_else_is_refused_without_being_repeated(header: str):
    with pytest.raises(Unauthorized) as refused:
        KEYS.check(header)
    assert refused.value.message == (
        "the key is not one of this server's; send the header `Authorization: Vision <key>`"
    )


def test_without_keys_nobody_is_let_in():
    with pytest.raises(Unauthorized):
        Keys(dict.fromkeys(Role, ())).check("Vision ")


@pytest.mark.gen_test
async def test_ticket_is_good_once(client: Redis):
    tickets = Tickets(client)
    ticket = await tickets.issue("me")
    assert await tickets.redeem(ticket) == "me"
    with pytest.raises(Unauthorized) as refused:
        await tickets.redeem(ticket)
    assert refused.value.message == (
        "the ticket is used, expired or unknown; get one at /api/ticket"
    )


@pytest.mark.gen_test
async def test_of_many_who_come_with_one_ticket_one_is_let_in(client: Redis):
    tickets = Tickets(client)
    ticket = await tickets.issue("me")
    attempts = [tickets.redeem(ticket) for _ in range(10)]
    results = await asyncio.gather(*attempts, return_exceptions=True)
    assert results.count("me") == 1


@pytest.mark.gen_test
async def test_ticket_of_one_process_is_good_on_another(client: Redis):
    await Tickets(client).redeem(await Tickets(client).issue("me"))


@pytest.mark.gen_test
async def test_ticket_lasts_a_minute_and_the_store_has_only_its_hash(client: Redis):
    ticket = await Tickets(client).issue("me")
    [key] = await client.keys()
    assert ticket.encode() not in key
    assert 0 < await client.ttl(key) <= TICKET_SECONDS


@pytest.mark.gen_test
@pytest.mark.parametrize("ticket", ["", "x", "é", "\udcff", "*", "x" * 10_000])
async def test_what_is_no_ticket_is_refused(client: Redis, ticket: str):
    await Tickets(client).issue("me")
    with pytest.raises(Unauthorized):
        await Tickets(client).redeem(ticket)


@pytest.mark.gen_test
async def test_store_that_is_away_is_not_a_wrong_ticket(tmp_path):
    redis = connect(f"unix://{tmp_path}/nobody")
    with pytest.raises(StoreUnavailable):
        await Tickets(redis).issue("me")
    with pytest.raises(StoreUnavailable):
        await Tickets(redis).redeem("x")
    await redis.aclose()


@pytest.mark.parametrize(
    ("key", "role"), [("pay", Role.PAYMENT), ("boss", Role.ADMIN), ("pay", Role.ADMIN)]
)
def test_key_is_good_for_its_roles(key: str, role: Role):
    assert KEYS.check(f"Vision {key}", role)


@pytest.mark.parametrize(
    ("key", "role"), [("chat", Role.PAYMENT), ("chat", Role.ADMIN), ("pay", Role.CLIENT)]
)
def test_key_of_another_role_is_known_and_refused(key: str, role: Role):
    with pytest.raises(Forbidden, match=role):
        KEYS.check(f"Vision {key}", role)
