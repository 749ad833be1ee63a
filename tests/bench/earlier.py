"""What the same figures were before: `before.json`, filled by hand from an earlier page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from tests.bench.figures import Figure, short
from tests.bench.ledger import Tables

BEFORE: Final = Path(__file__).with_name("before.json")


def rows(tables: Tables, before: list[dict[str, Any]]) -> list[str]:
    """Lines of a table: figure, before, now. What either side lacks is left out.

    `now` is table, subject and metric; with `by`, the ratio to another one of the same round.
    """
    found = []
    for entry in before:
        if entry["before"] is None or (now := _now(tables, entry)) is None:
            continue
        found.append(f"| {entry['figure']} | {short(entry['before'])} | {now} |")
    return found


def _now(tables: Tables, entry: dict[str, Any]) -> Figure | None:
    try:
        mine = _figure(tables, *entry["now"])
        return mine.ratios(_figure(tables, *entry["by"])) if "by" in entry else mine
    except KeyError:
        return None


def _figure(tables: Tables, table: str, subject: str, metric: str) -> Figure:
    return Figure(tuple(tables[table][subject][metric]))


def section(tables: Tables) -> str:
    """The part of the page, or nothing."""
    if not (lines := rows(tables, json.loads(BEFORE.read_text()))):
        return ""
    head = "| | before | now |\n|---|---:|---:|\n"
    return (
        "\n## Before\n\nTaken on another day, so what is no ratio says only which way it went.\n\n"
        + head
        + "\n".join(lines)
        + "\n"
    )
