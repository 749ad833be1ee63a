"""docs/traces.md says in which order columns are left out: as the code does it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from wsproxy.console import screen
from wsproxy.terminal.table import Column
from wsproxy.trace import lists, waterfall

PAGE: Final = Path(__file__).parents[2] / "docs" / "traces.md"


@pytest.mark.parametrize(
    ("row", "columns"),
    [
        ("`list`", lists._LIST),
        ("`show`", waterfall._waterfall_columns(0.0, 1.0, 14, 12)),
        ("`stats`", [Column("day", str), Column("session", str), *lists._STATISTICS]),
        ("`pools`, `top`: sessions", screen._SESSIONS),
        ("connections", screen._CONNECTIONS),
        ("keys", screen._KEYS),
    ],
)
def test_columns_are_left_out_in_the_order_that_the_page_says(
    row: str, columns: Sequence[Column[Any]]
) -> None:
    dropped = sorted((one for one in columns if one.rank), key=lambda one: -one.rank)
    kept = [one for one in columns if not one.rank]
    lists = [", ".join(one.title or one.name for one in each) for each in (dropped, kept)]
    assert f"| {row} | {lists[0]} | {lists[1]} |" in PAGE.read_text(encoding="utf-8")
    assert len({one.rank for one in dropped}) == len(dropped)
