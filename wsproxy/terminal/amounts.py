"""Amounts of bytes, in one unit wherever wsproxy names them."""

from __future__ import annotations

from typing import Final

_UNITS: Final = ("B", "KB", "MB", "GB", "TB")


def size(count_bytes: float) -> str:
    """`812 B`, `61.2 KB`, `1.03 MB`: decimal, three digits."""
    value = float(count_bytes)
    unit = _UNITS[0]
    for unit in _UNITS:
        if value < 999.5 or unit == _UNITS[-1]:
            break
        value /= 1000
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.3g} {unit}"
