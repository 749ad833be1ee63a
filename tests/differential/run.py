"""Scripts of several agents, directly and through the proxy: `scripts/simulate --real`."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections import Counter
from random import Random
from typing import Final

from tests.canary import secret
from tests.differential.agent import Agent
from tests.differential.twin import DifferenceError, twin
from tests.differential.upstreams import Upstream, choose_upstream
from wsproxy import logs

#: A script takes well under a second; one that takes this long hangs.
SCRIPT_TIMEOUT_S: Final = 30.0
#: Two agents out of three share one.
KEYS: Final = (secret("1"), secret("1"), secret("2"))


async def run_seed(
    seed: int, only: int | None = None, *, upstream: Upstream | None = None
) -> Counter[str]:
    """Run one script; how its turns went. Raises `DifferenceError`, naming the seed.

    `only` runs one of its agents alone; `upstream` is met instead of the seed's own.
    """
    random = Random(seed)
    upstream, own = upstream or choose_upstream(random), upstream is None
    names = [f"{random.choice(KEYS)}.{n}" for n in range(random.choice((1, 2, 3)))]
    turns = [random.randrange(3, 9) for _ in names]
    try:
        async with asyncio.timeout(SCRIPT_TIMEOUT_S), twin(upstream) as both:
            await asyncio.gather(
                *(
                    Agent(both, name, f"{seed}/{number}").run(count)
                    for number, (name, count) in enumerate(zip(names, turns, strict=True))
                    if only in (None, number)
                )
            )
            await both.check_end()
            return both.routes
    except (DifferenceError, TimeoutError, AssertionError) as error:
        replay = f"\nreplay: scripts/simulate --real --seed {seed}" if own else ""
        raise DifferenceError(f"seed {seed}, upstream: {upstream.name}\n{error}{replay}") from error


def main() -> int:
    """The command line; 0 if every script read the same both ways."""
    parser = argparse.ArgumentParser(prog="scripts/simulate --real", description=__doc__)
    parser.add_argument("--seeds", type=int, default=200, help="how many scripts")
    parser.add_argument("--start", type=int, default=0, help="the first seed")
    parser.add_argument("--seed", type=int, help="this one script")
    parser.add_argument("--agent", type=int, help="only this agent of it")
    chosen = parser.parse_args()
    logs.configure("debug" if chosen.seed is not None else "error", "text")
    if chosen.seed is not None:
        seeds = range(chosen.seed, chosen.seed + 1)
    else:
        seeds = range(chosen.start, chosen.start + chosen.seeds)
    return run_seeds(seeds, chosen.agent)


def run_seeds(seeds: range, only: int | None = None) -> int:
    """Run scripts one after another and say what was seen; 0 if all read the same."""
    routes: Counter[str] = Counter()
    failed: list[int] = []
    began = time.monotonic()
    for number, seed in enumerate(seeds, 1):
        try:
            routes += asyncio.run(run_seed(seed, only))
        except DifferenceError as error:
            failed.append(seed)
            print(f"\n{error}", flush=True)
        if number % 50 == 0 or number == len(seeds):
            elapsed = time.monotonic() - began
            print(
                f"{number} scripts, {routes.total()} turns, {len(failed)} failed, {elapsed:.1f} s"
            )
    for route, count in routes.most_common():
        print(f"{count:7} {route}")
    print(f"failed: {failed}" if failed else "all read the same")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
