"""Where every log line goes, and what it looks like.

The law: one pipe for all. Our own lines (structlog) and those of libraries (`logging`: Tornado's
access log, the Redis client) come out on stderr in the same form: one JSON object a line with the
time in UTC, or a line for people, in colour only on a terminal.
"""

from __future__ import annotations

import logging
from typing import TextIO

import structlog
from structlog.typing import Processor

# httpx2 and its core log each request a second time, one line per step.
CHATTY = ("httpx2", "httpcore2", "openai", "alembic")

_COMMON: tuple[Processor, ...] = (
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.StackInfoRenderer(),
)


def set_up(log_format: str, stream: TextIO) -> None:
    """Send all logging of this process to `stream`, as `text` or `json`. Called once, at start."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_RENDERERS[log_format](stream),
            ],
            foreign_pre_chain=[*_COMMON, structlog.stdlib.ExtraAdder()],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.INFO)
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_COMMON,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        # Tests set up anew for each case; a cached logger would keep the old pipe.
        cache_logger_on_first_use=False,
    )


def _text(stream: TextIO) -> list[Processor]:
    # Not its own choice of traceback: where rich is installed that shows local variables, keys too.
    plain = structlog.dev.plain_traceback
    return [structlog.dev.ConsoleRenderer(colors=stream.isatty(), exception_formatter=plain)]


def _json(_: TextIO) -> list[Processor]:
    return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]


_RENDERERS = {"text": _text, "json": _json}
