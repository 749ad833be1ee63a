"""Turns: how much later their first byte comes, how many fit in a second, what they send."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from tests.bench.bodies import Shape, Talk, loop
from tests.bench.children import Child
from tests.bench.client import caller, post, told
from tests.bench.figures import percentile
from tests.bench.ledger import Ledger

#: Bytes of a conversation's history.
SIZES: Final = {"100 KB": 100_000, "1 MB": 1_000_000, "5 MB": 5_000_000}
#: The first turns of a conversation dial, and send in full.
_WARM_UP: Final = 3


@dataclass(frozen=True, slots=True)
class Asked:
    """Some turns in a row: ms to the first byte of each, and CPU ms a turn of who answered."""

    first_byte_ms: list[float]
    cpu_ms: float

    def at(self, share: float) -> float:
        """A percentile."""
        return percentile(sorted(self.first_byte_ms), share)


async def conversation(through: Child, talk: Talk, turns: int, *, key: str = "turns") -> Asked:
    """One client that asks on and on."""
    (asked,) = await conversations(through, {key: talk}, turns)
    return asked


async def conversations(through: Child, talks: Mapping[str, Talk], turns: int) -> list[Asked]:
    """Clients by their keys, each of which asks on and on, one after another in each turn."""
    clients = [await caller(through.base_url) for _ in talks]
    first_ms: list[list[float]] = [[] for _ in talks]
    spent_s = [0.0 for _ in talks]
    for turn in range(_WARM_UP + turns):
        for at, (key, talk) in enumerate(talks.items()):
            request, before_s = post(through.base_url, talk.body(), key=key), through.cpu_s()
            took_ms = await clients[at].ask(request) / 1e6
            if turn >= _WARM_UP:
                first_ms[at].append(took_ms)
                spent_s[at] += through.cpu_s() - before_s
            talk.answered()
    for client in clients:
        client.close()
    return [Asked(ms, 1e3 * spent / turns) for ms, spent in zip(first_ms, spent_s, strict=True)]


async def by_size(ledger: Ledger, subjects: Mapping[str, Child], turns: int, rounds: int) -> None:
    """What a turn costs behind a history of each size: the same conversation on every road."""
    for number in range(rounds):
        for size_name, size in SIZES.items():
            talk = Talk.of_bytes(size, f"{size_name} {number}")
            for name, through in subjects.items():
                found = await conversation(through, talk.copy(), turns)
                values = {"p50_ms": found.at(0.5), "cpu_ms": found.cpu_ms}
                ledger.note("turns by size", f"{name}, {size_name}", **values)


async def turns_per_s(through: Child, clients: int, body_bytes: int, seconds: float) -> float:
    """Clients with a conversation each that ask as fast as they are answered."""
    talks = [Talk.of_bytes(body_bytes, f"client {number}") for number in range(clients)]
    began = time.monotonic()
    busy = [
        _busy(through, talk, began + seconds, f"s{number}") for number, talk in enumerate(talks)
    ]
    counts = await asyncio.gather(*busy)
    return sum(counts) / (time.monotonic() - began)


async def _busy(through: Child, talk: Talk, give_up: float, session: str) -> int:
    client = await caller(through.base_url)
    count = 0
    while time.monotonic() < give_up:
        await client.ask(post(through.base_url, talk.body(), session=session))
        talk.answered()
        count += 1
    client.close()
    return count


async def bytes_up(
    upstream: Child, through: Child, shape: Shape, calls: int, key: str
) -> tuple[int, int]:
    """What one agent loop of a new key sends to the upstream: bytes and connections."""
    await told(upstream.base_url, "/bench/received")
    client = await caller(through.base_url)
    for body in loop(shape, calls):
        await client.ask(post(through.base_url, body, key=key))
    client.close()
    received = await told(upstream.base_url, "/bench/received")
    return received["bytes"], received["connections"]


async def growth(through: Child, turns: int, window: int) -> tuple[Asked, Asked, Asked]:
    """The first and the last `window` turns of one long conversation.

    Third: as many turns of another client that begins with the bodies of the last ones, and so
    has the same to read and hardly a past. The two take turns: what else the machine does meets
    both.
    """
    talk = Talk.of_bytes(4_000, "growth")
    first = await conversation(through, talk, window, key="growth")
    await conversation(through, talk, turns - 2 * window, key="growth")
    talks = {"growth": talk, "young": talk.copy()}
    last, young = await conversations(through, talks, window)
    return first, last, young


def added(subject: Sequence[float], direct: Sequence[float]) -> list[float]:
    """What a road adds to the direct one, round by round."""
    return [mine - theirs for mine, theirs in zip(subject, direct, strict=True)]


def sessions(through: Child, count: int, body_bytes: int, *, keys: bool) -> Iterator[bytes]:
    """One turn of each of many sessions, of one key or of a key each."""
    for number in range(count):
        body = Talk.of_bytes(body_bytes, f"session {number}").body()
        key = f"key-{number}" if keys else "one"
        yield post(through.base_url, body, key=key, session=f"session-{number}")
