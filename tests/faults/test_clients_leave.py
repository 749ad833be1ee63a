"""Clients that go away through a link of their own: seen at once, and nothing of them is left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from tests.faults.scene import Stage, meet, port_of, stage
from tests.links.fault_link import FaultLink
from tests.worlds import eventually
from wsproxy.simulator.log import Closed, Ended

THINKS = {"metadata": {"sim.think_ms": "3000"}}
LEAVING = pytest.mark.parametrize(
    "leave", [FaultLink.reset, FaultLink.end_toward_target], ids=["reset", "half-close"]
)


@asynccontextmanager
async def staged() -> AsyncIterator[tuple[Stage, FaultLink, str]]:
    """A stage, and a second way into its proxy that can break."""
    async with FaultLink() as link:
        host = f"127.0.0.1:{link.port}"
        async with stage(lanes="on", continuation="off", allowed_hosts=(host,)) as scene:
            link.target_port = port_of(scene.proxy.base_url)
            yield scene, link, f"http://{host}/v1"


@LEAVING
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
async def test_a_client_that_leaves_takes_its_lonely_connection_with_it(
    leave: Callable[[FaultLink], object], stream: bool
) -> None:
    async with staged() as (scene, link, base_url):
        turn = asyncio.create_task(meet(base_url, "c", stream=stream, **THINKS))
        await eventually(lambda: any(t.phase.name == "STARTED" for t in scene.core.turns.values()))
        leave(link)
        await eventually(lambda: [e.outcome for e in scene.sim.log.of(Ended)] == ["abandoned"])
        await scene.quiet()

        assert (await turn).error is not None
        assert not scene.core.pool.connections
        assert scene.generations("c") == 1


@LEAVING
async def test_a_client_that_leaves_does_not_disturb_its_siblings(
    leave: Callable[[FaultLink], object],
) -> None:
    async with staged() as (scene, link, base_url):
        await meet(scene.proxy.base_url, "warm", stream=True)
        staying = asyncio.create_task(
            meet(scene.proxy.base_url, "stays", stream=True, metadata={"sim.think_ms": "600"})
        )
        leaving = asyncio.create_task(
            meet(base_url, "leaves", stream=True, metadata={"sim.think_ms": "300"})
        )
        await eventually(lambda: scene.generations("stays") and scene.generations("leaves"))
        await eventually(lambda: link.open_count == 1)
        leave(link)
        await eventually(lambda: scene.proxy.driver.running_count == 1)

        assert (await staying).text.startswith("items=1")
        assert (await leaving).error is not None
        await scene.quiet()
        assert not scene.sim.log.of(Closed), "the connection lives on"
        assert (await meet(scene.proxy.base_url, "next", stream=True)).error is None
