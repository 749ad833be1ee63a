"""Figures over turns: what was saved, and how fast it was. Pure; nothing is printed here."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from wsproxy.trace.advice import explain
from wsproxy.trace.amounts import when
from wsproxy.trace.reader import Session, Text, Traces, connections_of
from wsproxy.trace.record import TurnRecord, whole


@dataclass(frozen=True, slots=True)
class Figures:
    """Sums over some turns. Times in seconds, None where nothing was measured.

    `saved_share`: of the bytes that HTTP would have sent; `cached_share`: of the input tokens, None
    where upstream counted none. `upgrades_saved`: turns that needed no connection of their own. An
    agent that keeps its HTTPS connection alive saves them too; one that does not pays for each.
    """

    turns: int
    deltas: int
    fulls: int
    over_https: int
    failed: int
    retries: int
    connections: int
    upgrades_saved: int
    bytes_http: int
    bytes_up: int
    bytes_saved: int
    saved_share: float
    bytes_down: int
    tokens_in: int
    tokens_cached: int
    cached_share: float | None
    tokens_out: int
    first_event_p50_s: float | None
    first_event_p99_s: float | None


def figures(turns: Sequence[TurnRecord]) -> Figures:
    """Sum up some turns."""
    carried = [turn for turn in turns if turn.connection is not None]
    connections = len({(turn.run, turn.connection) for turn in carried})
    firsts = [t.phases.first_event for t in turns if t.phases.first_event is not None]
    routes = Counter(turn.route for turn in turns)
    bytes_http, bytes_saved = sum(t.bytes_http for t in turns), sum(t.bytes_saved for t in turns)
    tokens_in = sum(turn.tokens_in or 0 for turn in turns)
    tokens_cached = sum(turn.tokens_cached or 0 for turn in turns)
    return Figures(
        turns=len(turns),
        deltas=routes["delta"] + routes["fork"],
        fulls=routes["full"],
        over_https=routes["http"],
        failed=sum(is_failed(turn) for turn in turns),
        retries=sum(turn.retries for turn in turns),
        connections=connections,
        upgrades_saved=len(carried) - connections,
        bytes_http=bytes_http,
        bytes_up=sum(turn.bytes_up for turn in turns),
        bytes_saved=bytes_saved,
        saved_share=bytes_saved / bytes_http if bytes_http else 0.0,
        bytes_down=sum(turn.bytes_down for turn in turns),
        tokens_in=tokens_in,
        tokens_cached=tokens_cached,
        cached_share=tokens_cached / tokens_in if tokens_in else None,
        tokens_out=sum(turn.tokens_out or 0 for turn in turns),
        first_event_p50_s=percentile(firsts, 50),
        first_event_p99_s=percentile(firsts, 99),
    )


def is_failed(turn: TurnRecord) -> bool:
    """Whether the agent did not get an answer to use."""
    return turn.outcome not in ("completed", "incomplete") or (turn.status or 200) >= 400


def percentile(values: Iterable[float], rank: int) -> float | None:
    """The nearest-rank percentile; None of nothing."""
    ordered = sorted(values)
    if not ordered:
        return None
    return ordered[max(0, math.ceil(len(ordered) * rank / 100) - 1)]


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the statistics: a session or a day, and its figures."""

    name: str
    figures: Figures


def by_session(sessions: Sequence[Session]) -> list[Row]:
    """One row a session."""
    return [Row(session.id, figures(session.turns)) for session in sessions]


def by_day(traces: Traces) -> list[Row]:
    """One row a day of the local calendar, the latest first; `-` is the day of a shared copy."""
    days: dict[str, list[TurnRecord]] = {}
    for turn in traces.turns.values():
        days.setdefault(when(turn.at).partition(" ")[0], []).append(turn)
    return [Row(day, figures(days[day])) for day in sorted(days, reverse=True)]


@dataclass(frozen=True, slots=True)
class Span:
    """Where a turn lies on the session's axis, in seconds, idle time cut out."""

    start: float
    end: float


def spans(turns: Sequence[TurnRecord]) -> list[Span]:
    """A place for each turn: what ran at once overlaps, pauses of the agent do not show."""
    found: list[Span] = []
    idle = 0.0
    busy_until = turns[0].at if turns else 0.0
    origin = busy_until
    for turn in turns:
        idle += max(0.0, turn.at - busy_until)
        busy_until = max(busy_until, turn.at + turn.took_s)
        start = turn.at - origin - idle
        found.append(Span(start, start + turn.took_s))
    return found


# ── For programs ─────────────────────────────────────────────────────────────────────────────


def overview(session: Session) -> dict[str, Any]:
    """A session as the list of sessions has it."""
    last = session.turns[-1]
    return {
        "name": session.id,
        "began_at": session.began_at,
        "last_turn_at": last.at,
        "ended_at": session.ended_at,
        "model": last.model,
        "figures": figures(session.turns),
    }


def session_told(traces: Traces, session: Session) -> dict[str, Any]:
    """A session with its turns and connections."""
    turns = [whole(turn) for turn in session.turns]
    connections = [whole(record) for record in connections_of(traces, [session])]
    return {**overview(session), "turns": turns, "connections": connections}


def turn_told(
    traces: Traces, turn: TurnRecord, texts: Sequence[Text] | None = None
) -> dict[str, Any]:
    """A turn, what is said of its route, and its texts if they were asked for."""
    told = {**whole(turn), "explanation": explain(turn, traces)}
    if texts is None:
        return told
    return {**told, "texts": [{"place": one.place, "json": _value(one)} for one in texts]}


def _value(text: Text) -> Any:
    try:
        return None if text.json is None else msgspec.json.decode(text.json)
    except (ValueError, RecursionError):  # only its brackets were looked at so far
        return None
