"""Where every log line goes, and what it looks like.

The law: one pipe for all. Our own lines (structlog) and those of libraries (`logging`: Tornado, the
Redis client) come out on stderr in the same form: one JSON object a line with the time in UTC, or a
line for people, in colour only on a terminal. Ours do not go through `logging`, which takes three
times as long: there is one for each request.
"""

from __future__ import annotations

import logging
from typing import Any, TextIO

import msgspec
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
        processors=[*_COMMON, *_RENDERERS[log_format](stream)],
        logger_factory=lambda name: _Line(name, stream),
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        # Tests set up anew for each case; a cached logger would keep the old pipe.
        cache_logger_on_first_use=False,
    )


class _Line:
    """What writes our rendered lines; `name` is that of the logger."""

    def __init__(self, name: str, stream: TextIO) -> None:
        self.name = name
        self._stream = stream

    def _write(self, line: str) -> None:
        self._stream.write(line + "\n")
        self._stream.flush()

    debug = info = warning = error = critical = exception = _write


def _text(stream: TextIO) -> list[Processor]:
    # Not its own choice of traceback: where rich is installed that shows local variables, keys too.
    plain = structlog.dev.plain_traceback
    return [structlog.dev.ConsoleRenderer(colors=stream.isatty(), exception_formatter=plain)]


def _json(_: TextIO) -> list[Processor]:
    return [
        structlog.processors.format_exc_info,
        structlog.processors.JSONRenderer(serializer=_encode),
    ]


def _encode(event: dict[str, Any], **_: Any) -> str:
    return msgspec.json.encode(event, enc_hook=repr).decode()


_RENDERERS = {"text": _text, "json": _json}
