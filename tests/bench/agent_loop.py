"""The agent loop of the demo under its stated costs, and with each cost switched off in turn."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from statistics import median
from typing import Final

from tests.bench.children import ROOT
from tests.bench.ledger import Ledger
from wsproxy.demo.costs import REAL, Costs

#: Name of a cost → what of the model is it.
COSTS: Final = {
    "TLS": "handshake_s",
    "round trip": "round_trip_s",
    "bandwidth": "uplink_bytes_per_s",
    "uncached tokens": "uncached_token_s",
    "tokens/s": "tokens_per_s",
}
SLEPT: Final = "agent loop"
REAL_PATH: Final = "agent loop over a real path"
ALL: Final = "all costs"
#: More than a run gives itself.
_TIMEOUT_S: Final = 200


def without(name: str) -> Costs:
    """The demo's model less one cost; the empty name takes nothing off."""
    return replace(REAL, **{COSTS[name]: 0.0}) if name else REAL


def loops(ledger: Ledger, calls: int, rounds: int) -> None:
    """Both tables: all costs in as many rounds, each cost off once."""
    names = [""] * rounds + list(COSTS)
    for name in names:
        _slept(ledger, calls, name)
    _contributions(ledger, SLEPT)
    for name in names:
        if (why := _on_a_path(ledger, calls, name)) is not None:
            ledger.explain(REAL_PATH, why)
            ledger.tables.pop(REAL_PATH, None)
            return
    _contributions(ledger, REAL_PATH)


def _slept(ledger: Ledger, calls: int, name: str) -> None:
    from wsproxy.demo.story import tell  # the SDK is a burden to a load generator until here

    report = tell(calls, without(name), lambda _road: None)
    assert report.are_answers_identical
    found = {"direct_s": report.direct.loop.wall_s, "through_s": report.through.loop.wall_s}
    if report.cached is not None:
        found["direct_prompts_cached_s"] = report.cached.loop.wall_s
    _note(ledger, SLEPT, name, found)


def _on_a_path(ledger: Ledger, calls: int, name: str) -> str | None:
    """One run in namespaces of its own; why it cannot be, if so."""
    command = [sys.executable, "-m", "tests.bench.far_loop", f"--calls={calls}"]
    try:
        ran = subprocess.run(
            ["unshare", "-rn", *command, f"--without={name}"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"Not in this run: {error}."
    if ran.returncode != 0:
        print(ran.stderr, file=sys.stderr)
        last = (ran.stderr.strip().splitlines() or ["no reason told"])[-1]
        return f"Not in this run: no path between two network namespaces here ({last})."
    _note(ledger, REAL_PATH, name, json.loads(ran.stdout))
    return None


def _note(ledger: Ledger, table: str, name: str, found: dict[str, float]) -> None:
    saved_s = found["direct_s"] - found["through_s"]
    share = 100 * saved_s / found["direct_s"]
    ledger.note(table, row(name), **found, saved_s=saved_s, saved_percent=share)


def row(name: str) -> str:
    """The table's subject for a cost that is off."""
    return f"without {name}" if name else ALL


def _contributions(ledger: Ledger, table: str) -> None:
    """What less is saved without a cost is what that cost contributes to the saving."""
    rows = ledger.tables[table]
    saved_s = median(rows[ALL]["saved_s"])
    for name in COSTS:
        less_s = saved_s - median(rows[row(name)]["saved_s"])
        ledger.note(table, row(name), contributes_s=less_s)
