"""All measurements, each in interleaved rounds: every subject has its turn in each round."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import uvloop

from tests.bench import agent_loop, turns
from tests.bench.authority import Authority, authority
from tests.bench.bodies import SHAPES, Talk
from tests.bench.cast import Cast, cast, others
from tests.bench.children import Child
from tests.bench.ledger import Extent, Ledger, say
from tests.bench.memory import ask_all, memory
from tests.bench.profile import profiles
from tests.bench.relays import relays
from tests.benchmarks import hot_path

CALLS: Final = 20
CLIENTS: Final = 16
SMALL_BYTES: Final = 40_000
LARGE_BYTES: Final = 1_000_000
#: Tells the middle of two times apart, and a conversation stays as large as it is said to be.
_IDLE_TURNS: Final = 20


def run(extent: Extent) -> Ledger:
    """Measure all of it; what it is at is told on stderr."""
    ledger = Ledger()
    with (
        authority("127.0.0.1") as trusted,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        runner.run(Bench(extent, ledger).run(trusted))
    for name, costs_us in hot_path.figures(extent.hot_rounds).items():
        for cost_us in costs_us:
            ledger.note("python an event", name, cpu_us=cost_us)
    if extent.loop_rounds:
        agent_loop.loops(ledger, CALLS, extent.loop_rounds)
    return ledger


@dataclass(frozen=True, slots=True)
class Bench:
    """Runs what needs the light upstream, and keeps what came of it in the ledger."""

    extent: Extent
    ledger: Ledger

    async def run(self, trusted: Authority) -> None:
        """Everything, one after another."""
        extent = self.extent
        with cast(trusted) as here:
            await relays(self.ledger, here, extent.rounds, extent.relay_s)
            await self._turns(here)
            await self._bytes_up(here)
            await turns.by_size(self.ledger, here.roads(), extent.turns // 3, extent.size_rounds)
            await self._growth(here.roads())
            await self._idle(here.wsproxy)
            await profiles(self.ledger, here, extent.profile_s)
        found = await memory(trusted, idle=extent.idle_sessions, histories=extent.histories)
        for name, grown in found.items():
            self.ledger.note("memory", name, bytes=grown)

    async def _turns(self, here: Cast) -> None:
        subjects = {**here.relays(), "wsproxy, no traces": here.untraced}
        del subjects["raw relay"]  # knows of bytes, not of turns
        if not self.extent.has_peers:
            await self._turns_of(subjects)
            return
        with others(here.plain, self.ledger) as peers:
            await self._turns_of({**subjects, **peers})

    async def _turns_of(self, subjects: Mapping[str, Child]) -> None:
        for number in range(self.extent.rounds):
            for name, through in subjects.items():
                count = self.extent.turns
                await self._ask("turns 40 KB", name, through, SMALL_BYTES, count, number)
                await self._ask("turns 1 MB", name, through, LARGE_BYTES, count // 3, number)
                busy_s = self.extent.busy_s
                rate = await turns.turns_per_s(through, CLIENTS, SMALL_BYTES, busy_s)
                self.ledger.note("turns at 16 clients", name, turns_per_s=rate)

    async def _ask(
        self, table: str, name: str, through: Child, size: int, count: int, number: int
    ) -> None:
        talk = Talk.of_bytes(size, f"{table} {number}")
        found = await turns.conversation(through, talk, count)
        values = {"p50_ms": found.at(0.5), "p99_ms": found.at(0.99)}
        self.ledger.note(table, name, **values, cpu_ms=found.cpu_ms)

    async def _bytes_up(self, here: Cast) -> None:
        roads = {name: (here.plain, child) for name, child in here.roads().items()}
        roads["wsproxy, deflate"] = here.deflating, here.deflated
        for number in range(self.extent.rounds):  # ids are random, and deflate shows it
            for shape in SHAPES:
                for name, (upstream, through) in roads.items():
                    key = f"{shape.name} {number}"
                    sent, count = await turns.bytes_up(upstream, through, shape, CALLS, key)
                    self.ledger.note(f"bytes up: {shape.name}", name, bytes=sent, connections=count)

    async def _growth(self, subjects: Mapping[str, Child]) -> None:
        window = self.extent.growth_turns // 10
        for _ in range(self.extent.growth_rounds):
            for name, through in subjects.items():
                asked = await turns.growth(through, self.extent.growth_turns, window)
                found = dict(zip(("first", "last", "young"), asked, strict=True))
                p50s = {f"{when}_p50_ms": part.at(0.5) for when, part in found.items()}
                cpus = {f"{when}_cpu_ms": part.cpu_ms for when, part in found.items()}
                self.ledger.note("growth", name, **p50s, **cpus)

    async def _idle(self, through: Child) -> None:
        """A busy session beside many idle ones."""
        count = self.extent.idle_sessions
        for when in ("alone", "beside idle sessions"):
            for number in range(self.extent.rounds):
                talk = Talk.of_bytes(SMALL_BYTES, f"{when} {number}")
                found = await turns.conversation(through, talk, _IDLE_TURNS)
                self.ledger.note("idle sessions", when, p50_ms=found.at(0.5), cpu_ms=found.cpu_ms)
            if when == "alone":
                say("idle sessions", f"opens {count}")
                await ask_all(through, turns.sessions(through, count, 400, keys=False))
