"""Sessions, sums and replays as tables. Nothing from the journal reaches a terminal unescaped."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from typing import Final

from rich.console import Group, RenderableType
from rich.text import Text

from wsproxy.terminal.amounts import size
from wsproxy.terminal.table import Column, Table, said, table, wider
from wsproxy.trace.amounts import duration, percent, when
from wsproxy.trace.reader import Session
from wsproxy.trace.replay import Difference, Outcome
from wsproxy.trace.report import Figures, Row, figures


def session_list(sessions: Sequence[Session], width: int) -> RenderableType:
    """`trace list`."""
    drawn = table(_LIST, [(session, figures(session.turns)) for session in sessions], width)
    return Group(drawn, *wider(drawn.hidden))


_Summed = tuple[Session, Figures]
_LIST: Final[Sequence[Column[_Summed]]] = (
    Column("session", lambda row: row[0].id, is_right=False),
    Column("last turn", lambda row: when(row[0].turns[-1].at).rpartition(":")[0] or "-", False),
    Column("turns", lambda row: str(row[1].turns), rank=1),
    Column("delta", lambda row: str(row[1].deltas), rank=4),
    Column("full", lambda row: str(row[1].fulls), rank=7),
    Column("https", lambda row: str(row[1].over_https), rank=8),
    Column("failed", lambda row: _failures(row[1]), rank=2),
    Column("sent", lambda row: size(row[1].bytes_up), rank=6),
    Column("saved", lambda row: percent(row[1].saved_share), rank=3),
    Column("model", lambda row: row[0].turns[-1].model, is_right=False, rank=5, least=14),
)


def statistics(rows: Sequence[Row], what: str, width: int) -> RenderableType:
    """`trace stats` of given sessions."""
    drawn = _sums_of(rows, what, width)
    return Group(drawn, *wider(drawn.hidden))


def all_statistics(days: Sequence[Row], sessions: Sequence[Row], width: int) -> RenderableType:
    """`trace stats`: two tables of the same columns."""
    both = _sums_of(days, "day", width), _sums_of(sessions, "session", width)
    hidden = [name for each in both for name in each.hidden]
    upper = _sums_of(days, "day", width, without=hidden)
    lower = _sums_of(sessions, "session", width, without=hidden)
    return Group(upper, "", lower, *wider(hidden))


def _sums_of(rows: Sequence[Row], what: str, width: int, without: Collection[str] = ()) -> Table:
    name: Column[Row] = Column(what, lambda row: row.name, is_right=False)
    columns = [column for column in _STATISTICS if column.title not in without]
    return table((name, *columns), rows, width)


_STATISTICS: Final[Sequence[Column[Row]]] = (
    Column("turns", lambda row: str(row.figures.turns), rank=1),
    Column("delta", lambda row: str(row.figures.deltas), rank=4),
    Column("https", lambda row: str(row.figures.over_https), rank=10),
    Column("failed", lambda row: _failures(row.figures), rank=2),
    Column("HTTP bytes", lambda row: size(row.figures.bytes_http), rank=9),
    Column("sent", lambda row: size(row.figures.bytes_up), rank=5),
    Column("saved", lambda row: percent(row.figures.saved_share), rank=3),
    Column("upgrades", lambda row: str(row.figures.connections), rank=11),
    Column("spared", lambda row: str(row.figures.upgrades_saved), rank=12),
    Column("cached", lambda row: percent(row.figures.cached_share), rank=8),
    Column("first event p50", lambda row: duration(row.figures.first_event_p50_s), rank=6),
    Column("first event p99", lambda row: duration(row.figures.first_event_p99_s), rank=7),
)


def _failures(sums: Figures) -> Text:
    return Text(str(sums.failed), style="red" if sums.failed else "")


def replay_outcomes(outcomes: Sequence[Outcome], width: int) -> RenderableType:
    """`trace replay`: each run, and where one first differs both sides of it."""
    differences = [outcome.difference for outcome in outcomes if outcome.difference]
    return Group(
        table(_REPLAYS, outcomes, width),
        *(said(line) for one in differences for line in _difference(one)),
    )


_REPLAYS: Final[Sequence[Column[Outcome]]] = (
    Column("run", lambda row: row.run, is_right=False),
    Column("events", lambda row: str(row.events)),
    Column("commands", lambda row: str(row.commands)),
    Column("result", lambda row: _result(row), is_right=False),
)


def _result(outcome: Outcome) -> Text:
    if outcome.difference is not None:
        return Text(f"differs at event {outcome.difference.number}", style="red")
    return said(outcome.missing or "the same commands")


def _difference(found: Difference) -> Iterator[str]:
    yield f"event {found.number} ({found.event})"
    yield from (f"  recorded: {json.dumps(command)}" for command in found.recorded)
    yield from (f"  given:    {json.dumps(command)}" for command in found.given)
