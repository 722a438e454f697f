"""Health: is the process alive, and can it do its job?

The law: these two need no key, tell no secret, and never wait longer than a prober does.
"""

from __future__ import annotations

from typing import Any

import msgspec
import tornado.web

from handlers.answers import JSON
from handlers.context import Context
from handlers.refusals import RefusingHandler


class HealthHandler(RefusingHandler):
    """What both keep: HEAD, for probers that like it."""

    def initialize(self, context: Context) -> None:
        self.services = context.services

    async def head(self) -> None:
        await self.look()

    async def get(self) -> None:
        await self.look()

    async def look(self) -> None:
        """Answer how it is."""
        raise NotImplementedError


class AliveHandler(HealthHandler):
    """GET /healthz: 200 as long as the event loop turns."""

    async def look(self) -> None:
        _answer(self, 200, {"status": "ok"})


class ReadyHandler(HealthHandler):
    """GET /readyz: 200 when missions can be accepted, logged and run, else 503 and why."""

    async def look(self) -> None:
        checks = await self.services.readiness()
        ready = all(checks.values())
        words = {name: "ok" if good else "not ready" for name, good in checks.items()}
        status = "ok" if ready else "not ready"
        _answer(self, 200 if ready else 503, {"status": status, "checks": words})


def _answer(handler: tornado.web.RequestHandler, status: int, document: dict[str, Any]) -> None:
    handler.set_status(status)
    handler.set_header("Content-Type", JSON)
    handler.set_header("Cache-Control", "no-store")
    handler.finish(msgspec.json.encode(document))
