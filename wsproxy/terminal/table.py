"""Tables that fit a line without cutting what somebody may want to copy.

Rules of this file
------------------
1. An id, a number or a time is never cut. Where a line is short, whole columns are left out: those
   of the highest rank first, those of rank 0 never.
2. Free text alone may be cut, and not below its column's `least`.
3. What does not fit even then goes on in the next line.
4. Nothing is left out where nobody looks: a pipe has no width.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TextIO, TypeVar

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from wsproxy.logs import clean

T = TypeVar("T")

#: Characters of a line in a pipe: more than any row has.
PIPED_WIDTH: Final = 1_000_000


def console(stream: TextIO | None = None) -> Console:
    """Where to draw: as wide as the terminal, or endless and plain into a pipe."""
    out = stream or sys.stdout
    width = None if out.isatty() else PIPED_WIDTH
    return Console(file=out, width=width, markup=False, highlight=False, emoji=False)


@dataclass(frozen=True, slots=True)
class Column(Generic[T]):
    """One column. `name` stands for a title that is empty; `least`: free text, cut to so many."""

    title: str
    value: Callable[[T], str | Text]
    is_right: bool = True
    rank: int = 0
    least: int | None = None
    name: str = ""


@dataclass(frozen=True, slots=True)
class Look:
    """Characters between two columns, and whether a line is drawn below the titles."""

    gap: int = 2
    has_rule: bool = True


PLAIN: Final = Look()


@dataclass(frozen=True, slots=True)
class Table:
    """Lines to print, and the names of the columns that found no room."""

    lines: Sequence[Text]
    hidden: Sequence[str]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from self.lines


def table(columns: Sequence[Column[T]], rows: Sequence[T], width: int, look: Look = PLAIN) -> Table:
    """Draw rows below the titles of those columns that fit into `width` characters."""
    drawn = [_Drawn.of(column, rows) for column in columns]
    shown = _shown(drawn, width, look.gap)
    hidden = [one.column.title or one.column.name for one in drawn if one not in shown]
    lines = list(_lines(shown, _widths(shown, width, look.gap), look.gap))
    if look.has_rule:
        lines.insert(1, Text("─" * min(width, max(line.cell_len for line in lines))))
    return Table(lines, hidden)


def wider(hidden: Collection[str]) -> Iterator[Text]:
    """The line below tables of which columns were left out; none if none were."""
    if hidden:
        names = ", ".join(dict.fromkeys(hidden))
        yield Text(f"a wider terminal shows also: {names}", style="dim")


def said(value: object) -> Text:
    """Text that cannot move the cursor, whoever wrote it."""
    return Text(str(clean(str(value))))


@dataclass(frozen=True, slots=True, eq=False)
class _Drawn(Generic[T]):
    """A column's cells: what they take whole, and the least that must be left to them."""

    column: Column[T]
    cells: Sequence[Text]
    wanted: int
    least: int

    @classmethod
    def of(cls, column: Column[T], rows: Sequence[T]) -> _Drawn[T]:
        values = [column.value(row) for row in rows]
        cells = [value if isinstance(value, Text) else said(value) for value in values]
        wanted = max(cell_len(column.title), *(cell.cell_len for cell in cells), 0)
        least = wanted if column.least is None else min(wanted, column.least)
        return cls(column, cells, wanted, max(least, cell_len(column.title)))


def _shown(drawn: Sequence[_Drawn[T]], width: int, gap: int) -> list[_Drawn[T]]:
    shown = list(drawn)
    while _least(shown, gap) > width:
        last = max(shown, key=lambda one: one.column.rank)
        if last.column.rank == 0:
            break
        shown.remove(last)
    return shown


def _least(shown: Sequence[_Drawn[T]], gap: int) -> int:
    return sum(one.least for one in shown) + gap * (len(shown) - 1)


def _widths(shown: Sequence[_Drawn[T]], width: int, gap: int) -> list[int]:
    """What is left of the line goes to free texts."""
    left = max(0, width - _least(shown, gap))
    widths = []
    for one in shown:
        more = min(left, one.wanted - one.least)
        widths.append(one.least + more)
        left -= more
    return widths


def _lines(shown: Sequence[_Drawn[T]], widths: Sequence[int], gap: int) -> Iterator[Text]:
    titles = [Text(one.column.title, style="bold") for one in shown]
    yield _line(shown, titles, widths, gap)
    for cells in zip(*(one.cells for one in shown), strict=True):
        yield _line(shown, cells, widths, gap)


def _line(
    shown: Sequence[_Drawn[T]], cells: Sequence[Text], widths: Sequence[int], gap: int
) -> Text:
    line = Text()
    for number, (one, cell, width) in enumerate(zip(shown, cells, widths, strict=True)):
        text = cell.copy()
        text.truncate(width, overflow="ellipsis")  # of free text only: others have their width
        padding = " " * (width - text.cell_len)
        line.append(" " * gap if number else "")
        line.append(padding if one.column.is_right else "")
        line.append_text(text)
        line.append("" if one.column.is_right else padding)
    line.rstrip()
    return line
