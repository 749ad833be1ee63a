"""Medians of rounds with their extent, and percentiles of what is many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median


def percentile(ordered: Sequence[float], share: float) -> float:
    """Of values in order; the nearest one."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured value over several rounds, the worth of each kept."""

    rounds: tuple[float, ...]

    @property
    def middle(self) -> float:
        """The median."""
        return median(self.rounds)

    def __str__(self) -> str:
        return f"{short(self.middle)} ({short(min(self.rounds))}–{short(max(self.rounds))})"

    def ratios(self, other: Figure) -> Figure:
        """This by the other, round by round: both ran side by side in each."""
        pairs = zip(self.rounds, other.rounds, strict=True)
        return Figure(tuple(mine / theirs if theirs else float("inf") for mine, theirs in pairs))


def short(value: float) -> str:
    """Three digits that count."""
    if value == float("inf"):
        return "∞"
    size = abs(value)
    return f"{value:,.0f}" if size >= 100 else f"{value:.1f}" if size >= 10 else f"{value:.2f}"
