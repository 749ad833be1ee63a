"""The page and the README's table, from results that are made up."""

from __future__ import annotations

from typing import Any

import pytest

from tests.bench import earlier
from tests.bench.agent_loop import ALL, COSTS, REAL_PATH, SLEPT, row
from tests.bench.bodies import SHAPES
from tests.bench.goals import GOALS, WHY
from tests.bench.ledger import Tables
from tests.bench.page import is_met, page
from tests.bench.readme import BEGIN, END, ROWS, fragment, replaced
from tests.bench.spent import HEADING

RELAYS = ("direct", "wsproxy", "raw relay", "nginx")
LANES = ("wsproxy, lanes", "wsproxy, deflate")


def made_up(value: float) -> Tables:
    """Every table of a full run; of what is compared, wsproxy has `value` and others 10."""

    def rows(subjects: tuple[str, ...], *metrics: str) -> dict[str, dict[str, list[float]]]:
        return {
            name: {metric: [value if name.startswith("wsproxy") else 10.0] for metric in metrics}
            for name in subjects
        }

    relayed = ("cpu_us", "p50_us", "p99_us", "p999_us")
    growth = [f"{when}_{what}_ms" for when in ("first", "last", "young") for what in ("p50", "cpu")]
    loop = {"direct_s": [10.0], "through_s": [value], "saved_s": [10 - value]}
    memory = ("at start", "session", "connection", "connection, TLS and deflate", "1 MB history")
    return {
        "relay": rows((*RELAYS, *LANES), *relayed),
        "burst": rows(RELAYS, *relayed),
        "relay, in step": rows((*RELAYS, *LANES), *relayed),
        "turns 40 KB": rows(("direct", "wsproxy", "mitmdump"), "p50_ms", "p99_ms"),
        "turns 1 MB": rows(("direct", "wsproxy"), "p50_ms"),
        "turns at 16 clients": rows(("direct", "wsproxy", "mitmdump"), "turns_per_s"),
        **{f"bytes up: {shape.name}": rows((*RELAYS, *LANES), "bytes") for shape in SHAPES},
        "growth": rows(("direct", "wsproxy"), *growth),
        "idle sessions": rows(("alone", "beside idle sessions"), "cpu_ms"),
        "memory": {name: {"bytes": [value]} for name in memory},
        SLEPT: {row(name): loop for name in ("", *COSTS)},
        "profile: turns": {"kernel": {"percent": [60.0]}, "wsproxy/driver.py": {"percent": [9.0]}},
        "python an event": {"1 streams": {"cpu_us": [value]}},
    }


def results(tables: Tables, flags: str = "") -> dict[str, Any]:
    """As in the raw JSON."""
    meta = {"flags": flags, "machine": "a machine", "load": 0.1, "cores": 2}
    return {"meta": meta, "tables": tables, "notes": {REAL_PATH: "No namespaces here."}}


@pytest.mark.parametrize(
    ("last", "young", "is_reached"),
    [(4.0, 4.0, True), (4.0, 3.8, True), (4.0, 2.0, False), (2.0, 2.0, True), (2.0, 1.0, False)],
)
def test_what_a_conversation_grows_by_is_what_reading_its_body_does_not_explain(
    last: float, young: float, is_reached: bool
) -> None:
    tables = made_up(2.0)
    row = tables["growth"]["wsproxy"]
    row |= {f"last_{what}_ms": [last] for what in ("p50", "cpu")}
    row |= {f"young_{what}_ms": [young] for what in ("p50", "cpu")}
    tables["growth"]["direct"] = {name: [1.0] for name in row}
    goal = next(goal for goal in GOALS if goal.name == "growth of a conversation")
    assert is_met(goal, tables) is is_reached


def test_a_missed_goal_says_why_and_what_would_close_it() -> None:
    tables = made_up(1e9)
    written = page(results(tables))
    missed = [goal.name for goal in GOALS if not is_met(goal, tables)]
    assert len(missed) > 5
    told = [name for name in missed if name in WHY]
    assert [name for name in told if f"* **{name}**: {WHY[name]}.\n" not in written] == []


def test_a_run_that_met_all_goals_has_nothing_to_explain() -> None:
    met = {name: made_up(0.0)[name] for name in ("memory", "idle sessions")}
    light = {"turns at 16 clients": made_up(1e9)["turns at 16 clients"]}
    assert "Missed" not in page(results({**met, **light}))


def test_reasons_are_those_of_goals() -> None:
    assert set(WHY) <= {goal.name for goal in GOALS}


def test_the_page_shows_every_table_once() -> None:
    written = page(results(made_up(5.0)))
    headings = [line for line in written.splitlines() if line.startswith("## ")]
    assert len(set(headings)) == len(headings)
    assert f"## {HEADING}" in headings
    assert "| wsproxy/driver.py | 9.0 |" in written
    assert "No namespaces here." in written


def test_the_readme_gets_the_table_of_the_run_and_nothing_else() -> None:
    readme = f"# A title\n\n{BEGIN}\nearlier\n{END}\n\nThe rest.\n"
    written = replaced(readme, made_up(5.0))
    assert written == f"# A title\n\n{BEGIN}\n{fragment(made_up(5.0))}{END}\n\nThe rest.\n"
    assert "docs/measurements.svg" in written
    assert len(written.splitlines()) == len(readme.splitlines()) + len(ROWS) + 2


def test_what_a_run_lacks_is_no_row() -> None:
    tables = made_up(5.0)
    del tables["relay"]["nginx"], tables[SLEPT]
    assert "CPU an event, 20,000" not in fragment(tables)
    assert ALL not in fragment(tables)
    assert "turns/s" in fragment(tables)


def test_before_stands_beside_now_where_both_are_known() -> None:
    known = {"figure": "known", "before": 20.0, "now": ["relay", "wsproxy", "cpu_us"]}
    ratio = known | {"figure": "ratio", "by": ["relay", "nginx", "cpu_us"]}
    unknown = [known | {"before": None}, known | {"now": ["relay", "nobody", "cpu_us"]}]
    found = earlier.rows(made_up(5.0), [known, ratio, *unknown])
    assert found == [
        "| known | 20.0 | 5.00 (5.00–5.00) |",
        "| ratio | 20.0 | 0.50 (0.50–0.50) |",
    ]
