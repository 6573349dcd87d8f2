"""Checks that each event is one JSON line on stderr, whether it comes from us or from a library."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from service import logs


@pytest.fixture(autouse=True)
def logging_left_as_found() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_an_event_is_one_json_line(capsys: pytest.CaptureFixture[str]) -> None:
    """The line has the event's name, its facts, a level, a UTC time and the component."""
    logs.setup("reel")
    structlog.get_logger().warning("tape_torn", at=7, note="two\nlines")
    (line,) = lines(capsys)
    assert line["event"] == "tape_torn"
    assert (line["at"], line["note"], line["level"], line["component"]) == (7, "two\nlines", "warning", "reel")
    assert str(line["timestamp"]).endswith("Z")


def test_libraries_log_in_the_same_form(capsys: pytest.CaptureFixture[str]) -> None:
    """A line of the standard library's logging is JSON as well, with its traceback inside the line."""
    logs.setup("reel")
    try:
        raise ValueError("torn")
    except ValueError:
        logging.getLogger("some.library").exception("failed on %s", "tape")
    (line,) = lines(capsys)
    assert line["event"] == "failed on tape"
    assert "ValueError: torn" in str(line["exception"])


def test_levels_below_the_chosen_one_are_silent(capsys: pytest.CaptureFixture[str]) -> None:
    """LOG_LEVEL=warning hides information."""
    logs.setup("reel", level="warning")
    structlog.get_logger().info("turning")
    logging.getLogger("some.library").info("turning")
    assert lines(capsys) == []


def test_console_form_is_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    """LOG_FORMAT=console prints the event and its facts without JSON."""
    logs.setup("reel", form="console")
    structlog.get_logger().info("turning", speed=2)
    printed = capsys.readouterr().err
    assert "turning" in printed
    assert "speed=2" in printed
    assert not printed.startswith("{")
