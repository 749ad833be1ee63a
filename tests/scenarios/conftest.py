"""One world a test, its rules and settings chosen by the test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from tests.worlds import World, world
from wsproxy.simulator import Rules

Start = Callable[..., Awaitable[World]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Start a world: `await start(Rules(…), lanes="on", …)`."""
    async with AsyncExitStack() as stack:

        async def start(rules: Rules | None = None, **settings: Any) -> World:
            return await stack.enter_async_context(world(rules, **settings))

        yield start


@pytest.fixture
async def scene(start: Start) -> World:
    """An upstream whose lanes and chains are known, as api.openai.com's are."""
    return await start(lanes="on", continuation="on")
