"""The log: what may be in a line, in which form, and how many lines there may be."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable
from typing import Any

import pytest

from tests.canary import SECRET
from wsproxy import logs

CANARY = SECRET
#: What a library is made to say here: pytest shows it as it is, so it is not the canary.
HEARD = "sk-heard-4711"
LogLines = Callable[[], list[dict[str, Any]]]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def _strict_again(log_lines: LogLines) -> None:
    """Whatever a test sets up here, `log_lines` leaves the strict log behind."""


@pytest.fixture
def lenient() -> io.StringIO:
    """The log as it is in production."""
    stream = io.StringIO()
    logs.configure("info", "json", stream=stream)
    return stream


def test_a_line_is_json_that_begins_with_time_level_and_event(log_lines: LogLines) -> None:
    logs.get_logger().info("turn.sent", turn="t0", bytes=12)
    (line,) = log_lines()
    assert list(line) == ["time", "level", "event", "turn", "bytes"]
    assert line["event"] == "turn.sent"


def test_lines_below_the_level_are_not_written(lenient: io.StringIO) -> None:
    logs.get_logger().debug("turn.sent")
    assert lenient.getvalue() == ""


@pytest.mark.parametrize(
    "fields",
    [
        {"authorization": CANARY},
        {"detail": CANARY.encode()},
        {"detail": {"key": CANARY}},
        {"items": [CANARY.encode()]},
        {"error": ValueError(CANARY)},
    ],
    ids=["unknown field", "bytes", "mapping", "bytes in a list", "exception"],
)
def test_what_may_not_be_logged_is_named_and_left_out(
    lenient: io.StringIO, fields: dict[str, Any]
) -> None:
    logs.get_logger().info("turn.sent", turn="t0", **fields)
    line = json.loads(lenient.getvalue())
    assert line["left_out"] == list(fields)
    assert line["turn"] == "t0"
    assert CANARY not in lenient.getvalue()


def test_the_strict_log_of_the_tests_raises_instead() -> None:
    with pytest.raises(logs.FieldError, match="authorization"):
        logs.get_logger().info("turn.sent", authorization=CANARY)


def test_an_exception_is_its_type_and_place_without_its_message(lenient: io.StringIO) -> None:
    try:
        raise LookupError(CANARY)
    except LookupError:
        logs.get_logger().exception("turn.broke")
    line = json.loads(lenient.getvalue())
    assert line["error"] == "LookupError"
    assert line["at"].startswith("test_logs.py:")
    assert CANARY not in lenient.getvalue()


@pytest.mark.parametrize("library", ["aiohttp.server", "aiohttp.client", "asyncio"])
def test_a_library_is_heard_without_the_bytes_it_was_sent(
    lenient: io.StringIO, library: str
) -> None:
    error = ValueError(f"bad header {HEARD}")
    logging.getLogger(library).error("Error from %s\n%s", HEARD, b"x", exc_info=error)
    line = json.loads(lenient.getvalue())
    assert (line["event"], line["library"]) == ("library.reported", library)
    assert (line["message"], line["error"]) == ("Error from %s", "ValueError")
    assert HEARD not in lenient.getvalue()


def test_configuring_twice_does_not_write_twice(lenient: io.StringIO) -> None:
    logs.configure("info", "json", stream=lenient)
    logging.getLogger("aiohttp.server").warning("once")
    assert len(lenient.getvalue().splitlines()) == 1


@pytest.mark.parametrize("form", ["json", "text"])
@pytest.mark.parametrize(
    "evil",
    ["\x1b[2J", "\r\nforged", "\x9b31m", "\u202egnp", "\u2066x", "\x00", "\x7f", "\ud800"],
    ids=ascii,
)
def test_nothing_moves_the_cursor_or_turns_the_line(form: str, evil: str) -> None:
    stream = io.StringIO()
    logs.configure("info", form, stream=stream)
    logs.get_logger().info("turn.refused", detail=f"a{evil}b")
    line = stream.getvalue()
    assert line.count("\n") == 1
    assert logs.CONTROLS.search(line.rstrip("\n")) is None
    assert "\\u" in line


def test_a_long_text_is_cut(log_lines: LogLines) -> None:
    logs.get_logger().info("turn.refused", detail="x" * 10_000)
    assert len(log_lines()[0]["detail"]) == logs.TEXT_MAX


def test_a_terminal_gets_text_and_a_file_gets_json() -> None:
    for stream, is_json in ((Terminal(), False), (io.StringIO(), True)):
        logs.configure("info", "auto", stream=stream)
        logs.get_logger().info("turn.sent", turn="t0")
        assert stream.getvalue().startswith("{") is is_json


@pytest.mark.parametrize(
    ("stream", "environment", "expected"),
    [
        (Terminal(), {"TERM": "xterm"}, True),
        (Terminal(), {"NO_COLOR": ""}, True),
        (Terminal(), {"NO_COLOR": "1"}, False),
        (Terminal(), {"TERM": "dumb"}, False),
        (io.StringIO(), {}, False),
    ],
    ids=["a terminal", "empty NO_COLOR", "NO_COLOR", "dumb", "a file"],
)
def test_colours_are_for_terminals_whose_user_does_not_forbid_them(
    stream: io.StringIO,
    environment: dict[str, str],
    expected: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert logs.has_colours(stream, environment) is expected
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    logs.configure("info", "text", stream=stream)
    logs.get_logger().info("turn.sent", turn="t0")
    assert ("\x1b[" in stream.getvalue()) is expected


def test_past_200_lines_a_second_a_name_is_sampled_and_others_are_not() -> None:
    stream, clock = io.StringIO(), Clock()
    logs.configure("info", "json", stream=stream, clock=clock)
    log = logs.get_logger()
    for _ in range(1000):
        log.info("turn.sent")
    log.info("turn.ended")
    clock.now = 1.0
    log.info("turn.sent")
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    sent = [line for line in lines if line["event"] == "turn.sent"]
    assert len(sent) == 200 + 8 + 1
    assert sum(line.get("suppressed", 0) for line in sent) == 1000 - 208
    assert lines[-2]["event"] == "turn.ended"


def test_a_log_that_nobody_reads_any_more_stops_nobody() -> None:
    stream = io.StringIO()
    logs.configure("info", "json", stream=stream)
    stream.close()
    logs.get_logger().info("turn.sent")
