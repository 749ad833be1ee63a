"""Amounts as people read them: a time, a duration, a size, a share."""

from __future__ import annotations

from datetime import datetime
from typing import Final

#: Before March 1973 there was no wsproxy: in a shared copy times count from its first turn.
EARLIEST: Final = 1e8


def counted(count: int, what: str) -> str:
    """`1 turn`, `2 turns`."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def when(at: float) -> str:
    """A wall clock time, in the local zone; `-` where a shared copy has lost its date."""
    return "-" if at < EARLIEST else f"{datetime.fromtimestamp(at):%Y-%m-%d %H:%M:%S}"


def duration(seconds: float | None) -> str:
    """Three digits and a unit."""
    if seconds is None:
        return "-"
    if seconds < 0.9995:
        ms = seconds * 1000
        return f"{ms:.1f} ms" if ms < 99.95 else f"{ms:.0f} ms"
    if seconds < 119.5:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} m {rest:02d} s"


def percent(share: float | None) -> str:
    """A share of one; `-` of nothing."""
    return "-" if share is None else f"{share * 100:.0f} %"
