"""Numbers as people read them."""

from __future__ import annotations

from typing import Final

from wsproxy.terminal.amounts import size as size

_MINUTE: Final = 60.0
_HOUR: Final = 3600.0


def age(seconds: float) -> str:
    """`0 s`, `0.3 s`, `12 s`, `4m10s`, `3h05m`."""
    if 0 < seconds < 1:
        return f"{max(seconds, 0.1):.1f} s"
    if seconds < _MINUTE:
        return f"{seconds:.0f} s"
    if seconds < _HOUR:
        return f"{int(seconds // _MINUTE)}m{int(seconds % _MINUTE):02d}s"
    return f"{int(seconds // _HOUR)}h{int(seconds % _HOUR // _MINUTE):02d}m"


def count(number: int) -> str:
    """`1,234`."""
    return f"{number:,}"


def counted(number: int, noun: str) -> str:
    """`1 turn`, `1,234 turns`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def times(more: float, less: float) -> str:
    """` (17.0 × fewer)`, or nothing where that says nothing."""
    return f" ({more / less:.1f} × fewer)" if less > 0 and more > less else ""
