"""Clients we did not write, unmodified: only their base URL points at the proxy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from tests.canary import TEXT, secret
from tests.worlds import KEY, TOOL, World, answers, world
from wsproxy.simulator import Rules, Simulator
from wsproxy.simulator.log import HttpRequest

CALLS = 20
HELLO = f"hello {TEXT}"
#: Members that an SDK would not take for an answer's own: each test asks in the same way.
ASK: dict[str, Any] = {"model": "gpt-5.6", "tools": [TOOL]}


@pytest.fixture
async def scene() -> AsyncIterator[World]:
    """An upstream whose chains are known, as api.openai.com's are; its lanes are found out."""
    async with world(continuation="on") as scene:
        yield scene


@pytest.fixture
async def client(scene: World) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=scene.proxy.base_url, api_key=KEY, max_retries=0) as client:
        yield client


def assert_one_socket_and_deltas(scene: World) -> None:
    """One connection carried the loop; from the second turn on it was sent as deltas."""
    creates = scene.seen
    assert len({c.connection for c in creates}) == 1
    assert [c.via for c in creates] == ["ws"] * len(creates)
    assert all(c.previous_response_id for c in creates[1:])
    assert all(c.items == 1 for c in creates[1:]), "a delta holds the new items and nothing else"
    assert [r.target for r in scene.sim.log.of(HttpRequest)] == []


def order(calls: int, canary: str = "c") -> dict[str, str]:
    """Metadata that makes the model call a tool so often."""
    return {"sim.tool_calls": str(calls), "sim.reasoning": "encrypted", "canary": canary}


async def loop_of(client: AsyncOpenAI, canary: str, calls: int = CALLS, **more: Any) -> list[str]:
    """An agent loop as every tutorial writes it; the texts of its answers."""
    items: list[Any] = [{"role": "user", "content": f"work on {canary} {TEXT}"}]
    said: list[str] = []
    for _ in range(calls + 1):
        response = await client.responses.create(
            input=items, metadata=order(calls, canary), **ASK, **more
        )
        items += response.output
        outputs = [item.model_dump() for item in response.output]
        said.append(response.output_text)
        items += answers(outputs)
    assert said[-1].startswith("items=")
    return said


# ── One call ─────────────────────────────────────────────────────────────────────────────────


async def test_a_plain_call_gives_the_object_that_a_direct_call_gives(
    scene: World, client: AsyncOpenAI
) -> None:
    async with (
        Simulator(Rules()) as direct,
        AsyncOpenAI(base_url=direct.base_url, api_key=KEY) as other,
    ):
        expected = await other.responses.create(model="gpt-5.6", input=HELLO)
    response = await client.responses.create(model="gpt-5.6", input=HELLO)

    left_out = {"billing"}
    assert response.model_dump(exclude=left_out) == expected.model_dump(exclude=left_out)
    assert [c.via for c in scene.seen] == ["ws"]


async def test_a_streamed_call_gives_the_events_that_a_direct_call_gives(
    client: AsyncOpenAI,
) -> None:
    ask: dict[str, Any] = {"model": "gpt-5.6", "input": HELLO, "stream": True}
    async with (
        Simulator(Rules()) as direct,
        AsyncOpenAI(base_url=direct.base_url, api_key=KEY) as other,
    ):
        expected = [event async for event in await other.responses.create(**ask)]

    assert [event async for event in await client.responses.create(**ask)] == expected


async def test_the_stream_context_adds_up_to_the_whole_text(client: AsyncOpenAI) -> None:
    async with client.responses.stream(model="gpt-5.6", input=HELLO) as stream:
        deltas = [e.delta async for e in stream if e.type == "response.output_text.delta"]
        final = await stream.get_final_response()

    assert "".join(deltas) == final.output_text
    assert final.output_text.startswith("items=1")


async def test_the_synchronous_client_reads_both_forms(scene: World) -> None:
    def calls() -> tuple[str, str]:
        with OpenAI(base_url=scene.proxy.base_url, api_key=KEY, max_retries=0) as client:
            whole = client.responses.create(model="gpt-5.6", input=HELLO)
            events = list(client.responses.create(model="gpt-5.6", input=HELLO, stream=True))
        return whole.id, events[-1].response.id  # type: ignore[union-attr]

    whole, streamed = await asyncio.to_thread(calls)

    assert whole == streamed
    assert {c.via for c in scene.seen} == {"ws"}


@pytest.mark.parametrize(
    ("fail", "error"),
    [
        ("rate_limit_exceeded", openai.RateLimitError),
        ("server_error", openai.InternalServerError),
        ("model_not_found", openai.NotFoundError),
        ("invalid_prompt", openai.BadRequestError),
    ],
)
@pytest.mark.parametrize("stream", [False, True], ids=["json", "sse"])
async def test_a_refusal_is_the_exception_that_the_sdk_knows(
    client: AsyncOpenAI, fail: str, error: type[openai.APIStatusError], stream: bool
) -> None:
    with pytest.raises(error) as caught:
        await client.responses.create(
            model="gpt-5.6", input=HELLO, stream=stream, metadata={"sim.fail": fail}
        )

    assert caught.value.code == fail
    assert caught.value.response.headers.get("x-wsproxy-turn")


