"""One turn: what is known of it, its phases, its texts, and why it went as it did."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec
from rich.console import Group, RenderableType
from rich.table import Table as Facts
from rich.text import Text

from wsproxy.logs import clean
from wsproxy.terminal.amounts import size
from wsproxy.terminal.table import PIPED_WIDTH, Column, said, table, wider
from wsproxy.trace.advice import explain
from wsproxy.trace.amounts import counted, duration, when
from wsproxy.trace.reader import Text as BodyText
from wsproxy.trace.reader import Traces
from wsproxy.trace.record import TurnRecord
from wsproxy.trace.waterfall import BAR_WIDTH, NARROW_BAR_WIDTH, OUTPUT, fault_words, share

_PHASES: Final = {
    "matched": "read and matched",
    "placed": "placed on a lane",
    "sent": "frame sent",
    "first_event": "first event",
    "first_output": "first output",
    "done": "done",
}


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
            bar = " " * round(share(since, took, 0.0) * columns)
            bar += OUTPUT * max(1, round(share(at - since, took, 0.0) * columns))
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
        yield "" if number else "faults", fault_words(fault)


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
