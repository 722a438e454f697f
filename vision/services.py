"""The composition root: builds every part of one process and hands it down.

The law: parts get what they need from here and reach for nothing themselves. They are opened in
the order of their needs and closed in the opposite one, whatever fails in between.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from redis.asyncio import Redis

from vision.access import Keys, Role, Tickets
from vision.background import Background
from vision.children import DataFolder
from vision.errors import ModelError, SettingError, StoreUnavailable
from vision.missions.hub import Hub
from vision.missions.idempotency import IdempotencyKeys
from vision.missions.live import Listeners, LiveFeed, Wish
from vision.missions.log import Claim, MissionLog
from vision.missions.queue import MissionQueue
from vision.missions.run import MissionRun
from vision.missions.runner import Runner
from vision.missions.service import Missions
from vision.missions.writer import LogWriter
from vision.models.catalog import Catalog, Endpoint, default_catalog, load_catalog
from vision.models.local import LocalModel
from vision.models.single import SinglePrompt
from vision.models.upstream import Models
from vision.order_news import OrderNews
from vision.payments.configured import configured_gateways
from vision.payments.gateway import Channel
from vision.payments.order import Order
from vision.payments.sandbox import SandboxGateway, open_sandbox
from vision.payments.service import Payments, assemble, clock, open_database
from vision.redis_edge import connect, redis_calls
from vision.settings import Settings
from vision.valkey import EmbeddedValkey

# The probe's key need not outlive it.
PROBE_MS: Final = 1000

# A prober asks every few seconds and gives up soon; Redis answers a PING in well under one.
PING_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Services:
    """What the handlers call."""

    settings: Settings
    keys: Keys
    tickets: Tickets
    missions: Missions
    single: SinglePrompt
    background: Background
    runner: Runner
    queue: MissionQueue
    writer: LogWriter
    models: Models
    loops: tuple[Callable[[], Coroutine[Any, Any, None]], ...]
    redis: Redis
    local: LocalModel | None
    payments: Payments
    sandbox: Mapping[Channel, SandboxGateway]  # by channel; none in production
    news: OrderNews
    base_url: str  # of this process, for the sandbox

    async def run(self) -> None:
        """Write, run, route and hear until cancelled. Owned by the server's main task."""
        async with asyncio.TaskGroup() as group:
            for loop in self.loops:
                group.create_task(loop(), name=loop.__qualname__)

    async def readiness(self) -> dict[str, bool]:
        """By part: whether missions can be accepted and logged, taken, and run."""
        return {
            "redis": await self._redis_answers(),
            "runner": self.runner.taking,
            "model": self.local is None or self.local.ready,
        }

    async def _redis_answers(self) -> bool:
        try:
            async with asyncio.timeout(PING_SECONDS), redis_calls():
                # A write: a Redis that is full, or a replica, answers a PING too.
                await self.redis.set("vision:ready", b"1", px=PROBE_MS)
        except (StoreUnavailable, TimeoutError):
            return False
        return True


@asynccontextmanager
async def open_services(
    settings: Settings, folder: DataFolder, environ: Mapping[str, str], base_url: str
) -> AsyncIterator[Services]:
    """Build all parts; close them at the end. `folder` is locked by the caller; `environ` has the
    keys that a models file names; `base_url` is where this process will listen.

    Raises `SettingError` for a models file that is wrong, `StoreUnavailable` when the embedded
    Valkey does not come up.
    """
    catalog = _catalog(settings, environ)
    async with AsyncExitStack() as stack:
        redis = await _open_redis(settings, folder, stack)
        local = _start_local(catalog, folder, stack)
        models = Models(catalog, local.endpoint if local else _no_local)
        stack.push_async_callback(models.close)
        background = Background()
        stack.push_async_callback(background.close)
        news = OrderNews(redis, background)
        sandbox, payments = await _open_payments(settings, folder, base_url, news, stack)
        parts = _Parts(redis, models, local, background, news, payments, sandbox, base_url)
        yield _assemble(settings, folder, catalog, parts)


@dataclass(frozen=True, slots=True)
class _Parts:
    """What was opened, and has to be closed."""

    redis: Redis
    models: Models
    local: LocalModel | None
    background: Background
    news: OrderNews
    payments: Payments
    sandbox: Mapping[Channel, SandboxGateway]
    base_url: str


