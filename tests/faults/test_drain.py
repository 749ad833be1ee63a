"""Stopping a real process: what fits is finished, the rest is told; and nothing needs the disk."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import AsyncIterator

import aiohttp
import pytest

from tests.canary import SECRET, WATCH
from tests.faults.process import Serving, serving
from tests.faults.scene import port_of
from tests.worlds import KEY, Answer, Item, ask, eventually, http_client, user
from wsproxy.simulator import Simulator
from wsproxy.simulator.log import Run

AGENTS = 64


@pytest.fixture
async def sim() -> AsyncIterator[Simulator]:
    async with Simulator() as simulator:
        yield simulator


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with http_client() as session:
        yield session


async def turn(
    client: aiohttp.ClientSession,
    base_url: str,
    text: str,
    *,
    stream: bool = True,
    headers: dict[str, str] | None = None,
    **metadata: str,
) -> Answer:
    body = aiohttp.JsonPayload(
        {
            "model": "sim",
            "store": False,
            "stream": stream,
            "input": [user(text)],
            "metadata": {"canary": text, **{f"sim.{k}": v for k, v in metadata.items()}},
        }
    )
    return await ask(client, base_url, body.decode().encode(), headers=headers)


def has_run(sim: Simulator, count: int) -> bool:
    return len(sim.log.of(Run)) >= count


async def is_refused(base_url: str) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port_of(base_url))
    except ConnectionError:
        return True
    writer.close()
    return False


async def until_refused(proxy: Serving) -> None:
    """Wait until it has stopped listening."""
    for _ in range(500):
        if await is_refused(proxy.base_url):
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it goes on listening")


# ── What fits ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("seed", range(5))
async def test_no_turn_that_fits_the_deadline_is_cut(
    sim: Simulator, client: aiohttp.ClientSession, seed: int
) -> None:
    dice = random.Random(seed)
    async with serving(sim.base_url) as proxy:
        turns = [
            asyncio.create_task(
                turn(
                    client,
                    proxy.base_url,
                    f"agent {number}",
                    stream=dice.random() < 0.6,
                    # every eighth goes over HTTPS, which the core does not see running
                    headers={"session-id": f"s{number % 5}"}
                    | ({"idempotency-key": str(number)} if number % 8 == 0 else {}),
                    think_ms=str(dice.randrange(400, 1500)),
                )
            )
            for number in range(AGENTS)
        ]
        await eventually(lambda: has_run(sim, AGENTS), "not all turns run")
        await proxy.signal(signal.SIGTERM)
        await until_refused(proxy)
        answers = await asyncio.gather(*turns)

        assert [a.status for a in answers] == [200] * AGENTS
        assert not [a for a in answers if a.is_cut]
        assert {a.response()["status"] for a in answers} == {"completed"}
        assert {"full", "http"} <= {a.route for a in answers}
        assert await proxy.exit_code() == 0
    assert set(sim.log.runs().values()) == {1}


async def test_an_answer_that_is_passed_through_is_finished_too(
    sim: Simulator, client: aiohttp.ClientSession
) -> None:
    async with (
        serving(sim.base_url) as proxy,
        client.get(
            f"{proxy.base_url}/sse/ticks?n=40", headers={"Authorization": f"Bearer {KEY}"}
        ) as ticks,
    ):
        await proxy.signal(signal.SIGTERM)
        await until_refused(proxy)
        body = await ticks.content.read()

        assert body.count(b"data: tick") == 40
        assert await proxy.exit_code() == 0


async def test_an_idle_proxy_stops_at_once(sim: Simulator, client: aiohttp.ClientSession) -> None:
    async with serving(sim.base_url) as proxy:
        answer = await turn(client, proxy.base_url, "kept alive")
        started = time.monotonic()
        await proxy.signal(signal.SIGTERM)

        assert await proxy.exit_code() == 0
        assert time.monotonic() - started < 2.0
        assert answer.status == 200


# ── What does not fit ────────────────────────────────────────────────────────────────────────


async def test_turns_that_do_not_fit_are_told_what_the_table_says(
    sim: Simulator, client: aiohttp.ClientSession
) -> None:
    options = ("--drain-timeout", "0.5", "--lanes", "on", "--continuation", "off")
    async with serving(sim.base_url, *options) as proxy:
        sim.faults.order("mid_stream:silence")
        started = asyncio.create_task(turn(client, proxy.base_url, "started"))
        await eventually(lambda: has_run(sim, 1))
        sim.faults.order("before_first_event:silence:2", "handshake:hang")
        sent = asyncio.create_task(turn(client, proxy.base_url, "sent"))
        await eventually(lambda: has_run(sim, 2))
        elsewhere = {"session-id": "elsewhere"}
        admitted = asyncio.create_task(turn(client, proxy.base_url, "admitted", headers=elsewhere))
        await eventually(lambda: len(sim.log.websockets()) >= 2 and len(sim.faults) == 1)
        await proxy.signal(signal.SIGTERM)
        answers = [await each for each in (started, sent, admitted)]

        assert await proxy.exit_code() == 75
    assert answers[0].is_cut
    assert answers[0].events()[-1]["code"] == "proxy_draining"
    assert (answers[1].status, answers[1].json()["error"]["code"]) == (
        503,
        "upstream_outcome_unknown",
    )
    assert answers[1].headers["x-wsproxy-outcome"] == "unknown"
    assert (answers[2].status, answers[2].json()["error"]["code"]) == (503, "proxy_draining")
    assert answers[2].headers["retry-after"] == "1"
    assert answers[2].headers["x-should-retry"] == "true"


async def test_a_request_that_comes_whole_during_the_drain_is_sent_elsewhere(
    sim: Simulator, client: aiohttp.ClientSession
) -> None:
    async with serving(sim.base_url) as proxy:
        sim.faults.order("before_first_event:silence")
        running = asyncio.create_task(turn(client, proxy.base_url, "running"))
        await eventually(lambda: has_run(sim, 1))
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(proxy.base_url))
        writer.write(
            b"POST /v1/responses HTTP/1.1\r\nHost: localhost:%d\r\nAuthorization: Bearer %b\r\n"
            b"Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{"
            % (port_of(proxy.base_url), SECRET.encode())
        )
        await asyncio.sleep(0.2)  # nothing to see it by: the head has arrived, the body has not
        await proxy.signal(signal.SIGTERM)
        await until_refused(proxy)
        writer.write(b"}")
        async with asyncio.timeout(5):
            answer = (await reader.read()).lower()
        WATCH.look("an error of our own", answer)
        writer.close()
        running.cancel()

        assert answer.startswith(b"http/1.1 503 ")
        assert b"\r\nretry-after: 1\r\n" in answer
        assert b"\r\nx-should-retry: true\r\n" in answer
        assert b"\r\nconnection: close\r\n" in answer
        assert await proxy.exit_code() == 0  # the silent turn's client has left


async def test_a_second_signal_means_now(sim: Simulator, client: aiohttp.ClientSession) -> None:
    async with serving(sim.base_url) as proxy:
        sim.faults.order("mid_stream:silence")
        running = asyncio.create_task(turn(client, proxy.base_url, "running"))
        await eventually(lambda: has_run(sim, 1))
        await proxy.signal(signal.SIGTERM)
        await until_refused(proxy)
        assert not running.done()
        await proxy.signal(signal.SIGTERM)
        started = time.monotonic()

        assert await proxy.exit_code() == 75
        assert time.monotonic() - started < 4.0
        assert (await running).events()[-1]["code"] == "proxy_draining"


async def test_ctrl_c_at_a_terminal_waits_for_seconds_only(
    sim: Simulator, client: aiohttp.ClientSession
) -> None:
    ours, theirs = os.openpty()
    options = ("--set", "drain_timeout_tty_s=0.3")
    try:
        async with serving(sim.base_url, *options, stdin=theirs) as proxy:
            sim.faults.order("mid_stream:silence")
            running = asyncio.create_task(turn(client, proxy.base_url, "running"))
            await eventually(lambda: has_run(sim, 1))
            await proxy.signal(signal.SIGINT)

            assert await proxy.exit_code() == 75
            assert (await running).is_cut
    finally:
        os.close(ours)
        os.close(theirs)


# ── kill -9 ──────────────────────────────────────────────────────────────────────────────────

KILLS = 5


@pytest.mark.parametrize("seed", range(4))
async def test_after_a_kill_at_any_instant_the_next_turn_is_right(
    sim: Simulator, client: aiohttp.ClientSession, seed: int
) -> None:
    dice = random.Random(seed)
    items: list[Item] = []
    port = 0
    async with Simulator() as oracle:
        for number in range(KILLS):
            items = [*items, user(f"question {number}")]
            expected = (await talk(client, oracle.base_url, items)).response()["output"]
            async with serving(sim.base_url, port=port) as proxy:
                port = port_of(proxy.base_url)
                answer = await talk(client, proxy.base_url, items)
                assert answer.response()["output"] == expected
                items += expected
                doomed = asyncio.create_task(talk(client, proxy.base_url, [*items, user("doomed")]))
                await asyncio.sleep(dice.uniform(0, 0.08))
                await proxy.signal(signal.SIGKILL)
                assert await proxy.exit_code() == -signal.SIGKILL
                await asyncio.wait({doomed})
                assert doomed.exception() is not None or doomed.result().status == 200


async def talk(client: aiohttp.ClientSession, base_url: str, items: list[Item]) -> Answer:
    payload = {"model": "sim", "store": False, "stream": True, "input": items}
    slow = {**payload, "metadata": {"sim.think_ms": "30"}}
    return await ask(client, base_url, aiohttp.JsonPayload(slow).decode().encode())
