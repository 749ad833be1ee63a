"""Many worlds: whatever agents, upstreams and the nemesis do, no invariant is violated."""

from __future__ import annotations

import pytest

from tests.simulation.run import report, run_seeds

#: Per batch, so that several workers share them; every odd seed has a nemesis.
BATCH = 50
BATCHES = 40


@pytest.mark.parametrize("batch", range(BATCHES))
def test_no_world_violates_an_invariant(batch: int) -> None:
    summary = run_seeds(range(batch * BATCH, (batch + 1) * BATCH))

    for seed, violations in summary.failed.items():
        pytest.fail(report(seed, violations, "half"))
    assert summary.seeds == BATCH
