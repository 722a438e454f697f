"""Notifications of the gateways: kept as they came, verified, settled, and only then acknowledged.

The law: what comes in is written down raw before anybody looks at it, and the gateway is told
"received" only after everything that follows from it is committed. A payment that is refused is
received too: it is a case for a person now, and sending it again would change nothing; should the
reason go away, the reconciler's query settles it. What is not shown to come from the gateway is
kept for a while, to find out what it was, and has no effect.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Final

import structlog
from sqlalchemy import delete, insert, update
from sqlalchemy.ext.asyncio import AsyncConnection

from vision.errors import StoreUnavailable
from vision.payments import tables
from vision.payments.database import Database
from vision.payments.errors import GatewayUnavailable, NotificationRefused
from vision.payments.gateway import Acknowledgement, Channel, Gateway, Notification
from vision.payments.refunds import Refunds
from vision.payments.settle import Settler

# Both gateways send about two kilobytes. Anyone can send to this address, and all of it is stored.
LARGEST_BODY: Final = 64 * 1024
LARGEST_HEADERS: Final = 16 * 1024

# Long enough to look into what went wrong with a certificate; false ones may be many.
UNVERIFIED_KEPT_MS: Final = 30 * 24 * 60 * 60 * 1000

# None of theirs; what may be in them is not ours to keep.
_NOT_KEPT: Final = frozenset({"authorization", "cookie"})

_logger = structlog.get_logger("vision.payments")


class Intake:
    """Where the gateways' callbacks go."""

    def __init__(
        self,
        database: Database,
        settler: Settler,
        refunds: Refunds,
        clock: Callable[[], int],
    ) -> None:
        self._database = database
        self._settler = settler
        self._refunds = refunds
        self._clock = clock

    async def receive(
        self, channel: Channel, headers: Mapping[str, str], body: bytes
    ) -> Acknowledgement:
        """Take a notification in; the answer to send, in the gateway's own form.

        Raises GatewayUnavailable when the channel is not configured.
        """
        gateway = self._settler.gateway(channel)
        if len(body) > LARGEST_BODY:
            return gateway.refuse("the notification is too large", retry=False)
        try:
            return await self._receive(gateway, headers, body)
        except StoreUnavailable as error:
            _logger.warning("notification_not_stored", channel=channel, why=error.message)
            return gateway.refuse("cannot be stored now", retry=True)

    async def _receive(
        self, gateway: Gateway, headers: Mapping[str, str], body: bytes
    ) -> Acknowledgement:
        number = await self._keep(gateway.channel, headers, body)
        try:
            notification = await gateway.read_notification(headers, body, self._clock() / 1000)
        except NotificationRefused as error:
            _logger.warning("notification_refused", channel=gateway.channel, why=error.message)
            await self._judge(number, error.message, verified=False)
            return gateway.refuse(error.message, retry=False)
        except GatewayUnavailable as error:
            await self._judge(number, error.message, verified=False)
            return gateway.refuse("cannot be verified now", retry=True)
        await self._judge(number, await self._carry_out(notification), verified=True)
        return gateway.acknowledge()

    async def _carry_out(self, notification: Notification) -> str:
        """Do what follows from it; the verdict to write down."""
        if notification.kind == "payment" and notification.payment is not None:
            settlement = await self._settler.settle(notification.payment, "notification")
            return f"{settlement.verdict}: {settlement.refusal or notification.payment.order_id}"
        if notification.kind == "refund" and notification.refund is not None:
            refund = await self._refunds.apply(notification.refund, notification.order_id)
            return (
                f"refund {notification.refund.refund_id}: {refund.state if refund else 'unknown'}"
            )
        return "nothing to do"

    async def _keep(self, channel: Channel, headers: Mapping[str, str], body: bytes) -> int:
        kept = {name: text for name, text in headers.items() if name.lower() not in _NOT_KEPT}
        values = {
            "channel": channel,
            "headers": json.dumps(kept)[:LARGEST_HEADERS],
            "body": body,
            "verdict": "received",
            "verified": False,
            "received_at": self._clock(),
        }

        async def act(connection: AsyncConnection) -> int:
            result = await connection.execute(insert(tables.notifications).values(values))
            key = result.inserted_primary_key
            assert key is not None  # noqa: S101 -- one row was inserted, so it has a number
            return int(key[0])

        return await self._database.write(act)

    async def _judge(self, number: int, verdict: str, *, verified: bool) -> None:
        notifications = tables.notifications
        change = update(notifications).where(notifications.c.id == number)

        async def act(connection: AsyncConnection) -> None:
            await connection.execute(change.values(verdict=verdict, verified=verified))

        await self._database.write(act)

    async def forget(self) -> None:
        """Delete what was never verified and is old."""
        kept = tables.notifications.c
        old = kept.received_at < self._clock() - UNVERIFIED_KEPT_MS

        async def act(connection: AsyncConnection) -> None:
            await connection.execute(
                delete(tables.notifications).where(kept.verified.is_(False), old)
            )

        await self._database.write(act)
