"""`python -m tests.simulation.run`: many seeds at once, or one of them in words.

A failing seed is printed with the command that replays it and with the smallest plan that still
fails. The exit code says whether anything did.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from typing import Final

from tests.logged import Watched, use_log
from tests.simulation.draw import draw
from tests.simulation.shrink import shrunk
from tests.simulation.world import simulate

FAULTS: Final = ("half", "on", "off")
_BATCH: Final = 50
_SHOWN: Final = 5  # failures that are shown with their smallest plan


@dataclass(slots=True)
class Summary:
    """What came of some seeds."""

    seeds: int = 0
    calls: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    failed: dict[int, list[str]] = field(default_factory=dict)

    def add(self, other: Summary) -> None:
        """Put both together."""
        self.seeds += other.seeds
        self.calls += other.calls
        self.counts += other.counts
        self.failed |= other.failed


def has_faults(seed: int, faults: str) -> bool:
    """Whether the nemesis is on for a seed: in half of them every odd one has it."""
    return faults == "on" or (faults == "half" and seed % 2 == 1)


def run_seeds(seeds: Iterable[int], faults: str = "half") -> Summary:
    """Simulate the worlds of some seeds, one after another."""
    summary = Summary()
    for seed in seeds:
        ledger = simulate(draw(seed, has_faults=has_faults(seed, faults)))
        summary.seeds += 1
        summary.calls += len(ledger.calls)
        summary.counts += ledger.counts
        if ledger.violations:
            summary.failed[seed] = ledger.violations
    return summary


def report(seed: int, violations: Sequence[str], faults: str) -> str:
    """A failing seed as a reader needs it: what, how to see it again, and its smallest form."""
    plan = shrunk(draw(seed, has_faults=has_faults(seed, faults)))
    lines = [f"seed {seed}: {len(violations)} violations; the first: {violations[0]}"]
    lines.append(f"  replay: scripts/simulate --seed {seed} --faults {faults}")
    return "\n".join([*lines, f"smallest plan that still fails:\n{plan}"])


def _watch() -> None:
    """As the tests do it: all that is logged is looked at, and nothing that is older than that."""
    use_log(Watched(keeps_lines=False))
    gc.freeze()


def replay(seed: int, faults: str) -> int:
    """Tell one world in words; 1 if it violates anything."""
    _watch()
    plan = draw(seed, has_faults=has_faults(seed, faults))
    ledger = simulate(plan, is_journal_kept=True)
    print(plan, *ledger.journal, sep="\n")
    if ledger.violations:
        print(*ledger.violations, report(seed, ledger.violations, faults), sep="\n\n")
    return int(bool(ledger.violations))


def run_many(start: int, count: int, faults: str, jobs: int) -> Summary:
    """All seeds, in parallel; failures are told as they come."""
    summary = Summary()
    ends = range(start, start + count, _BATCH)
    batches = [range(at, min(at + _BATCH, start + count)) for at in ends]
    with ProcessPoolExecutor(jobs, initializer=_watch) as pool:
        for found in pool.map(run_seeds, batches, [faults] * len(batches)):
            for seed, violations in found.failed.items():
                if len(summary.failed) + len(found.failed) <= _SHOWN:
                    print(report(seed, violations, faults), flush=True)
                else:
                    print(f"seed {seed}: {violations[0]}", flush=True)
            summary.add(found)
    return summary


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="scripts/simulate", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, metavar="N", help="how many")
    parser.add_argument("--start", type=int, default=0, metavar="K", help="the first of them")
    parser.add_argument("--seed", type=int, metavar="N", help="replay this one, in words")
    parser.add_argument("--faults", choices=FAULTS, default="half")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="J")
    parser.add_argument("--counts", action="store_true", help="also what happened how often")
    asked = parser.parse_args()
    if asked.seed is not None:
        return replay(asked.seed, asked.faults)
    began = time.perf_counter()
    summary = run_many(asked.start, asked.seeds, asked.faults, asked.jobs)
    took_s = time.perf_counter() - began
    print(
        f"{summary.seeds} worlds, {summary.calls} calls, {len(summary.failed)} violated an "
        f"invariant; {took_s:.1f} s, {summary.seeds / took_s:.0f} worlds a second"
    )
    if asked.counts:
        for what, count in sorted(summary.counts.items()):
            print(f"{count:9d}  {what}")
    return int(bool(summary.failed))


if __name__ == "__main__":
    sys.exit(main())
