"""The driver between the core and its links: what is proven to have left, whom it dials."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest

from tests.bench.stage import Client, Road, Stage
from tests.canary import SECRET
from wsproxy import reading
from wsproxy.core.commands import OpenConnection
from wsproxy.core.events import DialFailed
from wsproxy.core.ids import ConnectionId
from wsproxy.core.multiplex.beliefs import Chains
from wsproxy.core.multiplex.connection import Lanes
from wsproxy.core.multiplex.pool import PoolLimits
from wsproxy.core.multiplexer import Multiplexer, Options
from wsproxy.ports import Headers, LinkEvents, Target
from wsproxy.reading import Inbound

JSON = (b"Content-Type", b"application/json")


class Roads(Road):
    """Takes a frame at once and says so in the next round of the loop, as the real one does.

    `is_stuck`: the wire takes nothing, so that nothing of a frame has left.
    """

    def __init__(self) -> None:
        super().__init__()
        self.is_stuck = False
        self.dialled: list[Target] = []
        self._kept: list[int] = []

    def dial(self, connection: Any, target: Target, events: LinkEvents) -> Road:
        self.dialled.append(target)
        return super().dial(connection, target, events)

    def send(self, payload: bytes, ticket: int) -> None:
        if self.is_stuck:
            self._kept.append(ticket)
        else:
            super().send(payload, ticket)

    def abort(self) -> Sequence[int]:
        self.is_stuck = False
        return self._kept


def stage(**options: Any) -> tuple[Stage, Roads]:
    """A driver whose connections carry one turn at a time."""
    it, roads = Stage(), Roads()
    settings: dict[str, Any] = {"lanes": Lanes.OFF, "chains": Chains.PROVEN, **options}
    it.core = Multiplexer(Options(**settings), it.core.history)
    it.driver._core, it.driver._relays = it.core, it.core.relays
    it.driver._accounts._turns = it.core.turns
    it.driver._dialer = it.road = roads
    return it, roads


class Reader(Client):
    """A client that takes whatever end it is given."""

    def respond(self, status: int, headers: Headers, body: bytes) -> None:
        self.status = status

    def abort(self) -> None:
        self.is_ended = True


def asks(it: Stage, text: str, key: bytes = SECRET.encode()) -> tuple[Reader, asyncio.Task[object]]:
    """A turn of that key."""
    body = json.dumps({"model": "m", "input": text, "stream": True}).encode()
    headers: Headers = [(b"Authorization", b"Bearer " + key), JSON]
    client = Reader()
    return client, asyncio.ensure_future(it.driver.run(Inbound(headers, "", body), client))


async def rounds() -> None:
    """What a dial, a frame and its leaving may take."""
    for _ in range(8):
        await asyncio.sleep(0)


def event(type_: str, **members: Any) -> bytes:
    return json.dumps({"type": type_, **members}).encode()


@pytest.mark.parametrize(("is_stuck", "sent_times"), [(False, 1), (True, 1)])
async def test_a_frame_that_left_within_a_read_is_not_sent_again_for_what_that_read_brings(
    is_stuck: bool, sent_times: int
) -> None:
    it, roads = stage(pool=PoolLimits(max_per_key_without_lanes=1))
    _, first = asks(it, "first")
    await rounds()
    it.hears([event("response.created", response={"id": "r1"})])
    client, second = asks(it, "second")  # there is no room for it until the first has ended
    await rounds()
    assert len(roads.sent) == 1
    roads.is_stuck = is_stuck
    ends = event("response.completed", response={"id": "r1", "output": []})
    it.hears([ends, b'{"error":null,"x":1}'])  # it gets its place, which is dropped at once
    await rounds()
    assert sum(b"second" in frame for frame in roads.sent) == sent_times
    assert client.status == (0 if is_stuck else 502)  # it runs elsewhere; nobody can say
    for task in (first, second):
        task.cancel()
    await asyncio.gather(first, second, return_exceptions=True)


async def test_a_successor_is_dialled_as_its_connection_was_whoever_came_since(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reading, "REMEMBERED_KEYS", 1)
    it, roads = stage()
    _, first = asks(it, "first")
    await rounds()
    [key] = it.core.beliefs.shown()
    _, other = asks(it, "second", b"another key")
    await rounds()
    it.driver._perform(OpenConnection(ConnectionId(99), key))
    assert roads.dialled[-1].headers == roads.dialled[0].headers != roads.dialled[1].headers
    for task in (first, other):
        task.cancel()
    await asyncio.gather(first, other, return_exceptions=True)


async def test_a_dial_for_which_nothing_is_remembered_fails_as_a_dial() -> None:
    it, roads = stage()
    _, first = asks(it, "first")
    await rounds()
    [key] = it.core.beliefs.shown()
    it.driver._reader._targets.clear()
    it.driver._dialled.clear()
    it.driver._perform(OpenConnection(ConnectionId(99), key))
    assert len(roads.dialled) == 1
    assert [type(each) for each in it.driver._follows] == [DialFailed]
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
