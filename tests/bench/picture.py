"""Bars of what an event costs, as SVG."""

from __future__ import annotations

from html import escape
from typing import Final

from tests.bench.figures import Figure, short
from tests.bench.ledger import Tables

_BAR: Final = 22  # px
_LEFT: Final = 190
_WIDTH: Final = 420


def picture(tables: Tables) -> str:
    """CPU an event of each relay, the extent of its rounds as a thin line."""
    table = tables["relay"]
    figures = {name: Figure(tuple(row["cpu_us"])) for name, row in table.items()}
    del figures["direct"]
    scale = _WIDTH / max(max(figure.rounds) for figure in figures.values())
    height = 40 + (_BAR + 10) * len(figures)
    rows = [_row(at, name, figure, scale) for at, (name, figure) in enumerate(figures.items())]
    title = "CPU an event, µs: 20,000 events/s in 20 streams (lanes: 16)"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_LEFT + _WIDTH + 90}" height="{height}" '
        f'font-family="sans-serif" font-size="13">\n'
        f'<rect width="100%" height="100%" fill="#fff"/>\n'
        f'<text x="10" y="22" font-weight="bold">{title}</text>\n{"".join(rows)}</svg>\n'
    )


def _row(at: int, name: str, figure: Figure, scale: float) -> str:
    y = 36 + (_BAR + 10) * at
    colour = "#2563eb" if name.startswith("wsproxy") else "#9ca3af"
    low, high = min(figure.rounds) * scale, max(figure.rounds) * scale
    middle = y + _BAR / 2
    return (
        f'<text x="10" y="{y + 16}">{escape(name)}</text>\n'
        f'<rect x="{_LEFT}" y="{y}" width="{figure.middle * scale:.1f}" height="{_BAR}" '
        f'fill="{colour}"/>\n'
        f'<path d="M{_LEFT + low:.1f} {middle}H{_LEFT + high:.1f}" stroke="#111"/>\n'
        f'<text x="{_LEFT + high + 8:.1f}" y="{y + 16}">{short(figure.middle)}</text>\n'
    )
