"""What a real service costs: prefill, cache, round trips, pace, by the loop's clock."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from wsproxy.simulator.log import Run

LONG = {"role": "user", "content": "word " * 4000}


async def seconds(work: Any) -> float:
    """How long `work` takes on the loop's clock."""
    loop = asyncio.get_running_loop()
    begun = loop.time()
    await work
    return loop.time() - begun


async def test_a_connection_remembers_its_prompts_and_a_new_one_does_not(
    start: Any, connect: Any
) -> None:
    simulator = await start()
    one, other = await connect(simulator), await connect(simulator)
    first = await one.response(input=[LONG])

    chained = await one.response(input="more", previous_response_id=first["id"])
    whole = [LONG, *first["output"], {"role": "user", "content": "more"}]
    again = await one.response(input=whole)
    elsewhere = await other.response(input=whole)

    cached = [
        each["usage"]["input_tokens_details"]["cached_tokens"]
        for each in (first, chained, again, elsewhere)
    ]
    assert cached[0] == cached[3] == 0
    assert cached[1] > 4900
    assert cached[2] >= cached[1]
    assert chained["usage"]["input_tokens"] == elsewhere["usage"]["input_tokens"]


async def test_changed_tools_find_nothing_in_the_cache(start: Any, connect: Any) -> None:
    simulator = await start()
    socket = await connect(simulator)
    await socket.response(input=[LONG])

    await socket.response(input=[LONG], tools=[{"type": "web_search"}])
    await socket.response(input=[LONG], temperature=0.1)

    cached = [run.cached_tokens for run in simulator.log.of(Run)]
    assert cached[1] == 0
    assert cached[2] > 4900


@pytest.mark.parametrize("cached", [True, False])
async def test_http_calls_share_a_cache_only_by_rule(start: Any, http: Any, cached: bool) -> None:
    simulator = await start(http_prompt_cache=cached)
    body = {"model": "gpt-5.6", "input": [LONG]}

    for _ in range(2):
        await (await http.post(simulator.base_url + "/responses", json=body)).read()

    assert (simulator.log.of(Run)[1].cached_tokens > 4900) == cached


COSTS = {
    "round trip": ({"round_trip_s": 0.05}, 0.05),
    "uplink": ({"uplink_bytes_per_s": 400_000.0}, 0.05),
    "prefill": ({"prefill_s_per_token": 0.00001}, 0.05),
    "pace": ({"tokens_per_s": 100.0}, 0.05),
}


@pytest.mark.parametrize(("cost", "least"), COSTS.values(), ids=COSTS.keys())
async def test_a_cost_is_paid_on_both_roads(
    start: Any, connect: Any, http: Any, cost: dict[str, float], least: float
) -> None:
    simulator = await start(**cost, deflate=False)
    socket = await connect(simulator)
    body = {"model": "gpt-5.6", "input": [LONG], "store": False}

    framed = await seconds(socket.response(input=[LONG]))
    posted = await seconds(http.post(simulator.base_url + "/responses", json=body))

    assert least <= framed < least + 1
    assert least <= posted < least + 1


async def test_a_handshake_is_paid_once_a_connection(start: Any, http: Any) -> None:
    simulator = await start(handshake_s=0.1)

    first = await seconds(http.get(simulator.base_url + "/models"))
    second = await seconds(http.get(simulator.base_url + "/models"))

    assert second < 0.1 <= first


async def test_four_thousand_events_a_second_arrive_at_that_rate(start: Any, connect: Any) -> None:
    socket = await connect(await start())
    orders = {"sim.text_tokens": "2000", "sim.tokens_per_s": "4000"}

    took = await seconds(socket.response(input="x", metadata=orders))

    assert len(socket.seen) > 2000
    assert 0.45 <= took < 3
