"""Health: is the process alive, and can it do its job?

The law: these two need no key, tell no secret, and never wait longer than a prober does.
"""

from __future__ import annotations

from typing import Any

import msgspec
import tornado.web

from handlers.api import JSON
from handlers.context import Context


class AliveHandler(tornado.web.RequestHandler):
    """GET /healthz: 200 as long as the event loop turns."""

    async def get(self) -> None:
        _answer(self, 200, {"status": "ok"})


class ReadyHandler(tornado.web.RequestHandler):
    """GET /readyz: 200 when missions can be accepted, logged and run, else 503 and why."""

    def initialize(self, context: Context) -> None:
        self.services = context.services

    async def get(self) -> None:
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
