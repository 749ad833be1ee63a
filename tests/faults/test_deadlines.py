"""Every wait has an end, and it is the table that says which; with deadlines made short."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.faults.scene import Met, Stage, meet, stage
from tests.worlds import eventually
from wsproxy.core.multiplex.connection import State
from wsproxy.simulator import Rules
from wsproxy.simulator.log import HttpRequest

STREAMS = pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
#: The longest that anything here may take beyond the deadline that it is about.
SLACK_S = 2.0


async def timed(scene: Stage, canary: str, *, stream: bool = True) -> tuple[Met, float]:
    started = time.monotonic()
    met = await meet(scene.proxy.base_url, canary, stream=stream)
    return met, time.monotonic() - started


# ── Getting a connection ─────────────────────────────────────────────────────────────────────


@STREAMS
async def test_a_handshake_that_hangs_is_waited_for_so_long_and_no_longer(stream: bool) -> None:
    async with stage("handshake:hang:-1", handshake_wait_s=0.4) as scene:
        met, took_s = await timed(scene, "c", stream=stream)

        assert met.headers["x-wsproxy-route"] == "http; reason=no_websocket"
        assert 0.4 <= took_s < 0.4 + SLACK_S
        assert scene.generations("c") == 1
        assert [c.state for c in scene.core.pool.connections] == [State.DIALLING], "it goes on"


async def test_a_dial_that_outlived_its_turn_serves_the_next() -> None:
    async with stage(rules=Rules(handshake_s=0.3), handshake_wait_s=0.1) as scene:
        first, _ = await timed(scene, "a")
        await eventually(lambda: any(c.is_open for c in scene.core.pool.connections))
        second, _ = await timed(scene, "b")

        assert first.headers["x-wsproxy-route"] == "http; reason=no_websocket"
        assert second.headers["x-wsproxy-route"].startswith("full")


async def test_a_dial_ends_by_its_own_deadline() -> None:
    settings = {"handshake_wait_s": 0.1, "dial_timeout_s": 0.4}
    async with stage("handshake:hang:-1", **settings) as scene:
        await timed(scene, "c")
        await eventually(lambda: not scene.core.pool.connections, scene.core)


async def test_a_full_pool_is_waited_for_and_then_https_is_taken() -> None:
    settings = {"max_connections": 1, "max_in_flight_per_connection": 1, "queue_wait_s": 0.2}
    async with stage("mid_stream:silence", lanes="on", continuation="off", **settings) as scene:
        running = asyncio.create_task(meet(scene.proxy.base_url, "long", stream=True))
        await eventually(lambda: scene.generations("long"))
        met, took_s = await timed(scene, "c")

        assert met.headers["x-wsproxy-route"] == "http; reason=busy"
        assert 0.2 <= took_s < 0.2 + SLACK_S
        scene.link.reset()
        assert (await running).code == "upstream_disconnected"
        await scene.quiet()


# ── The answer ───────────────────────────────────────────────────────────────────────────────


@STREAMS
@pytest.mark.parametrize("order", ["silence", "freeze"])
async def test_no_first_event_in_time_is_a_504_of_unknown_outcome(order: str, stream: bool) -> None:
    async with stage(f"before_first_event:{order}", first_event_timeout_s=0.4) as scene:
        met, took_s = await timed(scene, "c", stream=stream)

        assert (met.status, met.code) == (504, "upstream_outcome_unknown")
        assert met.headers["x-wsproxy-outcome"] == "unknown"
        assert 0.4 <= took_s < 0.4 + SLACK_S
        met, _ = await timed(scene, "next")
        assert met.error is None
        assert scene.generations("c") == 1


@pytest.mark.parametrize("order", ["silence", "freeze"])
async def test_silence_between_two_events_breaks_the_stream(order: str) -> None:
    async with stage(f"mid_stream:{order}", event_idle_timeout_s=0.4) as scene:
        met, took_s = await timed(scene, "c")

        assert met.events[-1].code == "upstream_timeout"
        assert met.kind == "APIConnectionError"
        assert 0.4 <= took_s < 0.4 + SLACK_S
        met, _ = await timed(scene, "next")
        assert met.error is None


async def test_silence_in_an_answer_in_one_piece_is_a_502() -> None:
    async with stage("mid_stream:silence", event_idle_timeout_s=0.3) as scene:
        met, _ = await timed(scene, "c", stream=False)

        assert (met.status, met.code) == (502, "upstream_timeout")
        assert met.headers["x-wsproxy-outcome"] == "started"


@pytest.mark.parametrize("answers_pings", [True, False], ids=["pongs", "no pongs"])
async def test_an_upstream_that_thinks_is_left_alone_until_its_deadline(
    answers_pings: bool,
) -> None:
    settings = {"ping_busy_s": 0.1, "ping_idle_s": 0.1, "probe_after_s": 0.1, "probe_wait_s": 0.1}
    rules = Rules(answer_pings=answers_pings)
    async with stage(rules=rules, tcp_user_timeout_s=1.0, continuation="off", **settings) as scene:
        think = {"metadata": {"sim.think_ms": "2000"}}
        met = await meet(scene.proxy.base_url, "c", stream=True, **think)

        assert met.text.startswith("items=1")
        assert (met.requests, scene.generations("c")) == (1, 1)


# ── Probes ───────────────────────────────────────────────────────────────────────────────────


async def test_after_idleness_the_road_is_proven_before_it_is_used() -> None:
    settings = {"probe_after_s": 0.2, "probe_wait_s": 0.3, "continuation": "off"}
    async with stage(lanes="on", **settings) as scene:
        await timed(scene, "a")
        await asyncio.sleep(0.3)
        met, _ = await timed(scene, "b")

        assert met.headers["x-wsproxy-route"].startswith("full")
        assert len(scene.sim.log.websockets()) == 1, "the same connection"


async def test_a_road_that_does_not_prove_itself_is_not_used() -> None:
    settings = {"probe_after_s": 0.2, "probe_wait_s": 0.3, "continuation": "off"}
    async with stage(lanes="on", **settings) as scene:
        await timed(scene, "a")
        old = scene.core.pool.connections[0].id
        scene.link.black_hole()
        await asyncio.sleep(0.3)
        turn = asyncio.create_task(timed(scene, "b"))
        await eventually(lambda: scene.core.pool.get(old) is None, scene.core)
        scene.link.black_hole(False)
        met, took_s = await turn

        assert met.error is None
        assert scene.generations("b") == 1
        assert took_s < 0.3 + SLACK_S


# ── "No WebSocket" and its healing ───────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("status", "setting"), [(403, "no_websocket_key_s"), (404, "no_websocket_url_s")]
)
async def test_no_websocket_is_remembered_and_heals(status: int, setting: str) -> None:
    async with stage(f"handshake:status={status}", **{setting: 0.8}) as scene:
        for canary in "abc":
            met, _ = await timed(scene, canary)
            assert met.headers["x-wsproxy-route"] == "http; reason=no_websocket"
        assert len(scene.sim.log.websockets()) == 1, "nobody dials while it is remembered"
        await asyncio.sleep(0.8)
        await timed(scene, "d")  # behind this turn's back a dial is made
        await eventually(lambda: any(c.is_open for c in scene.core.pool.connections))
        met, _ = await timed(scene, "e")

        assert met.headers["x-wsproxy-route"].startswith("full")


async def test_an_upstream_that_is_down_is_dialled_ever_more_rarely() -> None:
    async with stage("handshake:status=503:-1") as scene:
        started = time.monotonic()
        while time.monotonic() - started < 2.5:
            met, _ = await timed(scene, "c")
            assert met.headers["x-wsproxy-route"] == "http; reason=no_websocket"
        assert 1 <= len(scene.sim.log.websockets()) <= 3


async def test_many_connections_lost_at_once_are_not_dialled_again_at_once() -> None:
    sessions = [f"s{number}" for number in range(8)]
    async with stage(lanes="on", continuation="off") as scene:

        async def ask_all() -> list[int]:
            asks = [scene.turn("hello", headers={"session-id": name}) for name in sessions]
            return [answer.status for answer in await asyncio.gather(*asks)]

        assert await ask_all() == [200] * 8
        await eventually(lambda: scene.link.open_count == 8)
        scene.link.dials.clear()
        assert scene.link.reset() == 8
        await eventually(lambda: not scene.core.pool.connections)

        assert await ask_all() == [200] * 8
        is_over_http = sum(r.target == "/v1/responses" for r in scene.sim.log.of(HttpRequest))
        assert scene.link.most_dials_within(1.0) - is_over_http <= 3, "two a second, and the first"
