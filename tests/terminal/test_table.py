"""Tables in lines that are too short: whole columns go, never a piece of an id or a number."""

from __future__ import annotations

from collections.abc import Sequence
from io import StringIO
from typing import Final

import pytest
from rich.console import Console, RenderableType

from wsproxy.terminal.amounts import size
from wsproxy.terminal.table import PIPED_WIDTH, Column, console, said, table, wider

ID, COUNT, TOOK, REASON = "t4c9bdb82a1f", "1234", "13.9 ms", "history_edited_by_somebody"
COLUMNS: Final[Sequence[Column[None]]] = (
    Column("id", lambda _: ID, is_right=False),
    Column("count", lambda _: COUNT, rank=2),
    Column("took", lambda _: TOOK, rank=1),
    Column("reason", lambda _: REASON, is_right=False, least=8),
)


def printed(shown: RenderableType, width: int) -> str:
    out = Console(file=StringIO(), width=width)
    out.print(shown)
    assert isinstance(out.file, StringIO)
    return out.file.getvalue()


@pytest.mark.parametrize(
    ("width", "hidden"),
    [
        (PIPED_WIDTH, []),
        (56, []),
        (38, []),
        (37, ["count"]),
        (31, ["count"]),
        (30, ["count", "took"]),
        (9, ["count", "took"]),
    ],
)
def test_columns_go_by_their_rank_and_the_others_stay_whole(
    width: int, hidden: Sequence[str]
) -> None:
    drawn = table(COLUMNS, [None], width)
    text = str(drawn.lines[-1])
    assert drawn.hidden == hidden
    assert [name in str(drawn.lines[0]) for name in ("count", "took")] == [
        name not in hidden for name in ("count", "took")
    ]
    assert ID in text
    assert (COUNT in text, TOOK in text) == ("count" not in hidden, "took" not in hidden)
    assert len(text) <= max(width, len(ID) + 2 + 8)


@pytest.mark.parametrize(
    ("width", "reason"), [(56, REASON), (55, f"{REASON[:-2]}…"), (38, "history…"), (9, "history…")]
)
def test_free_text_alone_is_cut_and_keeps_its_least(width: int, reason: str) -> None:
    line = str(table(COLUMNS, [None], width).lines[-1])
    assert line.endswith(f" {reason}")
    assert line.count("…") == (reason != REASON)


def test_what_does_not_fit_at_all_goes_on_in_the_next_line() -> None:
    shown = printed(table(COLUMNS, [None], 16), 16)
    assert ID in shown
    assert "history…" in shown
    assert max(map(len, shown.splitlines())) <= 16


def test_a_line_below_names_what_a_wider_terminal_shows() -> None:
    assert [str(line) for line in wider(["count", "took", "count"])] == [
        "a wider terminal shows also: count, took"
    ]
    assert list(wider([])) == []


def test_a_pipe_has_no_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    assert console(StringIO()).width == PIPED_WIDTH


def test_what_a_cell_says_cannot_move_the_cursor() -> None:
    hostile: Sequence[Column[str]] = (Column("a", lambda row: row), Column("b", said))
    assert "\x1b" not in printed(table(hostile, ["\x1b[2J\x9b"], 80), 80)


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 KB"), (54_012, "54 KB"), (1_030_000, "1.03 MB")],
)
def test_sizes_have_one_unit_everywhere(count: int, text: str) -> None:
    assert size(count) == text
