"""A session as a waterfall of its turns, and a turn as a line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from rich.console import Group, RenderableType
from rich.text import Text

from wsproxy.core.multiplex.recovery import Fault
from wsproxy.logs import clean
from wsproxy.terminal.amounts import size
from wsproxy.terminal.table import Column, Table, said, table, wider
from wsproxy.trace.amounts import counted, duration, percent, when
from wsproxy.trace.reader import Session, Traces, connections_of
from wsproxy.trace.record import ConnectionRecord, TurnRecord
from wsproxy.trace.report import Figures, Span, figures, is_failed, spans

#: Characters of the waterfall.
BAR_WIDTH: Final = 32
NARROW_BAR_WIDTH: Final = 14
#: Characters of route and reason that come before columns of less use; most reasons fit.
ROUTE_LEAST: Final = 24
NARROW_ROUTE_LEAST: Final = 12
USUAL_WIDTH: Final = 80
QUEUED, WAITING, OUTPUT = "·", "░", "█"
_LEGEND: Final = f"{QUEUED} queued  {WAITING} waiting for upstream  {OUTPUT} answer; pauses cut out"
_FAULTS: Final = {fault.value: fault.what for fault in Fault}
_ROUTE_STYLES: Final = {"delta": "green", "fork": "green", "http": "yellow", "none": "red"}


def session_picture(traces: Traces, session: Session, width: int) -> RenderableType:
    """`trace show SESSION`: its turns as a waterfall, its connections, its sums."""
    connections = connections_of(traces, [session])
    turns = _waterfall(session, width)
    return Group(
        Text(f"session {clean(session.id)}  {when(session.began_at)}", style="bold"),
        Text(""),
        turns,
        *wider(turns.hidden),
        Text(f"\n{_LEGEND}", style="dim"),
        *(Text(_connection(record)) for record in connections),
        Text(""),
        *(Text(line) for line in _sums(figures(session.turns))),
    )


def _waterfall(session: Session, width: int) -> Table:
    places = spans(session.turns)
    end = max(place.end for place in places) or 1.0
    rows = list(zip(session.turns, places, strict=True))
    least = ROUTE_LEAST if width >= USUAL_WIDTH else NARROW_ROUTE_LEAST

    def drawn(bar: int) -> Table:
        return table(_waterfall_columns(session.began_at, end, bar, least), rows, width)

    whole = drawn(BAR_WIDTH)
    return drawn(NARROW_BAR_WIDTH) if whole.hidden else whole


def _waterfall_columns(
    began_at: float, end: float, bar: int, least: int
) -> Sequence[Column[_Placed]]:
    return (
        Column("turn", lambda row: row[0].turn, is_right=False),
        Column("after", lambda row: duration(row[0].at - began_at), rank=7),
        Column("conv", lambda row: str(row[0].conversation or "-"), rank=9),
        Column("lane", lambda row: _lane(row[0]), is_right=False, rank=4),
        Column("route", lambda row: _route(row[0]), is_right=False, least=least),
        Column("items", lambda row: f"{row[0].items_sent}/{row[0].items}", rank=3),
        Column("sent", lambda row: size(row[0].bytes_up), rank=5),
        Column("of", lambda row: size(row[0].bytes_http), rank=8),
        Column("first", lambda row: duration(row[0].phases.first_event), rank=6),
        Column("took", lambda row: duration(row[0].took_s), rank=1),
        Column(
            "",
            lambda row: _bar(row[0], row[1].start / end, row[1].end / end, bar),
            is_right=False,
            rank=2,
            name="bar",
        ),
    )


_Placed = tuple[TurnRecord, Span]


def _lane(turn: TurnRecord) -> str:
    if turn.connection is None:
        return "-"
    return f"{turn.connection}/{turn.lane}" if turn.lane else str(turn.connection)


def _route(turn: TurnRecord) -> Text:
    style = "red" if is_failed(turn) else _ROUTE_STYLES.get(turn.route, "")
    text = turn.route
    if is_failed(turn):  # before the reason, of which a short line shows the beginning
        text += f" ({turn.status or turn.outcome})"
    if turn.reason and not turn.is_continued:
        text += f" {turn.reason}"
    return Text(str(clean(text)), style=style)


def _bar(turn: TurnRecord, start: float, end: float, columns: int) -> Text:
    """Where in the session the turn ran, and what it did there; at least one character."""
    left = min(columns - 1, int(start * columns))
    width = max(1, round(end * columns) - left)
    placed = share(turn.phases.placed, turn.took_s, 0.0)
    first = share(turn.phases.first_event, turn.took_s, placed)
    queued, waiting = round(placed * width), round(first * width)
    bar = Text(" " * left)
    bar.append(QUEUED * queued, "dim")
    bar.append(WAITING * (waiting - queued), "cyan")
    return bar.append(OUTPUT * (width - waiting), "red" if is_failed(turn) else "green")


def share(at: float | None, of: float, otherwise: float) -> float:
    return otherwise if at is None or not of else min(1.0, max(0.0, at / of))


def fault_words(row: str) -> str:
    """`F32 DNS failure; …`; a journal of another version may have rows that we do not know."""
    what = _FAULTS.get(row)
    return f"{row} {what}" if what else row


def _connection(record: ConnectionRecord) -> str:
    words = [f"connection {record.connection} {record.change}"]
    if record.took_s is not None:
        how = "in" if record.change in ("opened", "refused") else "after"
        words[0] += f" {how} {duration(record.took_s)}"
    if record.is_compressed:
        words.append("compressed")
    if record.status is not None:
        words.append(f"status {record.status}")
    if record.fault:
        words.append(fault_words(record.fault))
    return str(clean(", ".join(words)))


def _sums(sums: Figures) -> Iterator[str]:
    yield (
        f"{counted(sums.turns, 'turn')}, {counted(sums.connections, 'connection')}: "
        f"{sums.deltas} sent as deltas, {sums.fulls} in full, {sums.over_https} over HTTPS; "
        f"{sums.failed} failed"
    )
    yield (
        f"{size(sums.bytes_up)} sent where HTTP would have sent {size(sums.bytes_http)} "
        f"({percent(sums.saved_share)} saved)"
    )
    if sums.cached_share is not None:
        yield (
            f"{counted(sums.tokens_in, 'input token')}, {percent(sums.cached_share)} of them "
            f"cached; {counted(sums.tokens_out, 'output token')}"
        )


def tail_line(turn: TurnRecord) -> Text:
    """`trace tail`: one line a turn."""
    line = Text(f"{when(turn.at).rpartition(' ')[2]} ")
    line.append_text(said(f"{turn.session} {turn.turn} {_lane(turn):>6} "))
    line.append_text(_route(turn))
    line.append(
        f"  {turn.items_sent}/{turn.items} items, {size(turn.bytes_up)} of "
        f"{size(turn.bytes_http)}, first {duration(turn.phases.first_event)}, "
        f"took {duration(turn.took_s)}"
    )
    return line
