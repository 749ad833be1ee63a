"""Direct and through the proxy read the same, and the model saw what the client sent.

Each seed is one script: an upstream, the proxy's settings, one to three agents and their branches.
A failing seed names itself and how to replay it.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

import pytest

from tests.differential.run import run_seed
from tests.differential.upstreams import REFUSALS, SHORT_HANDSHAKE_S, Upstream
from wsproxy.simulator import Rules

SEEDS: Final = 240
SEEDS_A_TEST: Final = 10


@pytest.mark.parametrize("first", range(0, SEEDS, SEEDS_A_TEST))
async def test_scripts_read_the_same_directly_and_through(first: int) -> None:
    routes: Counter[str] = Counter()
    for seed in range(first, first + SEEDS_A_TEST):
        routes += await run_seed(seed)

    assert routes["delta"], "nothing was continued in ten scripts: the oracle saw no delta"


@pytest.mark.parametrize("status", REFUSALS)
async def test_scripts_read_the_same_where_the_upgrade_is_refused(status: int) -> None:
    upstream = Upstream(f"upgrade refused with {status}", Rules(refuse_upgrade=status), {})
    routes = await run_seed(status, upstream=upstream)

    assert {route.partition(" ")[0] for route in routes} == {"http"}


async def test_scripts_read_the_same_where_the_upgrade_hangs() -> None:
    settings = {"handshake_wait_s": SHORT_HANDSHAKE_S}
    routes = await run_seed(1, upstream=Upstream("hangs", Rules(hang_upgrade=True), settings))

    assert {route.partition(" ")[0] for route in routes} == {"http"}


@pytest.mark.parametrize("continuation", ["ignored_null", "ignored_echoed"])
@pytest.mark.parametrize("seed", [3, 5])
async def test_an_upstream_that_ignores_parents_never_gets_a_delta(
    continuation: str, seed: int
) -> None:
    upstream = Upstream(continuation, Rules(continuation=continuation), {})  # type: ignore[arg-type]
    routes = await run_seed(seed, upstream=upstream)

    assert not {route for route in routes if route in ("delta", "fork")}
