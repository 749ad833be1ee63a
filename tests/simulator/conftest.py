"""A simulator a test, and a WebSocket client of it that is not built on wsproto."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import pytest

from tests.canary import secret
from wsproxy.simulator import Rules, Simulator

TERMINAL = {"response.completed", "response.incomplete", "response.failed", "error"}
KEY = {"Authorization": f"Bearer {secret('one')}"}
Event = dict[str, Any]


class Socket:
    """A client connection that keeps the events of every lane apart."""

    def __init__(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        self.ws = ws
        self.seen: list[Event] = []

    async def send(self, **fields: Any) -> None:
        """Send one create, `store: false` and a model unless said otherwise."""
        frame = {"type": "response.create", "model": "gpt-5.6", "store": False, **fields}
        await self.ws.send_str(json.dumps(frame))

    async def receive(self) -> Event:
        """The next event."""
        message = await self.ws.receive(timeout=5)
        assert message.type is aiohttp.WSMsgType.TEXT, message
        event: Event = json.loads(message.data)
        self.seen.append(event)
        return event

    async def until_end(self) -> list[Event]:
        """The events up to the next terminal one."""
        events = [await self.receive()]
        while events[-1]["type"] not in TERMINAL:
            events.append(await self.receive())
        return events

    async def turn(self, **fields: Any) -> Event:
        """Send a create and return its terminal event."""
        await self.send(**fields)
        return (await self.until_end())[-1]

    async def response(self, **fields: Any) -> Event:
        """Send a create that completes; returns the Response object."""
        event = await self.turn(**fields)
        assert event["type"] == "response.completed", event
        response: Event = event["response"]
        return response

    async def refusal(self, **fields: Any) -> Event:
        """Send a create that is refused; returns the whole error frame."""
        event = await self.turn(**fields)
        assert event["type"] == "error", event
        return event


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
def start(stack: AsyncExitStack) -> Callable[..., Awaitable[Simulator]]:
    """Start a simulator: `await start(max_lanes=2, faults=[…])`."""

    async def start(*, faults: tuple[str, ...] = (), **rules: Any) -> Simulator:
        return await stack.enter_async_context(Simulator(Rules(**rules), faults=faults))

    return start


@pytest.fixture
async def http(stack: AsyncExitStack) -> aiohttp.ClientSession:
    """An HTTP client with a key."""
    return await stack.enter_async_context(aiohttp.ClientSession(headers=KEY))


@pytest.fixture
def connect(stack: AsyncExitStack, http: aiohttp.ClientSession) -> Callable[..., Awaitable[Socket]]:
    """Open a WebSocket to a simulator."""

    async def connect(simulator: Simulator, **options: Any) -> Socket:
        options.setdefault("max_msg_size", 0)
        ws = await stack.enter_async_context(http.ws_connect(simulator.ws_url, **options))
        return Socket(ws)

    return connect
