"""What was measured, value by value, and how much was to be measured."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field

#: Subject → metric → one value a round.
Table = dict[str, dict[str, list[float]]]
Tables = dict[str, Table]


@dataclass(frozen=True, slots=True)
class Extent:
    """How much is measured."""

    rounds: int
    relay_s: float
    turns: int
    size_rounds: int
    busy_s: float
    growth_turns: int
    growth_rounds: int
    idle_sessions: int
    histories: int
    hot_rounds: int
    profile_s: float
    loop_rounds: int
    has_peers: bool

    @classmethod
    def quick(cls) -> Extent:
        """Under two minutes: without peers, and without agent loops."""
        return cls(
            rounds=3,
            relay_s=0.7,
            turns=15,
            size_rounds=1,
            busy_s=0.8,
            growth_turns=150,
            growth_rounds=1,
            idle_sessions=200,
            histories=16,
            hot_rounds=1,
            profile_s=2.0,
            loop_rounds=0,
            has_peers=False,
        )

    @classmethod
    def full(cls) -> Extent:
        """Under twenty minutes, peers and agent loops included."""
        return cls(
            rounds=5,
            relay_s=2.0,
            turns=60,
            size_rounds=3,
            busy_s=2.0,
            growth_turns=500,
            growth_rounds=3,
            idle_sessions=1_000,
            histories=40,
            hot_rounds=5,
            profile_s=8.0,
            loop_rounds=3,
            has_peers=True,
        )


@dataclass
class Ledger:
    """Keeps what came of each round, and why something is not there (`notes`, by table)."""

    tables: Tables = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)

    def note(self, table: str, subject: str, **values: float) -> None:
        """One round's values."""
        rows = self.tables.setdefault(table, {}).setdefault(subject, {})
        for metric, value in values.items():
            rows.setdefault(metric, []).append(value)
        say(table, subject)

    def explain(self, table: str, why: str) -> None:
        """What the reader of that table must know of this run."""
        self.notes[table] = why
        say(table, why)


def say(table: str, subject: str) -> None:
    """Tell whoever waits what has been reached."""
    print(f"bench: {table}: {subject}", file=sys.stderr, flush=True)
