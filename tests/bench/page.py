"""docs/measurements.md from the raw results."""

from __future__ import annotations

from typing import Any, Final

from tests.bench import earlier, spent
from tests.bench.agent_loop import REAL_PATH, SLEPT
from tests.bench.figures import Figure
from tests.bench.goals import GOALS, WHY, Goal
from tests.bench.ledger import Table, Tables
from tests.bench.peers import PEERS
from tests.bench.relay import QUARTER
from wsproxy.demo.costs import REAL

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
    "\n**The machine was busy** with other work ({load} of {cores} cores). Times, latencies "
    "above all, say nothing here; ratios of CPU and counts of bytes suffer less, but a proxy that "
    "waits for a processor reads more events at once and seems cheaper than it is.\n"
)


#: Table → what its reader must know.
_ABOUT: Final = {
    "relay": "20 streams, 1,000 events/s each, evenly spread: hardly ever two in one read, the "
    'worst case for whoever could share reads. "Lanes": 16 streams of 1,250/s on one connection. '
    '"cores": how many processors upstream, relay and clients kept busy together.',
    QUARTER: "250 events/s of each stream: no processor is short, but hardly ever are two events "
    "served by one wake-up.",
    "relay, in step": "The same events a second, those of all streams at the same instant, as a "
    "model server that decodes its sequences as one batch gives each of them a token a step.",
    "turns by size": "The same conversation on each road, behind a history of that size.",
    "growth": "The first and the last turns of one long conversation, and, young, as many turns of "
    "another client that begins with the bodies of the last: what it has to read is the same, what "
    "is kept of its past is not.",
    SLEPT: "`wsproxy demo`: openai-python, the simulator waits as long as the stated costs take "
    "({costs}). Each cost is also switched off in turn; what less is then saved is what it "
    "contributes.",
    REAL_PATH: "The same loop to an upstream in another network namespace: packets take half the "
    "round trip each way and leave at the rate of the uplink, TCP is the kernel's and TLS is "
    "real (without it, TCP's own round trip stays); only the costs of the model are waited for.",
}


def page(results: dict[str, Any]) -> str:
    """The whole page; `results` as in the raw JSON."""
    meta, tables = results["meta"], results["tables"]
    notes = results.get("notes", {})
    parts = [_INTRODUCTION.format(flags=meta["flags"], machine=meta["machine"])]
    if meta["load"] > 0.5:
        parts.append(_BUSY.format(load=meta["load"], cores=meta["cores"]))
    parts += ["\n## Goals\n", "\n".join(_goals(tables)), "\n", _missed(tables)]
    parts += ["\n![Relay](measurements.svg)\n", f"\nLight enough? {_lightness(tables)}\n"]
    parts += [earlier.section(tables), spent.section(tables, notes)]
    parts += [_section(name, tables, notes) for name in _shown(tables, notes)]
    if meta["flags"] == "":
        parts.append("\n## What the peers do that wsproxy does not\n\n")
        parts += [f"* {name}: {what}.\n" for name, (_, what) in PEERS.items()]
    return "".join(parts)


def _shown(tables: Tables, notes: dict[str, str]) -> list[str]:
    """The tables that no other part of the page shows, and those that are explained instead."""
    names = [*tables, *(name for name in notes if name not in tables)]
    elsewhere = (spent.PREFIX, spent.HOT_PATH, "profile")
    return [name for name in names if not name.startswith(elsewhere)]


def _section(name: str, tables: Tables, notes: dict[str, str]) -> str:
    parts = [f"\n## {name[0].upper()}{name[1:]}\n"]
    about = (_ABOUT.get(name, "").replace("{costs}", REAL.in_words()), notes.get(name, ""))
    parts += [f"\n{text}\n" for text in about if text]
    if name in tables:
        parts += ["\n", "\n".join(_table(tables[name])), "\n"]
    return "".join(parts)


def _missed(tables: Tables) -> str:
    """Why goals were not met, and what would close the gap; nothing where all were."""
    names = [goal.name for goal in GOALS if not is_met(goal, tables)]
    lines = [f"* **{name}**: {WHY[name]}.\n" for name in names if name in WHY]
    return "\n### Missed: why, and what would close it\n\n" + "".join(lines) if lines else ""


def is_met(goal: Goal, tables: Tables) -> bool:
    """Whether it was, or was not looked at."""
    try:
        return goal.measured(tables)[1]
    except KeyError:
        return True


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


def _table(table: Table) -> list[str]:
    metrics = list(dict.fromkeys(metric for row in table.values() for metric in row))
    rows = [f"| | {' | '.join(metrics)} |", "|---|" + "---:|" * len(metrics)]
    for subject, row in table.items():
        cells = [str(Figure(tuple(row[metric]))) if metric in row else "" for metric in metrics]
        rows.append(f"| {subject} | {' | '.join(cells)} |")
    return rows
