"""A fault every few seconds, from a seed."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final

from tests.links.fault_link import FaultLink
from wsproxy.simulator import Simulator

#: Whatever upstream can do to one turn, and to the handshake.
IN_TURN: Final = (
    *("reset", "eof", "cut", "silence", "freeze", "close=1000", "close=1001", "close=1008"),
    *("close=1009", "close=1011", "close=1012", "close=1013", "garbage=json", "garbage=utf8"),
    *("garbage=frame", "garbage=masked", "garbage=rsv", "garbage=binary", "wrong_lane", "no_lane"),
    *("unknown_event", "late_event", "sequence_gap", "big=2000000", "error=rate_limit_exceeded"),
    *("error=server_error", "error=server_is_overloaded", "error=conflict"),
    "connection_error=websocket_connection_limit_reached",
)
HANDSHAKE: Final = (
    *("status=403", "status=404", "status=429", "status=500", "status=503", "hang", "reset", "eof"),
)
PLACES: Final = ("before_first_event", "mid_stream", "after_terminal")
Blow = Callable[[], Awaitable[str]]


class Nemesis:
    """Deals one blow every `every_s` seconds; `dealt` counts them by name."""

    def __init__(self, seed: int, every_s: float, sim: Simulator, link: FaultLink) -> None:
        self._dice = random.Random(seed)
        self._every_s = every_s
        self._sim = sim
        self._link = link
        self.dealt: Counter[str] = Counter()

    async def run(self) -> None:
        """Until cancelled."""
        blows: tuple[Blow, ...] = (
            *(self._order, self._order, self._order, self._handshake, self._reset),
            *(self._black_hole, self._half_close, self._slices, self._latency, self._refusal),
        )
        while True:
            await asyncio.sleep(self._every_s)
            self._sim.faults.clear()  # what was not met must not pile up
            self.dealt[await self._dice.choice(blows)()] += 1

    def stop(self) -> None:
        """Take back whatever is still on order."""
        self._sim.faults.clear()
        self._link.black_hole(False)
        self._link.is_refusing = False
        self._link.latency_s = self._link.slice_bytes = 0

    async def _order(self) -> str:
        place, what = self._dice.choice(PLACES), self._dice.choice(IN_TURN)
        self._sim.faults.order(f"{place}:{what}:{self._dice.randint(1, 4)}")
        return f"{place} {what}"

    async def _handshake(self) -> str:
        what = self._dice.choice(HANDSHAKE)
        self._sim.faults.order(f"handshake:{what}:2")
        self._link.reset()  # or nobody would shake hands
        return f"handshake {what}"

    async def _reset(self) -> str:
        self._link.reset()
        return "every connection reset"

    async def _half_close(self) -> str:
        self._link.half_close()
        return "every connection half-closed"

    async def _black_hole(self) -> str:
        self._link.black_hole()
        await asyncio.sleep(self._dice.uniform(0.5, 3.0))
        self._link.black_hole(False)
        return "black hole"

    async def _slices(self) -> str:
        self._link.slice_bytes = self._dice.choice((1_000, 100, 37))
        self._link.reset()
        await asyncio.sleep(1.0)
        self._link.slice_bytes = 0
        return "bytes in slices"

    async def _latency(self) -> str:
        self._link.latency_s = self._dice.uniform(0.02, 0.2)
        await asyncio.sleep(2.0)
        self._link.latency_s = 0.0
        return "latency"

    async def _refusal(self) -> str:
        self._link.is_refusing = True
        self._link.reset()
        await asyncio.sleep(self._dice.uniform(0.2, 1.5))
        self._link.is_refusing = False
        return "nobody listens"