def _assemble(settings: Settings, folder: DataFolder, catalog: Catalog, parts: _Parts) -> Services:
    redis, models, background = parts.redis, parts.models, parts.background
    ttl_ms = int(settings.mission_ttl * 1000)
    log = MissionLog(redis, mission_ttl_ms=ttl_ms)
    live = LiveFeed(redis)
    hub = Hub(log, live.join, live.part)
    writer = LogWriter(log, hub.publish)
    queue = MissionQueue(redis, _consumer(folder))

    async def start_run(claim: Claim) -> MissionRun:
        base = await log.base_of(claim)
        return MissionRun(claim, base, catalog=catalog, models=models, writer=writer)

    runner = Runner(
        log, queue, hub, start_run, room=settings.room, claim_timeout=settings.claim_timeout
    )
    missions = Missions(
        catalog=catalog,
        log=log,
        hub=hub,
        live=live,
        writer=writer,
        keys=IdempotencyKeys(redis, ttl_ms=ttl_ms),
        offer=runner.offer,
        running=runner.runs.get,
        max_nodes=settings.max_nodes,
    )

    def grant(wish: Wish) -> None:
        background.start(missions.grant(wish), name="grant wish")

    live.listeners = Listeners(batch=hub.publish, look=hub.look, cancel=grant)
    return Services(
        settings=settings,
        keys=Keys(_keys(settings)),
        tickets=Tickets(redis),
        missions=missions,
        single=SinglePrompt(catalog, models),
        background=background,
        runner=runner,
        queue=queue,
        writer=writer,
        models=models,
        loops=(
            *(writer.run, runner.run, hub.run, live.run),
            *(parts.news.run, parts.payments.reconciler.run),
        ),
        redis=redis,
        local=parts.local,
        payments=parts.payments,
        sandbox=parts.sandbox,
        news=parts.news,
        base_url=parts.base_url,
    )


def _catalog(settings: Settings, environ: Mapping[str, str]) -> Catalog:
    if settings.models is None:
        return default_catalog(settings.openai_api_key)
    try:
        return load_catalog(settings.models, environ)
    except SettingError as error:
        raise SettingError(f"models: {error.message}") from None


async def _open_payments(
    settings: Settings,
    folder: DataFolder,
    base_url: str,
    news: OrderNews,
    stack: AsyncExitStack,
) -> tuple[Mapping[Channel, SandboxGateway], Payments]:
    gateways = configured_gateways(settings)
    for gateway in gateways.values():
        stack.push_async_callback(gateway.aclose)
    sandbox: dict[Channel, SandboxGateway] = {}
    if not settings.production and not gateways:
        channels: list[Channel] = ["tecent-pay", "alipay"]
        sandbox = await open_sandbox(folder.path, f"{base_url}/cashier.html", channels)
    database = await open_database(
        settings.database_url, folder.path, production=settings.production
    )
    stack.push_async_callback(database.close)

    def changed(order: Order) -> None:
        facts = {"orderId": order.order_id, "uid": order.uid, "status": order.status.value}
        news.tell(order.uid, facts | {"productId": order.product_id, "refunded": order.refunded})

    payments = assemble(
        database=database,
        gateways=gateways | sandbox,
        clock=clock,
        changed=changed,
        order_ttl_ms=int(settings.order_ttl * 1000),
        holder=_consumer(folder),
    )
    return sandbox, payments


async def _open_redis(settings: Settings, folder: DataFolder, stack: AsyncExitStack) -> Redis:
    url = settings.redis_url
    if not url:
        valkey = EmbeddedValkey(folder)
        stack.push_async_callback(valkey.stop)
        await valkey.start()
        url = valkey.url
    redis = connect(url)
    stack.push_async_callback(redis.aclose)
    return redis


def _start_local(catalog: Catalog, folder: DataFolder, stack: AsyncExitStack) -> LocalModel | None:
    """The embedded model, if a route leads to it; it loads while the server already answers."""
    if not catalog.uses_local:
        return None
    local = LocalModel(folder)
    stack.push_async_callback(local.stop)
    local.start()
    return local


async def _no_local() -> Endpoint:
    raise ModelError(
        "no route leads to the embedded model", code="upstream_unreachable", retryable=False
    )


def _keys(settings: Settings) -> dict[Role, tuple[str, ...]]:
    return {
        Role.CLIENT: settings.auth_keys,
        Role.PAYMENT: settings.payment_keys,
        Role.ADMIN: settings.admin_keys,
    }


def _consumer(folder: DataFolder) -> str:
    """This data folder's name in the queue: the same after every start."""
    path = folder.path / "consumer"
    if not path.exists():
        whole = path.with_suffix(".new")
        whole.write_text(secrets.token_hex(8))
        whole.rename(path)  # at once, so that a kill leaves no half of a name
    return path.read_text()
