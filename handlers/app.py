"""Which address leads to which handler."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import structlog
import tornado.web

from handlers.api import UnknownEndpoint
from handlers.cashier import CashierHandler
from handlers.completion import (
    CancelHandler,
    GenerateHandler,
    MissionQueryHandler,
    SinglePromptHandler,
)
from handlers.connections import Connections
from handlers.context import Context
from handlers.health import AliveHandler, ReadyHandler
from handlers.metrics import MetricsHandler
from handlers.notify import PATHS, GatewayNotifyHandler, InternalNotifyHandler
from handlers.payment import (
    CasesHandler,
    EntitlementsHandler,
    OrderCreateHandler,
    OrderHandler,
    OrdersHandler,
    QrCodeHandler,
    RefundHandler,
)
from handlers.products import ProductsHandler, PromoCodesHandler
from handlers.socket import SocketHandler
from handlers.stream import StreamGenerateHandler, StreamMissionHandler
from handlers.ticket import TicketHandler
from handlers.validation import Validators
from vision.services import Services

_access = structlog.get_logger("vision.access")

WEB: Final = Path(__file__).parent.parent / "web"


class PageHandler(tornado.web.StaticFileHandler):
    """GET /: the pages in `web/`. They hold no secret; what they do needs a key."""

    def set_extra_headers(self, path: str) -> None:
        # Scripts and styles are our own files; nothing else may run in a page that holds a key.
        self.set_header("Content-Security-Policy", "default-src 'self'; frame-ancestors 'none'")
        self.set_header("X-Content-Type-Options", "nosniff")
        # Always ask whether the file has changed: a new server comes with its own page.
        self.set_header("Cache-Control", "no-cache")


def routes(context: Context) -> list[Any]:
    """Every address of the server."""
    ours: dict[str, Any] = {"context": context}
    page = {"path": WEB, "default_filename": "index.html"}
    return [
        (r"/api/completion/single-prompt-request", SinglePromptHandler, ours),
        (r"/api/completion/generate", GenerateHandler, ours),
        (r"/api/completion/mission-query", MissionQueryHandler, ours),
        (r"/api/completion/cancel", CancelHandler, ours),
        (r"/api/completion/st/generate", StreamGenerateHandler, ours),
        (r"/api/completion/st/mission", StreamMissionHandler, ours),
        (r"/api/completion/ws", SocketHandler, ours),
        (r"/api/ticket", TicketHandler, ours),
        (r"/api/payment/order/create", OrderCreateHandler, ours),
        (r"/api/payment/order/query-by-id", OrderHandler, ours),
        (r"/api/payment/order/query", OrdersHandler, ours),
        (r"/api/payment/order/qrcode", QrCodeHandler, ours),
        (r"/api/payment/notify", InternalNotifyHandler, ours),
        *(
            (f"/api/payment/notify/{path}", GatewayNotifyHandler, ours | {"channel": channel})
            for path, channel in PATHS.items()
        ),
        (r"/api/payment/refund", RefundHandler, ours),
        (r"/api/payment/cases", CasesHandler, ours),
        (r"/api/payment/entitlements", EntitlementsHandler, ours),
        (r"/api/payment/products", ProductsHandler, ours),
        (r"/api/payment/promo-codes", PromoCodesHandler, ours),
        (r"/api/payment/sandbox", CashierHandler, ours),
        (r"/healthz", AliveHandler, ours),
        (r"/readyz", ReadyHandler, ours),
        (r"/metrics", MetricsHandler, ours),
        (
            r"/(index\.html|cashier\.(?:html|js)|(?:app|view|mission|connection)\.js|style\.css|icon\.svg|)",
            PageHandler,
            page,
        ),
    ]


def make_app(services: Services, connections: Connections) -> tornado.web.Application:
    """The Tornado application over the services of one process."""
    context = Context(services, Validators(), connections)
    return tornado.web.Application(
        routes(context),
        default_handler_class=UnknownEndpoint,
        default_handler_args={"context": context},
        websocket_max_message_size=services.settings.max_body,
        websocket_ping_interval=services.settings.ping_interval,
        websocket_ping_timeout=0,  # the handler knows better when a client is gone
        log_function=log_request,
    )


def log_request(handler: tornado.web.RequestHandler) -> None:
    """One line a request, without its query: a ticket may stand in it."""
    _access.info(
        "request",
        method=handler.request.method,
        path=handler.request.path,
        status=handler.get_status(),
        ms=round(1000 * handler.request.request_time(), 1),
    )