async def test_the_sdk_asks_again_by_itself_after_an_overload(scene: World) -> None:
    scene.sim.faults.order("before_first_event:error=server_is_overloaded:1")
    async with AsyncOpenAI(base_url=scene.proxy.base_url, api_key=KEY, max_retries=1) as client:
        response = await client.responses.create(model="gpt-5.6", input=HELLO)

    assert response.status == "completed"
    assert [c.via for c in scene.seen] == ["ws", "ws"]


# ── Loops ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("store", [None, False], ids=["store absent", "store false"])
async def test_a_tool_loop_runs_over_one_socket_as_deltas(
    scene: World, client: AsyncOpenAI, store: bool | None
) -> None:
    more: dict[str, Any] = {}
    if store is not None:
        more = {"store": store, "include": ["reasoning.encrypted_content"]}
    await loop_of(client, "one", **more)

    assert len(scene.seen) == CALLS + 1
    assert_one_socket_and_deltas(scene)


async def test_a_loop_against_an_unknown_upstream_becomes_deltas_once_chains_are_proven() -> None:
    async with (
        world() as scene,
        AsyncOpenAI(base_url=scene.proxy.base_url, api_key=KEY, max_retries=0) as client,
    ):
        items: list[Any] = [{"role": "user", "content": f"work {TEXT}"}]
        for _ in range(6):
            response = await client.responses.create(input=items, metadata=order(CALLS), **ASK)
            items += response.output
            items += answers([item.model_dump() for item in response.output])
            await scene.chains_told()

    assert [c.previous_response_id is not None for c in scene.seen] == [False] + [True] * 5


async def test_a_streamed_tool_loop_runs_over_one_socket_as_deltas(
    scene: World, client: AsyncOpenAI
) -> None:
    items: list[Any] = [{"role": "user", "content": f"work {TEXT}"}]
    texts: list[str] = []
    for _ in range(CALLS + 1):
        async with client.responses.stream(
            input=items, metadata=order(CALLS), store=False, **ASK
        ) as stream:
            response = await stream.get_final_response()
        items += response.output
        items += answers([item.model_dump() for item in response.output])
        texts.append(response.output_text)

    assert texts[-1].startswith("items=")
    assert_one_socket_and_deltas(scene)


async def test_the_synchronous_client_loops_over_one_socket(scene: World) -> None:
    def loop() -> str:
        items: list[Any] = [{"role": "user", "content": f"work {TEXT}"}]
        text = ""
        with OpenAI(base_url=scene.proxy.base_url, api_key=KEY, max_retries=0) as client:
            for _ in range(CALLS + 1):
                response = client.responses.create(input=items, metadata=order(CALLS), **ASK)
                items += response.output
                items += answers([item.model_dump() for item in response.output])
                text = response.output_text
        return text

    assert (await asyncio.to_thread(loop)).startswith("items=")
    assert_one_socket_and_deltas(scene)


async def test_eight_loops_under_one_key_share_a_socket_and_never_cross(
    scene: World, client: AsyncOpenAI
) -> None:
    names = [f"canary-{number}" for number in range(8)]
    said = await asyncio.gather(*(loop_of(client, name, calls=8, store=False) for name in names))

    for name, texts in zip(names, said, strict=True):
        assert f"canary={name} " in texts[-1]
    creates = scene.seen
    assert len(creates) == 8 * 9
    assert len({c.lane for c in creates}) > 1, "independent loops run on lanes of their own"
    assert {c.via for c in creates} == {"ws"}
    assert len({c.connection for c in creates}) == 1
    late = [c for name in names for c in [c for c in creates if c.canary == name][1:]]
    assert all(c.previous_response_id for c in late)


async def test_two_keys_of_one_program_never_share_a_socket(scene: World) -> None:
    base_url = scene.proxy.base_url
    async with (
        AsyncOpenAI(base_url=base_url, api_key=secret("alpha")) as first,
        AsyncOpenAI(base_url=base_url, api_key=secret("beta")) as second,
    ):
        await asyncio.gather(loop_of(first, "alpha", calls=4), loop_of(second, "beta", calls=4))

    keys = {opened.connection: opened.authorization for opened in scene.sim.log.websockets()}
    for create in scene.seen:
        assert keys[create.connection] == f"Bearer {secret(create.canary)}"


# ── Beside turns ─────────────────────────────────────────────────────────────────────────────


async def test_models_and_stored_responses_pass_through(client: AsyncOpenAI) -> None:
    models = await client.models.list()
    response = await client.responses.create(model="gpt-5.6", input=HELLO)
    found = await client.responses.retrieve(response.id)

    assert "gpt-5.6" in {model.id for model in models.data}
    assert found.output_text == response.output_text


async def test_a_client_that_chains_by_itself_stays_on_the_websocket(
    scene: World, client: AsyncOpenAI
) -> None:
    first = await client.responses.create(model="gpt-5.6", input=f"one {TEXT}")
    second = await client.responses.create(
        model="gpt-5.6", input=f"two {TEXT}", previous_response_id=first.id
    )

    assert second.previous_response_id == first.id
    assert second.output_text.startswith("items=3")
    assert {c.via for c in scene.seen} == {"ws"}


async def test_a_background_response_goes_over_http_and_can_be_polled(
    scene: World, client: AsyncOpenAI
) -> None:
    response = await client.responses.create(model="gpt-5.6", input=HELLO, background=True)
    for _ in range(100):
        if response.status == "completed":
            break
        response = await client.responses.retrieve(response.id)

    assert response.status == "completed"
    assert [c.via for c in scene.seen] == ["http"]
