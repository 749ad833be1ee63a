"""The part of the page that says where the time goes."""

from __future__ import annotations

from typing import Final

from tests.bench.figures import Figure
from tests.bench.ledger import Table, Tables
from tests.bench.profile import INTERPRETER, KERNEL

HEADING: Final = "Where the time goes"
#: Of all tables the ones that are shown here.
PREFIX: Final = "profile: "
HOT_PATH: Final = "python an event"
_LEAST_PERCENT: Final = 1.0
_LIBRARIES: Final = "libraries"
_OURS: Final = "our modules"
_INTRODUCTION: Final = (
    "Shares of the wsproxy process's processor time. The kernel's is the system's own accounting, "
    "the rest is divided as the samples of py-spy fall: a sample counts for the code that was "
    "running, not for who called it; the interpreter's are those in its own C (calls, attributes, "
    "memory), our modules' those in their bytecode.\n"
)
_HOT_PATH: Final = (
    "\nThe same without sockets (`python -m tests.benchmarks.hot_path`): the Python that an event "
    "passes through between two of them, µs of processor time.\n\n"
)


def section(tables: Tables, notes: dict[str, str]) -> str:
    """Groups, then modules and libraries one by one, then the hot path by itself."""
    profiles = {
        name.removeprefix(PREFIX): _shares(table)
        for name, table in tables.items()
        if name.startswith(PREFIX)
    }
    parts = [f"\n## {HEADING}\n\n"]
    parts.append(_INTRODUCTION if profiles else notes.get("profile", "Not in this run.") + "\n")
    if profiles:
        groups = {load: _grouped(shares) for load, shares in profiles.items()}
        parts += ["\n", _table(groups, 0.0), "\n"]
        parts += [
            "Libraries and our modules, where at least 1 %:\n\n",
            _table(_single(profiles), _LEAST_PERCENT),
        ]
    if HOT_PATH in tables:
        parts += [_HOT_PATH, "| | µs an event |\n|---|---:|\n"]
        parts += [f"| {name} | {_cost(row)} |\n" for name, row in tables[HOT_PATH].items()]
    return "".join(parts)


def _cost(row: dict[str, list[float]]) -> str:
    return str(Figure(tuple(row["cpu_us"])))


def _shares(table: Table) -> dict[str, float]:
    return {part: row["percent"][0] for part, row in table.items()}


def _group(part: str) -> str:
    if part in {KERNEL, INTERPRETER}:
        return part
    return _OURS if part.startswith("wsproxy/") else _LIBRARIES


def _grouped(shares: dict[str, float]) -> dict[str, float]:
    found = dict.fromkeys((KERNEL, INTERPRETER, _LIBRARIES, _OURS), 0.0)
    for part, share in shares.items():
        found[_group(part)] += share
    return found


def _single(profiles: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    return {
        load: {part: share for part, share in shares.items() if _group(part) in {_LIBRARIES, _OURS}}
        for load, shares in profiles.items()
    }


def _table(columns: dict[str, dict[str, float]], least: float) -> str:
    """Rows are the parts of which any column has at least so much, the largest first."""
    most: dict[str, float] = {}
    for shares in columns.values():
        for part, share in shares.items():
            most[part] = max(share, most.get(part, 0.0))
    lines = [f"| % | {' | '.join(columns)} |", "|---|" + "---:|" * len(columns)]
    for part in sorted(most, key=most.__getitem__, reverse=True):
        if most[part] >= least:
            cells = " | ".join(f"{shares.get(part, 0.0):.1f}" for shares in columns.values())
            lines.append(f"| {part} | {cells} |")
    return "\n".join(lines) + "\n"
