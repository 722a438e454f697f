"""One pipe for all log lines, ours and the libraries'."""

from __future__ import annotations

import io
import json
import logging
from datetime import UTC, datetime
from typing import NoReturn

import pytest
import structlog

from vision import logs


@pytest.fixture
def lines():
    """Sets the form up and gives the lines that come out; puts the logging of pytest back."""
    root = logging.getLogger()
    before = (root.handlers, root.level)
    stream = io.StringIO()

    def said_in(log_format: str) -> list[str]:
        logs.set_up(log_format, stream)
        structlog.stdlib.get_logger("vision.test").info("ours", number=3)
        logging.getLogger("tornado.access").warning("404 %s", "/x")
        logging.getLogger("tornado.access").debug("not this")
        return stream.getvalue().splitlines()

    yield said_in
    root.handlers, _ = before
    root.setLevel(before[1])
    structlog.reset_defaults()


def test_json_is_one_object_a_line_with_the_time_in_utc(lines):
    ours, theirs = map(json.loads, lines("json"))
    assert (ours["event"], ours["number"], ours["logger"]) == ("ours", 3, "vision.test")
    assert (theirs["event"], theirs["level"]) == ("404 /x", "warning")
    for line in (ours, theirs):
        assert datetime.fromisoformat(line["timestamp"]).tzinfo == UTC


def test_text_off_a_terminal_has_no_colours(lines):
    ours, theirs = lines("text")
    assert "ours" in ours
    assert "number=3" in ours
    assert "404 /x" in theirs
    assert "\x1b" not in ours + theirs


def fail(secret: str) -> NoReturn:
    raise RuntimeError(len(secret))


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_logged_error_has_its_traceback_and_no_local_variables(log_format, lines):
    lines(log_format)
    stream = logging.getLogger().handlers[0].stream
    try:
        fail("hush" + "-hush")
    except RuntimeError:
        structlog.stdlib.get_logger("vision.test").exception("failed")
    assert "RuntimeError: 9" in stream.getvalue()
    assert "hush-hush" not in stream.getvalue()
