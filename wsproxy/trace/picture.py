"""Traces on a terminal: tables, bars, words. Nothing from the journal reaches it unescaped."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Generic, Literal, TextIO, TypeVar

import msgspec
from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from wsproxy.core.multiplex.recovery import Fault
from wsproxy.logs import clean
from wsproxy.trace.advice import explain
from wsproxy.trace.amounts import counted, duration, percent, size, when
from wsproxy.trace.reader import Session, Traces, connections_of
from wsproxy.trace.reader import Text as BodyText
from wsproxy.trace.record import ConnectionRecord, TurnRecord
from wsproxy.trace.replay import Difference, Outcome
from wsproxy.trace.report import Figures, Row, Span, figures, is_failed, spans

T = TypeVar("T")

#: Width of a line where nobody looks: nothing is cut.
PIPED_WIDTH: Final = 1000
#: From this width on, a line has room for all columns.
WIDE: Final = 150
#: Characters of the waterfall.
BAR_WIDTH: Final = 32
NARROW_BAR_WIDTH: Final = 14
_BOX: Final = box.SIMPLE_HEAD
_QUEUED, _WAITING, _OUTPUT = "·", "░", "█"
_ROUTE_STYLES: Final = {"delta": "green", "fork": "green", "http": "yellow", "none": "red"}
_FAULTS: Final = {fault.value: fault.what for fault in Fault}
_PHASES: Final = {
    "matched": "read and matched",
    "placed": "placed on a lane",
    "sent": "frame sent",
    "first_event": "first event",
    "first_output": "first output",
    "done": "done",
}


def console(stream: TextIO | None = None) -> Console:
    """Where to draw: as wide as the terminal, or endless and plain into a pipe."""
    out = stream or sys.stdout
    width = None if out.isatty() else PIPED_WIDTH
    return Console(file=out, width=width, markup=False, highlight=False, emoji=False)


@dataclass(frozen=True, slots=True)
class Column(Generic[T]):
    """One column of a table; `is_extra` ones are left out where the line is short."""

    title: str
    value: Callable[[T], RenderableType]
    is_right: bool = True
    is_extra: bool = False
    max_width: int | None = None


def _table(columns: Sequence[Column[T]], rows: Iterable[T], width: int) -> Table:
    shown = [column for column in columns if width >= WIDE or not column.is_extra]
    table = Table(box=_BOX, padding=(0, 2, 0, 0), pad_edge=False, show_edge=False)
    for column in shown:
        limit = None if width >= WIDE else column.max_width
        justify: Literal["left", "right"] = "right" if column.is_right else "left"
        table.add_column(column.title, justify=justify, no_wrap=True, max_width=limit)
    for row in rows:
        table.add_row(*(column.value(row) for column in shown))
    return table


def _said(text: object) -> Text:
    """A value of the journal as text that cannot move the cursor."""
    return Text(str(clean(str(text))))


# ── Lists ────────────────────────────────────────────────────────────────────────────────────


def session_list(sessions: Sequence[Session], width: int) -> RenderableType:
    """`trace list`."""
    return _table(_LIST, [(session, figures(session.turns)) for session in sessions], width)


_Summed = tuple[Session, Figures]
_LIST: Final[Sequence[Column[_Summed]]] = (
    Column("session", lambda row: _said(row[0].id), is_right=False),
    Column("last turn", lambda row: when(row[0].turns[-1].at)[:-3], is_right=False),
    Column("turns", lambda row: str(row[1].turns)),
    Column("delta", lambda row: str(row[1].deltas)),
    Column("full", lambda row: str(row[1].fulls), is_extra=True),
    Column("https", lambda row: str(row[1].over_https), is_extra=True),
    Column("failed", lambda row: _failures(row[1])),
    Column("sent", lambda row: size(row[1].bytes_up), is_extra=True),
    Column("saved", lambda row: percent(row[1].saved_share)),
    Column("model", lambda row: _said(row[0].turns[-1].model), is_right=False, max_width=14),
)


def statistics(rows: Sequence[Row], what: str, width: int) -> RenderableType:
    """`trace stats`."""
    name: Column[Row] = Column(what, lambda row: _said(row.name), is_right=False)
    return _table((name, *_STATISTICS), rows, width)


_STATISTICS: Final[Sequence[Column[Row]]] = (
    Column("turns", lambda row: str(row.figures.turns)),
    Column("delta", lambda row: str(row.figures.deltas)),
    Column("https", lambda row: str(row.figures.over_https), is_extra=True),
    Column("failed", lambda row: _failures(row.figures)),
    Column("HTTP bytes", lambda row: size(row.figures.bytes_http), is_extra=True),
    Column("sent", lambda row: size(row.figures.bytes_up)),
    Column("saved", lambda row: percent(row.figures.saved_share)),
    Column("upgrades", lambda row: str(row.figures.connections), is_extra=True),
    Column("spared", lambda row: str(row.figures.upgrades_saved), is_extra=True),
    Column("cached", lambda row: percent(row.figures.cached_share)),
    Column("p50", lambda row: duration(row.figures.first_event_p50_s)),
    Column("p99", lambda row: duration(row.figures.first_event_p99_s)),
)


def _failures(sums: Figures) -> Text:
    return Text(str(sums.failed), style="red" if sums.failed else "")


# ── A session ────────────────────────────────────────────────────────────────────────────────


def session_picture(traces: Traces, session: Session, width: int) -> RenderableType:
    """`trace show SESSION`: its turns as a waterfall, its connections, its sums."""
    connections = connections_of(traces, [session])
    return Group(
        Text(f"session {clean(session.id)}  {when(session.began_at)}", style="bold"),
        Text(""),
        _waterfall(session, width),
        Text(f"\n{_QUEUED} queued  {_WAITING} waiting for upstream  {_OUTPUT} answer", style="dim"),
        *(Text(_connection(record)) for record in connections),
        Text(""),
        *(Text(line) for line in _sums(figures(session.turns))),
    )


def _waterfall(session: Session, width: int) -> Table:
    places = spans(session.turns)
    end = max(place.end for place in places) or 1.0
    bar = BAR_WIDTH if width >= WIDE else NARROW_BAR_WIDTH
    room = max(21, width - 59)  # what the other columns of a short line leave
    columns: Sequence[Column[_Placed]] = (
        Column("turn", lambda row: _said(row[0].turn), is_right=False),
        Column("after", lambda row: duration(row[0].at - session.began_at), is_extra=True),
        Column("conv", lambda row: _said(row[0].conversation or "-"), is_extra=True),
        Column("lane", lambda row: _said(_lane(row[0])), is_right=False),
        Column("route", lambda row: _route(row[0]), is_right=False, max_width=room),
        Column("items", lambda row: f"{row[0].items_sent}/{row[0].items}"),
        Column("sent", lambda row: size(row[0].bytes_up), is_extra=True),
        Column("of", lambda row: size(row[0].bytes_http), is_extra=True),
        Column("first", lambda row: duration(row[0].phases.first_event), is_extra=True),
        Column("took", lambda row: duration(row[0].took_s)),
        Column("", lambda row: _bar(row[0], row[1].start / end, row[1].end / end, bar), False),
    )
    return _table(columns, list(zip(session.turns, places, strict=True)), width)


_Placed = tuple[TurnRecord, Span]


def _lane(turn: TurnRecord) -> str:
    if turn.connection is None:
        return "-"
    return f"{turn.connection}/{turn.lane}" if turn.lane else str(turn.connection)


def _route(turn: TurnRecord) -> Text:
    style = "red" if is_failed(turn) else _ROUTE_STYLES.get(turn.route, "")
    text = f"{turn.route} {turn.reason}" if turn.reason and not turn.is_continued else turn.route
    if is_failed(turn):
        text += f" ({turn.status or turn.outcome})"
    return Text(str(clean(text)), style=style)


def _bar(turn: TurnRecord, start: float, end: float, columns: int) -> Text:
    """Where in the session the turn ran, and what it did there; at least one character."""
    left = min(columns - 1, int(start * columns))
    width = max(1, round(end * columns) - left)
    placed = _share(turn.phases.placed, turn.took_s, 0.0)
    first = _share(turn.phases.first_event, turn.took_s, placed)
    queued, waiting = round(placed * width), round(first * width)
    bar = Text(" " * left)
    bar.append(_QUEUED * queued, "dim")
    bar.append(_WAITING * (waiting - queued), "cyan")
    return bar.append(_OUTPUT * (width - waiting), "red" if is_failed(turn) else "green")


def _share(at: float | None, of: float, otherwise: float) -> float:
    return otherwise if at is None or not of else min(1.0, max(0.0, at / of))


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
        words.append(record.fault)
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


# ── A turn ───────────────────────────────────────────────────────────────────────────────────


def turn_picture(turn: TurnRecord) -> RenderableType:
    """`trace show TURN`: what is known of it, and its phases."""
    facts = Table(box=None, show_header=False, pad_edge=False)
    for name, value in _facts(turn):
        facts.add_row(Text(name, style="dim"), _said(value))
    heading = Text(f"turn {clean(turn.turn)}  {when(turn.at)}", style="bold")
    phases = _table(_PHASE_COLUMNS, list(_phase_rows(turn)), WIDE)
    return Group(heading, Text(""), facts, Text(""), phases)


def _phase_rows(turn: TurnRecord) -> Iterator[_PhaseRow]:
    since, took = 0.0, turn.took_s or 1.0
    for name, words in _PHASES.items():
        at: float | None = getattr(turn.phases, name)
        if at is not None:
            bar = " " * round(_share(since, took, 0.0) * BAR_WIDTH)
            bar += _OUTPUT * max(1, round(_share(at - since, took, 0.0) * BAR_WIDTH))
            yield words, at, at - since, bar[: BAR_WIDTH + 1]
            since = at


_PhaseRow = tuple[str, float, float, str]
_PHASE_COLUMNS: Final[Sequence[Column[_PhaseRow]]] = (
    Column("phase", lambda row: row[0], is_right=False),
    Column("at", lambda row: duration(row[1])),
    Column("took", lambda row: duration(row[2])),
    Column("", lambda row: row[3], is_right=False),
)


def _facts(turn: TurnRecord) -> Iterator[tuple[str, str]]:
    told = explain(turn)
    yield "session", turn.session
    if turn.conversation is not None:
        yield "conversation", str(turn.conversation)
    yield "route", f"{turn.route} {turn.reason}".strip()
    yield "", told.what
    if turn.connection is not None:
        compressed = ", compressed" if turn.is_compressed else ""
        yield "connection", f"{turn.connection}, lane {turn.lane or 'default'}{compressed}"
    yield "model", turn.model or "-"
    yield "outcome", " ".join(filter(None, (turn.outcome, str(turn.status or ""), turn.code)))
    yield "sent", f"{size(turn.bytes_up)}; HTTP would have sent {size(turn.bytes_http)}"
    yield "received", f"{size(turn.bytes_down)} in {counted(turn.events, 'event')}"
    if turn.tokens_in is not None:
        cached, out = turn.tokens_cached or 0, turn.tokens_out or 0
        yield "tokens", f"{turn.tokens_in} in ({cached} cached), {out} out"
    if turn.retries:
        yield "retries", str(turn.retries)
    for number, fault in enumerate(turn.faults):
        yield "" if number else "faults", _fault(fault)


def _fault(row: str) -> str:
    """`F32 DNS failure; …`; a journal of another version may have rows that we do not know."""
    what = _FAULTS.get(row)
    return f"{row} {what}" if what else row


def texts(found: Sequence[BodyText]) -> RenderableType:
    """`trace show TURN --bodies`: one line a text, as ASCII JSON."""
    shown = [(one.place, "gone" if one.json is None else _ascii(one.json)) for one in found]
    return Group(*(Text(f"{clean(place)}: {json_}") for place, json_ in shown))


def _ascii(raw: bytes) -> str:
    try:
        return json.dumps(msgspec.json.decode(raw))
    except (ValueError, RecursionError):  # only its brackets were looked at so far
        return "damaged"


def explanation(turn: TurnRecord) -> RenderableType:
    """`trace explain`."""
    told = explain(turn)
    heading = f"{turn.turn}: {turn.route}"
    if turn.reason and not turn.is_continued:
        heading += f" ({turn.reason})"
    lines = [_said(heading), _said(told.what), _said(told.why)]
    if told.advice:
        lines.append(_said(f"→ {told.advice}"))
    return Group(*lines)


def tail_line(turn: TurnRecord) -> Text:
    """`trace tail`: one line a turn."""
    line = Text(f"{datetime.fromtimestamp(turn.at):%H:%M:%S} ")
    line.append_text(_said(f"{turn.session} {turn.turn} {_lane(turn):>6} "))
    line.append_text(_route(turn))
    line.append(
        f"  {turn.items_sent}/{turn.items} items, {size(turn.bytes_up)} of "
        f"{size(turn.bytes_http)}, first {duration(turn.phases.first_event)}, "
        f"took {duration(turn.took_s)}"
    )
    return line


# ── A replay ─────────────────────────────────────────────────────────────────────────────────


def replay_outcomes(outcomes: Sequence[Outcome], width: int) -> RenderableType:
    """`trace replay`: each run, and where one first differs both sides of it."""
    differences = [outcome.difference for outcome in outcomes if outcome.difference]
    return Group(
        _table(_REPLAYS, outcomes, width),
        *(_said(line) for one in differences for line in _difference(one)),
    )


_REPLAYS: Final[Sequence[Column[Outcome]]] = (
    Column("run", lambda row: _said(row.run), is_right=False),
    Column("events", lambda row: str(row.events)),
    Column("commands", lambda row: str(row.commands)),
    Column("result", lambda row: _result(row), is_right=False),
)


def _result(outcome: Outcome) -> Text:
    if outcome.difference is not None:
        return Text(f"differs at event {outcome.difference.number}", style="red")
    return _said(outcome.missing or "the same commands")


def _difference(found: Difference) -> Iterator[str]:
    yield f"event {found.number} ({found.event})"
    yield from (f"  recorded: {json.dumps(command)}" for command in found.recorded)
    yield from (f"  given:    {json.dumps(command)}" for command in found.given)
