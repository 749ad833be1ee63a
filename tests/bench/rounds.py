"""All measurements, each in interleaved rounds: every subject has its turn in each round."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Final

from tests.bench import children, peers, relay, turns
from tests.bench.bodies import SHAPES, Talk
from tests.bench.children import ROOT, Child
from tests.bench.memory import ask_all, memory
from tests.bench.relay import Load

#: Subject → metric → one value a round.
Table = dict[str, dict[str, list[float]]]

CALLS: Final = 20
CLIENTS: Final = 16
SMALL_BYTES: Final = 40_000
LARGE_BYTES: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Extent:
    """How much is measured."""

    rounds: int
    relay_s: float
    turns: int
    busy_s: float
    growth_turns: int
    growth_rounds: int
    idle_sessions: int
    histories: int
    has_peers: bool

    @classmethod
    def quick(cls) -> Extent:
        """Under two minutes."""
        return cls(3, 1.0, 20, 1.0, 200, 1, 300, 16, has_peers=False)

    @classmethod
    def full(cls) -> Extent:
        """Some ten minutes, peers included."""
        return cls(7, 3.0, 60, 3.0, 500, 3, 1_000, 20, has_peers=True)


@dataclass
class Bench:
    """Runs what is asked for, and keeps what came of it in `tables`."""

    extent: Extent
    tables: dict[str, Table] = field(default_factory=dict)

    def note(self, table: str, subject: str, **values: float) -> None:
        """One round's values."""
        rows = self.tables.setdefault(table, {}).setdefault(subject, {})
        for metric, value in values.items():
            rows.setdefault(metric, []).append(value)

    async def run(self) -> None:
        """Everything, one after another; prints what it is at."""
        with contextlib.ExitStack() as stack:
            plain = stack.enter_context(children.source())
            deflating = stack.enter_context(children.source(has_deflate=True))
            subjects = {"direct": plain, "wsproxy": stack.enter_context(children.wsproxy(plain))}
            opened = children.wsproxy(deflating, has_deflate=True)
            deflated = stack.enter_context(opened)
            relays = {**subjects, "raw relay": stack.enter_context(children.raw_relay(plain))}
            if children.has_nginx():
                relays["nginx"] = stack.enter_context(children.nginx(plain))
            await self._relays(plain, deflating, relays, deflated)
            asked = dict(relays)
            if self.extent.has_peers:
                asked |= self._peers(stack, plain)
            await self._turns(asked)
            await self._bytes_up(plain, deflating, subjects, deflated)
            await self._growth(subjects)
            await self._idle(subjects)
        with children.source() as plain, children.source(has_deflate=True) as deflating:
            await self._memory(plain, deflating)
        if self.extent.has_peers:
            self._agent_loop()

    def _peers(self, stack: contextlib.ExitStack, upstream: Child) -> dict[str, Child]:
        found = {}
        for name, opened in peers.OPENED.items():
            if peers.prepared(name) is not None:
                found[name] = stack.enter_context(opened(upstream))
        return found

    async def _relays(
        self, plain: Child, deflating: Child, subjects: Mapping[str, Child], deflated: Child
    ) -> None:
        seconds = self.extent.relay_s
        separate, lanes = Load(20, 1_000, seconds, 20), Load(16, 1_250, seconds, 1)
        burst = Load(1, 4_000, seconds, 1)
        for number in range(-1, self.extent.rounds):  # round −1 dials and warms up
            for table, load in (("relay", separate), ("burst", burst)):
                for name, through in subjects.items():
                    await self._relay(table, name, load, plain, through, is_kept=number >= 0)
            through = subjects["wsproxy"]
            await self._relay("relay", "wsproxy, lanes", lanes, plain, through, is_kept=number >= 0)
            for name, load in (("wsproxy, deflate", separate), ("wsproxy, lanes, deflate", lanes)):
                await self._relay("relay", name, load, deflating, deflated, is_kept=number >= 0)

    async def _relay(
        self, table: str, name: str, load: Load, upstream: Child, through: Child, *, is_kept: bool
    ) -> None:
        if not is_kept:
            load = Load(load.streams, load.rate, 0.1, load.keys)
        found = await relay.one_round(load, upstream, through)
        if is_kept:
            self.note(table, name, **asdict(found))
            _say(table, name)

    async def _turns(self, subjects: Mapping[str, Child]) -> None:
        for number in range(self.extent.rounds):
            for name, through in subjects.items():
                if name == "raw relay":
                    continue
                for table, size in (("turns 40 KB", SMALL_BYTES), ("turns 1 MB", LARGE_BYTES)):
                    count = self.extent.turns if size == SMALL_BYTES else self.extent.turns // 3
                    talk = Talk.of_bytes(size, f"{table} {number}")
                    found = await turns.conversation(through, talk, count)
                    values = {"p50_ms": found.at(0.5), "p99_ms": found.at(0.99)}
                    self.note(table, name, **values, cpu_ms=found.cpu_ms)
                busy_s = self.extent.busy_s
                rate = await turns.turns_per_s(through, CLIENTS, SMALL_BYTES, busy_s)
                self.note("turns at 16 clients", name, turns_per_s=rate)
                _say("turns", name)

    async def _bytes_up(
        self, plain: Child, deflating: Child, subjects: Mapping[str, Child], deflated: Child
    ) -> None:
        roads = {name: (plain, child) for name, child in subjects.items()}
        roads["wsproxy, deflate"] = deflating, deflated
        for shape in SHAPES:
            for name, (upstream, through) in roads.items():
                sent, count = await turns.bytes_up(upstream, through, shape, CALLS)
                self.note(f"bytes up: {shape.name}", name, bytes=sent, connections=count)
        _say("bytes up", "all")

    async def _growth(self, subjects: Mapping[str, Child]) -> None:
        window = self.extent.growth_turns // 10
        for _ in range(self.extent.growth_rounds):
            for name, through in subjects.items():
                first, last = await turns.growth(through, self.extent.growth_turns, window)
                self.note("growth", name, first_p50_ms=first.at(0.5), last_p50_ms=last.at(0.5))
                self.note("growth", name, first_cpu_ms=first.cpu_ms, last_cpu_ms=last.cpu_ms)
                _say("growth", name)

    async def _idle(self, subjects: Mapping[str, Child]) -> None:
        """A busy session beside many idle ones."""
        through, count = subjects["wsproxy"], self.extent.idle_sessions
        for when in ("alone", "beside idle sessions"):
            found = [
                await turns.conversation(
                    through, Talk.of_bytes(SMALL_BYTES, f"{when} {number}"), 20
                )
                for number in range(self.extent.rounds)
            ]
            for one in found:
                self.note("idle sessions", when, p50_ms=one.at(0.5), cpu_ms=one.cpu_ms)
            if when == "alone":
                await ask_all(through, turns.sessions(through, count, 400, keys=False))
        _say("growth", "idle sessions")

    async def _memory(self, plain: Child, deflating: Child) -> None:
        idle, histories = self.extent.idle_sessions, self.extent.histories
        found = await memory(plain, deflating, idle=idle, histories=histories)
        for name, grown in found.items():
            self.note("memory", name, bytes=grown)
        _say("memory", "all")

    def _agent_loop(self) -> None:
        command = [sys.executable, "-m", "wsproxy", "demo", "--calls", str(CALLS), "--json"]
        for _ in range(3):
            ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
            told = json.loads(ran.stdout)
            for name in ("direct", "through"):
                self.note("agent loop", name, wall_s=told[name]["wall_s"])
        _say("agent loop", "demo")


def _say(table: str, name: str) -> None:
    print(f"bench: {table}: {name}", file=sys.stderr, flush=True)


def run(extent: Extent) -> dict[str, Table]:
    """Measure all of it."""
    import uvloop

    bench = Bench(extent)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(bench.run())
    return bench.tables
