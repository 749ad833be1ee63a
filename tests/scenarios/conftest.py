"""One world a test, its rules and settings chosen by the test; its journal must replay."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.worlds import World, world
from wsproxy.simulator import Rules
from wsproxy.trace.replay import read_runs, replay

Start = Callable[..., Awaitable[World]]


@pytest.fixture(autouse=True)
def _journal_replays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What the core was told in a scenario, told again to a fresh core: the same commands."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    yield
    folder = tmp_path / "wsproxy" / "traces"
    runs = read_runs(folder) if folder.exists() else {}
    assert [found for run in runs if (found := replay(run, runs[run])).difference] == []


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
