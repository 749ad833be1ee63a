"""Log lines: dotted facts in the past tense (`turn.sent`) with fields from one closed list.

JSON lines on stderr, or text for people; safe to paste in public. Four rules make them so:

1. A field that is not in FIELDS is left out and named under `left_out`.
2. Bytes and objects are never written; text is cut, and its control characters are escaped.
3. An exception is its type and the line that raised it, never its message.
4. What libraries log is its constant part only: their arguments hold bytes of requests.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, TextIO

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

FIELDS: Final = frozenset(
    {
        # Who: ids that are ours, digests of what is not
        *("turn", "connection", "lane", "session", "key", "conversation", "pid", "trace"),
        # What was decided, and why
        *("phase", "fault", "verdict", "route", "reason", "outcome", "state", "transport"),
        # What the wire said
        *("status", "code", "close_code", "event_type", "header", "fields", "item", "item_type"),
        # How much and how long
        *("bytes", "bytes_saved", "events", "items", "turns", "connections", "lanes", "count"),
        *("limit", "waited_s", "took_s", "age_s", "timeout_s", "retry_after_s", "in_flight"),
        # Where
        *("address", "base_url", "upstream", "proxy", "path", "method", "setting", "source"),
        # What broke
        *("error", "at", "detail", "library", "message", "signal", "exit_code", "version"),
    }
)
OWN_FIELDS: Final = frozenset({"event", "level", "time", "suppressed", "left_out"})

TEXT_MAX: Final = 300  # characters of one value; ids and codes are shorter, details may not be
CAP_PER_S: Final = 200  # lines of one event name in a second; past that every SAMPLE-th
SAMPLE: Final = 100

#: C0, C1, bidirectional and invisible characters: they move the cursor or reorder a line.
CONTROLS: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]"
)


class FieldError(Exception):
    """A log call used a field outside FIELDS or a value that is never written (strict mode)."""


def configure(
    level: str = "info",
    form: str = "auto",
    *,
    stream: TextIO | None = None,
    clock: Callable[[], float] = time.monotonic,
    is_strict: bool = False,
) -> None:
    """Set up the log of this process, libraries included; may be called again.

    `level` and `form` are the settings `log_level` and `log_format`. `is_strict` raises
    FieldError where a line would lose a field: for tests.
    """
    out = stream or sys.stderr
    is_text = form == "text" or (form == "auto" and out.isatty())
    threshold = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[
            RateCap(clock),
            _name_exception,
            AllowedFields(is_strict),
            structlog.processors.add_log_level,
            *(_text_form(out) if is_text else JSON_FORM),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=lambda *_: Lines(out),
        cache_logger_on_first_use=False,
    )
    _route_libraries(threshold)


def get_logger() -> FilteringBoundLogger:
    """The log: `get_logger().info("turn.sent", turn=…, bytes=…)`."""
    logger: FilteringBoundLogger = structlog.get_logger()
    return logger


class Lines:
    """Writes finished lines. A log that nobody can read any more stops nobody's turn."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def msg(self, line: str) -> None:
        try:
            self._stream.write(f"{line}\n")
            self._stream.flush()
        except (OSError, ValueError):
            pass

    debug = info = warning = warn = error = critical = exception = msg


class RateCap:
    """At most CAP_PER_S lines of one event name in a second, then a sample of them.

    The first line after a second that was cut says how many were `suppressed`.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._seen: dict[str, tuple[float, int, int]] = {}  # second it began, lines, suppressed

    def __call__(self, _: WrappedLogger, __: str, event: EventDict) -> EventDict:
        name = str(event["event"])
        now = self._clock()
        since, lines, suppressed = self._seen.get(name, (now, 0, 0))
        if now - since >= 1.0:
            since, lines = now, 0
        is_written = lines < CAP_PER_S or lines % SAMPLE == 0
        self._seen[name] = (since, lines + 1, 0 if is_written else suppressed + 1)
        if not is_written:
            raise structlog.DropEvent
        if suppressed:
            event["suppressed"] = suppressed
        return event


class AllowedFields:
    """Lets known fields with plain values pass and names the others under `left_out`."""

    def __init__(self, is_strict: bool) -> None:
        self._is_strict = is_strict

    def __call__(self, _: WrappedLogger, __: str, event: EventDict) -> EventDict:
        kept = {name: clean(value) for name, value in event.items() if _is_allowed(name, value)}
        if len(kept) == len(event):
            return kept
        left_out = [clean(str(name)) for name in event if name not in kept]
        if self._is_strict:
            raise FieldError(f"log line {event['event']!a} may not carry {', '.join(left_out)}")
        return {**kept, "left_out": left_out}


def clean(value: Any) -> Any:
    """A value as it may be written: text without control characters and not endless."""
    if isinstance(value, str):
        text = value if len(value) <= TEXT_MAX else f"{value[: TEXT_MAX - 1]}…"
        return CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
    if isinstance(value, list | tuple | set | frozenset):
        return [clean(item) for item in value]
    return value


def _is_allowed(name: str, value: Any) -> bool:
    if name not in FIELDS and name not in OWN_FIELDS:
        return False
    if isinstance(value, list | tuple | set | frozenset):
        return all(isinstance(item, str | int | float | bool | None) for item in value)
    return isinstance(value, str | int | float | bool | None)


def _name_exception(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    found = event.pop("exc_info", None)
    error = sys.exc_info()[1] if found is True else found
    if isinstance(error, tuple):
        error = error[1]
    if isinstance(error, BaseException):
        event.setdefault("error", type(error).__name__)
        event.setdefault("at", _raised_at(error.__traceback__))
    return event


def _raised_at(traceback: TracebackType | None) -> str | None:
    """`file.py:LINE` of the innermost frame."""
    if traceback is None:
        return None
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    return f"{Path(traceback.tb_frame.f_code.co_filename).name}:{traceback.tb_lineno}"


def _in_reading_order(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    first = {name: event.pop(name) for name in ("time", "level", "event")}
    return {**first, **event}


JSON_FORM: Final[tuple[Processor, ...]] = (
    structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
    _in_reading_order,
    structlog.processors.JSONRenderer(ensure_ascii=True),
)


def has_colours(stream: TextIO, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether what is written there may be coloured: a terminal that can, and a user who lets us.

    NO_COLOR: any value but an empty one (no-color.org). TERM=dumb: no escape sequences at all.
    """
    is_wanted = not environment.get("NO_COLOR") and environment.get("TERM") != "dumb"
    return is_wanted and stream.isatty()


def _text_form(stream: TextIO) -> tuple[Processor, ...]:
    return (
        structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False, key="time"),
        structlog.dev.ConsoleRenderer(
            colors=has_colours(stream) and sys.platform != "win32",
            timestamp_key="time",
            pad_event_to=24,
            sort_keys=False,
        ),
    )


class LibraryHandler(logging.Handler):
    """Turns a library's log record into a line of ours, without its arguments."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            error = record.exc_info[1] if record.exc_info else None
            get_logger().log(
                record.levelno,
                "library.reported",
                library=record.name,
                message=str(record.msg).partition("\n")[0],
                exc_info=error,
            )
        except Exception:  # logging must not raise into a library; it prints where it failed
            self.handleError(record)


def _route_libraries(threshold: int) -> None:
    """Everything that is logged through `logging` comes to LibraryHandler, warnings and worse."""
    root = logging.getLogger()
    for handler in [one for one in root.handlers if isinstance(one, LibraryHandler)]:
        root.removeHandler(handler)
    root.addHandler(LibraryHandler())
    root.setLevel(max(threshold, logging.WARNING))
    logging.raiseExceptions = False  # its report would hold the record's arguments
