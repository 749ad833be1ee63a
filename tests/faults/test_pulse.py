"""Whether the event loop keeps up: only a stall of our own making sheds new turns (F47)."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable

import pytest

from tests.faults.scene import stage
from tests.worlds import eventually
from wsproxy.core.events import LoadChanged
from wsproxy.pulse import STALL_S, Pulse


def busy() -> Callable[[], float]:
    """A processor clock that goes as the wall clock does."""
    return time.monotonic


def idle() -> Callable[[], float]:
    """A processor clock that stands still: the process was stopped."""
    return lambda: 0.0


@pytest.mark.parametrize(
    ("clock", "told"), [(busy, [True, False]), (idle, [])], ids=["our own work", "stopped"]
)
async def test_a_late_beat_is_told_if_we_were_the_reason(
    clock: Callable[[], Callable[[], float]], told: list[bool]
) -> None:
    seen: list[bool] = []
    pulse = Pulse(seen.append, clock())
    pulse.start()
    await asyncio.sleep(0)
    time.sleep(STALL_S + 0.5)  # noqa: ASYNC251 - to stall the loop is the point
    for _ in itertools.repeat(None, 3):
        await asyncio.sleep(0)
    pulse.stop()

    assert seen == told


async def test_an_overloaded_proxy_refuses_new_turns_and_comes_back() -> None:
    async with stage(lanes="on") as scene:
        driver = scene.proxy.driver
        driver._handle(LoadChanged(True))
        refused = await scene.turn("hello")
        driver._handle(LoadChanged(False))
        answered = await scene.turn("hello")

        assert (refused.status, refused.json()["error"]["code"]) == (503, "proxy_overloaded")
        assert refused.headers["retry-after"] == "1"
        assert refused.headers["x-should-retry"] == "true"
        assert answered.status == 200
        await eventually(lambda: driver._pulse._timer is None, "it beats for nobody")


async def test_a_loop_that_stalls_sheds_the_next_turn_and_not_those_that_run() -> None:
    async with stage("mid_stream:silence", lanes="on", continuation="off") as scene:
        running = asyncio.create_task(scene.turn("hello", stream=True))
        await eventually(lambda: any(t.phase.name == "STARTED" for t in scene.core.turns.values()))
        used_up = time.process_time() + 2 * STALL_S
        while time.process_time() < used_up:
            pass
        await eventually(lambda: scene.core._board.is_overloaded)
        refused = await scene.turn("hello")
        await eventually(lambda: not scene.core._board.is_overloaded)
        answered = await scene.turn("hello")

        assert (refused.status, answered.status) == (503, 200)
        assert not running.done()
        scene.link.reset()
        await running
        await scene.quiet()
