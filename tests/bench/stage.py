"""A driver between a road and clients that only count: no sockets, no clock that matters."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Final

from tests.bench.source import reply_events, stream_events
from tests.canary import SECRET
from wsproxy.config import Settings
from wsproxy.core.conversation.fields import FieldReader
from wsproxy.core.conversation.history import History
from wsproxy.core.conversation.identity import Identities
from wsproxy.core.ids import ConnectionId
from wsproxy.core.multiplex.beliefs import Chains
from wsproxy.core.multiplex.connection import Lanes
from wsproxy.core.multiplexer import Multiplexer, Options
from wsproxy.driver import Driver, DriverOptions
from wsproxy.options import header_classes
from wsproxy.ports import Headers, LinkEvents, Target
from wsproxy.reading import Inbound

_SETTINGS: Final = Settings()
_HEADERS: Final = [
    (b"Authorization", b"Bearer " + SECRET.encode()),
    (b"Content-Type", b"application/json"),
]


class Road:
    """A `ports.Dialer` and the one `ports.Link` that it opens: keeps what is sent."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self._loop = asyncio.get_running_loop()

    def dial(self, connection: ConnectionId, target: Target, events: LinkEvents) -> Road:
        """See `ports.Dialer`."""
        self.connection, self._events = connection, events
        self._loop.call_soon(events.link_opened, connection, (), False)
        return self

    def send(self, payload: bytes, ticket: int) -> None:
        """See `ports.Link`."""
        self.sent.append(payload)
        self._loop.call_soon(self._events.link_sent, self.connection, ticket)

    def ping(self, payload: bytes) -> None:
        """See `ports.Link`."""

    def close(self, code: int, reason: str = "") -> None:
        """See `ports.Link`."""

    def abort(self) -> Sequence[int]:
        """See `ports.Link`."""
        return ()

    @property
    def lane(self) -> bytes:
        """The `stream_id` member of what was sent last, for its events."""
        return b',"stream_id":"%b"' % json.loads(self.sent[-1])["stream_id"].encode()


class Client:
    """A `ports.Sink` that counts."""

    def __init__(self) -> None:
        self.writes = self.status = 0
        self.is_ended = False

    @property
    def is_started(self) -> bool:
        """See `ports.Sink`."""
        return self.status != 0

    def start(self, status: int, headers: Headers) -> None:
        """See `ports.Sink`."""
        self.status = status

    def write(self, data: bytes) -> int:
        """See `ports.Sink`."""
        self.writes += 1
        return 0

    def finish(self, data: bytes) -> None:
        """See `ports.Sink`."""
        self.writes += 1
        self.is_ended = True

    def respond(self, status: int, headers: Headers, body: bytes) -> None:
        """See `ports.Sink`."""
        raise AssertionError(body)

    def abort(self) -> None:
        """See `ports.Sink`."""
        raise AssertionError("cut")

    def drop(self) -> None:
        """See `ports.Sink`."""
        raise AssertionError("cut")

    def buffered_bytes(self) -> int:
        """See `ports.Sink`."""
        return 0

    def taken_bytes(self) -> int:
        """See `ports.Sink`."""
        return 0


class Stage:
    """A driver whose upstream says what it is told to."""

    def __init__(self) -> None:
        self.road = Road()
        options = Options(lanes=Lanes.ON, chains=Chains.PROVEN, ping_busy_s=1e9, ping_idle_s=1e9)
        self.core = Multiplexer(options, History())
        self.driver = Driver(
            DriverOptions("ws://upstream.test/v1/responses"),
            self.core,
            Identities(header_classes(_SETTINGS), b"a secret of this test"),
            FieldReader(_SETTINGS.changeable_fields),
            self.road,
        )

    async def ask(self, body: bytes) -> tuple[Client, asyncio.Task[object]]:
        """Let a client ask; returns when its frame has left."""
        client, before = Client(), len(self.road.sent)
        asking = asyncio.ensure_future(self.driver.run(Inbound(_HEADERS, "", body), client))
        for _ in range(8):  # rounds of the loop that a dial, a frame and its leaving may take
            await asyncio.sleep(0)
        assert len(self.road.sent) == before + 1
        return client, asking

    async def answer(self, body: bytes, kind: str) -> int:
        """One turn to its end; the bytes of its frame."""
        client, asking = await self.ask(body)
        self.hears([payload for _, payload in reply_events(kind, self.road.lane)])
        await asking
        assert client.is_ended
        return len(self.road.sent[-1])

    def hears(self, messages: list[bytes]) -> None:
        """One read brought these messages."""
        self.driver.link_received(self.road.connection, messages)


def deltas(count: int, lane: bytes) -> list[bytes]:
    """A beginning, and so many deltas."""
    return [payload for _, payload in stream_events(count, lane)][:-1]


def calls_of(run: Callable[[], None]) -> int:
    """How many Python functions are called."""
    count = 0

    def look(_frame: FrameType, what: str, _argument: object) -> None:
        nonlocal count
        count += what == "call"

    sys.setprofile(look)
    try:
        run()
    finally:
        sys.setprofile(None)
    return count
