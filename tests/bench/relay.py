"""Events on their way home: processor time and latency that a relay adds to each."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final

from tests.bench.children import Child
from tests.bench.client import caller, post, told
from tests.bench.figures import percentile

#: The table of the same streams with a quarter of their events.
QUARTER: Final = "relay, a quarter"


@dataclass(frozen=True, slots=True)
class Load:
    """`streams` answers at once, each `rate` events/s for `seconds`; `keys` = connections used.

    In step: see `pace.Waiting`.
    """

    streams: int
    rate: int
    seconds: float
    keys: int
    is_in_step: bool = False

    @property
    def events(self) -> int:
        """Deltas of one stream."""
        return max(1, round(self.rate * self.seconds))

    def body(self, number: int) -> bytes:
        """The order of one stream."""
        pace = "step" if self.is_in_step else "spread"
        order = f"emit/{number}/{self.streams}/{self.rate}/{self.events}/{pace}"
        body = {"model": "bench", "input": f"stream {number}", "stream": True, "store": False}
        return json.dumps({**body, "metadata": {"bench": order}}, separators=(",", ":")).encode()


@dataclass(frozen=True, slots=True)
class Relayed:
    """One round: µs of CPU an event of the relaying process, and µs from write to arrival.

    `cores`: how many processors upstream, relay and clients kept busy together. Where that comes
    near to all there are, an event waits for one of them.
    """

    cpu_us: float
    p50_us: float
    p99_us: float
    p999_us: float
    cores: float


async def one_round(load: Load, upstream: Child, through: Child) -> Relayed:
    """Run the load once."""
    callers = [await caller(through.base_url) for _ in range(load.streams)]
    requests = [
        post(through.base_url, load.body(number), key=f"key-{number % load.keys}", session="s")
        for number in range(load.streams)
    ]
    before, all_before, began = through.cpu_s(), _all_s(upstream, through), time.monotonic()
    asked = [one.ask(request) for one, request in zip(callers, requests, strict=True)]
    await asyncio.gather(*asked)
    spent_s = through.cpu_s() - before
    cores = (_all_s(upstream, through) - all_before) / (time.monotonic() - began)
    sent = await told(upstream.base_url, "/bench/sent")
    late = list(
        chain.from_iterable(
            _latencies(sent[str(number)], one.event_times()) for number, one in enumerate(callers)
        )
    )
    for one in callers:
        one.close()
    late.sort()
    return Relayed(
        1e6 * spent_s / len(late),
        percentile(late, 0.5) / 1e3,
        percentile(late, 0.99) / 1e3,
        percentile(late, 0.999) / 1e3,
        cores,
    )


def _all_s(upstream: Child, through: Child) -> float:
    """Processor time of everybody: the load generator is this process."""
    relay_s = 0.0 if through is upstream else through.cpu_s()
    return upstream.cpu_s() + relay_s + time.process_time()


def _latencies(sent: Sequence[int], arrived: Sequence[int]) -> list[int]:
    assert len(sent) == len(arrived), f"{len(sent)} events sent, {len(arrived)} arrived"
    return [there - here for here, there in zip(sent, arrived, strict=True)]
