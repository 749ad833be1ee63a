"""Traces on a terminal: tables, bars, words. Nothing from the journal reaches it unescaped."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from typing import Final

import msgspec
from rich.console import Group, RenderableType
from rich.table import Table as Facts
from rich.text import Text

from wsproxy.core.multiplex.recovery import Fault
from wsproxy.logs import clean
from wsproxy.terminal.amounts import size
from wsproxy.terminal.table import PIPED_WIDTH, Column, Table, said, table, wider
from wsproxy.trace.advice import explain
from wsproxy.trace.amounts import counted, duration, percent, when
from wsproxy.trace.reader import Session, Traces, connections_of
from wsproxy.trace.reader import Text as BodyText
from wsproxy.trace.record import ConnectionRecord, TurnRecord
from wsproxy.trace.replay import Difference, Outcome
from wsproxy.trace.report import Figures, Row, Span, figures, is_failed, spans

#: Characters of the waterfall.
BAR_WIDTH: Final = 32
NARROW_BAR_WIDTH: Final = 14
#: Characters of route and reason that come before columns of less use; most reasons fit.
ROUTE_LEAST: Final = 24
NARROW_ROUTE_LEAST: Final = 12
USUAL_WIDTH: Final = 80
_QUEUED, _WAITING, _OUTPUT = "·", "░", "█"
_LEGEND: Final = (
    f"{_QUEUED} queued  {_WAITING} waiting for upstream  {_OUTPUT} answer; pauses cut out"
)
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


# ── Lists ────────────────────────────────────────────────────────────────────────────────────


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


# ── A session ────────────────────────────────────────────────────────────────────────────────


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


def turn_picture(
    turn: TurnRecord, width: int = PIPED_WIDTH, traces: Traces | None = None
) -> RenderableType:
    """`trace show TURN`: what is known of it, and its phases."""
    facts = Facts(box=None, show_header=False, pad_edge=False)
    facts.add_column(no_wrap=True)
    facts.add_column(overflow="fold")
    for name, value in _facts(turn, traces):
        facts.add_row(Text(name, style="dim"), said(value))
    heading = Text(f"turn {clean(turn.turn)}  {when(turn.at)}", style="bold")
    phases = table(_PHASE_COLUMNS, list(_phase_rows(turn, BAR_WIDTH)), width)
    if phases.hidden:
        phases = table(_PHASE_COLUMNS, list(_phase_rows(turn, NARROW_BAR_WIDTH)), width)
    return Group(heading, Text(""), facts, Text(""), phases, *wider(phases.hidden))


def _phase_rows(turn: TurnRecord, columns: int) -> Iterator[_PhaseRow]:
    since, took = 0.0, turn.took_s or 1.0
    for name, words in _PHASES.items():
        at: float | None = getattr(turn.phases, name)
        if at is not None:
            bar = " " * round(_share(since, took, 0.0) * columns)
            bar += _OUTPUT * max(1, round(_share(at - since, took, 0.0) * columns))
            yield words, at, at - since, bar[: columns + 1]
            since = at


_PhaseRow = tuple[str, float, float, str]
_PHASE_COLUMNS: Final[Sequence[Column[_PhaseRow]]] = (
    Column("phase", lambda row: row[0], is_right=False),
    Column("at", lambda row: duration(row[1])),
    Column("took", lambda row: duration(row[2])),
    Column("", lambda row: row[3], is_right=False, rank=1, name="bar"),
)


def _facts(turn: TurnRecord, traces: Traces | None) -> Iterator[tuple[str, str]]:
    told = explain(turn, traces)
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


def explanation(turn: TurnRecord, traces: Traces | None = None) -> RenderableType:
    """`trace explain`."""
    told = explain(turn, traces)
    heading = f"{turn.turn}: {turn.route}"
    if turn.reason and not turn.is_continued:
        heading += f" ({turn.reason})"
    lines = [said(heading), said(told.what), said(told.why)]
    if told.end:
        lines.append(said(told.end))
    if told.advice:
        lines.append(said(f"→ {told.advice}"))
    return Group(*lines)


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


# ── A replay ─────────────────────────────────────────────────────────────────────────────────


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
