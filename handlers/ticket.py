"""Tickets: what a browser shows in place of a key where it cannot set a header."""

from __future__ import annotations

from handlers.api import ApiHandler
from vision.access import TICKET_SECONDS


class TicketHandler(ApiHandler):
    """POST /api/ticket: a single-use ticket for `?ticket=` of the WebSocket and of `st/mission`."""

    async def post(self) -> None:
        ticket = await self.services.tickets.issue(self.owner)
        self.set_header("Cache-Control", "no-store")
        self.answer({"ticket": ticket, "expiresIn": TICKET_SECONDS})
