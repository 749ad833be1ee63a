"""Figures over turns: what was saved, and how fast it was. Pure; nothing is printed here."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from wsproxy.trace.reader import Session, Traces
from wsproxy.trace.record import TurnRecord


@dataclass(frozen=True, slots=True)
class Figures:
    """Sums over some turns. Times in seconds, None where nothing was measured.

    `upgrades_saved`: turns that needed no connection of their own. An agent that keeps its HTTPS
    connection alive saves them too; one that does not pays for each.
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
    bytes_down: int
    tokens_in: int
    tokens_cached: int
    tokens_out: int
    first_event_p50_s: float | None
    first_event_p99_s: float | None

    @property
    def saved_share(self) -> float:
        """Of the bytes that HTTP would have sent."""
        return self.bytes_saved / self.bytes_http if self.bytes_http else 0.0

    @property
    def cached_share(self) -> float | None:
        """Of the input tokens; None where upstream counted none."""
        return self.tokens_cached / self.tokens_in if self.tokens_in else None


def figures(turns: Sequence[TurnRecord]) -> Figures:
    """Sum up some turns."""
    carried = [turn for turn in turns if turn.connection is not None]
    connections = len({(turn.run, turn.connection) for turn in carried})
    firsts = [t.phases.first_event for t in turns if t.phases.first_event is not None]
    routes = Counter(turn.route for turn in turns)
    return Figures(
        turns=len(turns),
        deltas=routes["delta"] + routes["fork"],
        fulls=routes["full"],
        over_https=routes["http"],
        failed=sum(is_failed(turn) for turn in turns),
        retries=sum(turn.retries for turn in turns),
        connections=connections,
        upgrades_saved=len(carried) - connections,
        bytes_http=sum(turn.bytes_http for turn in turns),
        bytes_up=sum(turn.bytes_up for turn in turns),
        bytes_saved=sum(turn.bytes_saved for turn in turns),
        bytes_down=sum(turn.bytes_down for turn in turns),
        tokens_in=sum(turn.tokens_in or 0 for turn in turns),
        tokens_cached=sum(turn.tokens_cached or 0 for turn in turns),
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
    """One row a day of the local calendar, the latest first."""
    days: dict[str, list[TurnRecord]] = {}
    for turn in traces.turns.values():
        days.setdefault(f"{datetime.fromtimestamp(turn.at):%Y-%m-%d}", []).append(turn)
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
