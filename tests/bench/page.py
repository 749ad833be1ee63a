"""docs/measurements.md from the raw results."""

from __future__ import annotations

from typing import Any, Final

from tests.bench.figures import Figure
from tests.bench.goals import GOALS, Goal, Tables
from tests.bench.peers import PEERS

_INTRODUCTION: Final = (
    "# Measurements\n\n"
    "Written by `scripts/bench{flags}`; not edited by hand. {machine}\n\n"
    "Only what stands side by side can be compared: every subject had its turn in each round, on "
    "the same cores. A figure is the median of its rounds, the least and the most of them in "
    "brackets; a ratio is taken within each round. CPU is the operating system's accounting of "
    'the relaying process. "Direct" is the load generator on the light upstream of the bench, '
    "with nothing between; its CPU is the upstream's own. wsproxy runs as it is shipped, tracing "
    "included.\n"
)
_BUSY: Final = (
    "\n**The machine was busy** with other work (load {load} on {cores} cores). Times, latencies "
    "above all, say nothing here; ratios of CPU and counts of bytes suffer less, but a proxy that "
    "waits for a processor reads more events at once and seems cheaper than it is.\n"
)


def page(results: dict[str, Any]) -> str:
    """The whole page; `results` as in the raw JSON."""
    meta, tables = results["meta"], results["tables"]
    parts = [_INTRODUCTION.format(flags=meta["flags"], machine=meta["machine"])]
    if meta["load"] > 0.5:
        parts.append(_BUSY.format(load=meta["load"], cores=meta["cores"]))
    parts += ["\n## Goals\n", "\n".join(_goals(tables)), "\n\n![Relay](measurements.svg)\n"]
    parts.append(f"\nLight enough? {_lightness(tables)}\n")
    for name, table in tables.items():
        parts.append(f"\n## {name[0].upper()}{name[1:]}\n\n" + "\n".join(_table(table)) + "\n")
    if meta["flags"] == "":
        parts.append("\n## What the peers do that wsproxy does not\n\n")
        parts += [f"* {name}: {what}.\n" for name, (_, what) in PEERS.items()]
    return "".join(parts)


def _goals(tables: Tables) -> list[str]:
    rows = ["", "| figure | goal | measured | met |", "|---|---|---|---|"]
    return rows + [f"| {goal.name} | {goal.goal} | {_measured(goal, tables)} |" for goal in GOALS]


def _measured(goal: Goal, tables: Tables) -> str:
    try:
        text, is_met = goal.measured(tables)
    except KeyError as missing:
        return f"not in this run ({missing.args[0]}) | –"
    return f"{text} | {'yes' if is_met else '**no**'}"


def _lightness(tables: Tables) -> str:
    turns = tables["turns at 16 clients"]
    fastest = max(
        Figure(tuple(row["turns_per_s"])).middle for name, row in turns.items() if name != "direct"
    )
    ratio = Figure(tuple(turns["direct"]["turns_per_s"])).middle / fastest
    return (
        f"Without a proxy, upstream and load generator do {ratio:.1f} × the turns of the fastest "
        "proxy; where that is not several times as many, they are part of what is measured."
    )


def _table(table: dict[str, dict[str, list[float]]]) -> list[str]:
    metrics = list(dict.fromkeys(metric for row in table.values() for metric in row))
    rows = [f"| | {' | '.join(metrics)} |", "|---|" + "---:|" * len(metrics)]
    for subject, row in table.items():
        cells = [str(Figure(tuple(row[metric]))) if metric in row else "" for metric in metrics]
        rows.append(f"| {subject} | {' | '.join(cells)} |")
    return rows
