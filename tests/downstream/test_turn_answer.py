"""A streamed answer knows what its client has taken of it."""

from __future__ import annotations

from typing import cast

from aiohttp import web

from tests.benchmarks.hot_path import Nowhere, Request
from tests.canary import TEXT
from wsproxy.downstream.turns import TurnAnswer

EVENT = b"data: " + TEXT.encode() + b"\n\n"
EVENTS = 1_000


class Slow(Nowhere):
    """A transport whose client has taken so many bytes."""

    taken = 0

    def get_write_buffer_size(self) -> int:
        return self.written - self.taken


async def test_what_a_client_takes_is_told_to_the_byte_however_small_the_events_are() -> None:
    request, slow = Request(), Slow()
    request.transport = slow
    answer = TurnAnswer(cast(web.BaseRequest, request))
    answer.start(200, [])
    for _ in range(EVENTS):
        answer.write(EVENT)
    slow.taken = 10
    assert slow.written > EVENTS * len(EVENT), "chunks have frames"
    assert (answer.taken_bytes(), answer.buffered_bytes()) == (10, slow.written - 10)
    answer.finish(b"")
    assert answer.taken_bytes() == 10
