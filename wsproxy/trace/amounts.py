"""Amounts as people read them: a time, a duration, a size, a share."""

from __future__ import annotations

from datetime import datetime


def counted(count: int, what: str) -> str:
    """`1 turn`, `2 turns`."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def when(at: float) -> str:
    """A wall clock time, in the local zone."""
    return f"{datetime.fromtimestamp(at):%Y-%m-%d %H:%M:%S}"


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


def size(count: int) -> str:
    """Bytes in the largest unit that keeps them above 1."""
    if count < 1000:
        return f"{count} B"
    if count < 1_000_000:
        return f"{count / 1000:.1f} kB"
    return f"{count / 1_000_000:.1f} MB"


def percent(share: float | None) -> str:
    """A share of one; `-` of nothing."""
    return "-" if share is None else f"{share * 100:.0f} %"
