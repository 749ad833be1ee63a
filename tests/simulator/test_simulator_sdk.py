"""Clients we did not write: openai-python over HTTP and over its own WebSocket."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from tests.canary import SECRET

TOOL: Any = {
    "type": "function",
    "name": "get_weather",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "strict": True,
}


@pytest.fixture
async def client(start: Any, stack: Any) -> AsyncOpenAI:
    simulator = await start()
    client = AsyncOpenAI(base_url=simulator.base_url, api_key=SECRET, max_retries=0)
    await stack.enter_async_context(client)
    return client


async def test_a_plain_call_gives_a_typed_response(client: AsyncOpenAI) -> None:
    response = await client.responses.create(model="gpt-5.6", input="hello")

    assert response.status == "completed"
    assert response.output_text.startswith("items=1")
    assert response.usage is not None
    assert response.usage.total_tokens > 0
    assert response._request_id is not None


async def test_a_streamed_call_adds_up_to_the_whole_text(client: AsyncOpenAI) -> None:
    async with client.responses.stream(model="gpt-5.6", input="hello") as stream:
        deltas = [e.delta async for e in stream if e.type == "response.output_text.delta"]
        final = await stream.get_final_response()

    assert "".join(deltas) == final.output_text


async def test_the_synchronous_client_reads_both_forms(start: Any) -> None:
    simulator = await start()

    def calls() -> tuple[str, str]:
        with OpenAI(base_url=simulator.base_url, api_key=SECRET, max_retries=0) as client:
            whole = client.responses.create(model="gpt-5.6", input="hello")
            events = list(client.responses.create(model="gpt-5.6", input="hello", stream=True))
        return whole.id, events[-1].response.id  # type: ignore[union-attr]

    whole, streamed = await asyncio.to_thread(calls)

    assert whole == streamed


async def test_a_tool_loop_over_http_ends_in_text(client: AsyncOpenAI) -> None:
    items: list[Any] = [{"role": "user", "content": "please [sim tool_calls=3]"}]
    for _ in range(3):
        response = await client.responses.create(model="gpt-5.6", input=items, tools=[TOOL])
        (call,) = response.output
        assert call.type == "function_call"
        assert call.name == "get_weather"
        answer = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
        items += [call.model_dump(exclude_none=True), answer]

    last = await client.responses.create(model="gpt-5.6", input=items, tools=[TOOL])

    assert last.output_text.startswith("items=7")


async def test_the_users_words_make_the_model_call_a_tool(client: AsyncOpenAI) -> None:
    response = await client.responses.create(
        model="gpt-5.6", input="Please use the tool.", tools=[TOOL]
    )

    assert [item.type for item in response.output] == ["function_call"]


async def test_structured_output_fits_its_schema(client: AsyncOpenAI) -> None:
    shape: Any = {"type": "json_schema", "name": "w", "schema": TOOL["parameters"], "strict": True}

    response = await client.responses.create(model="gpt-5.6", input="hello", text={"format": shape})

    assert response.output_text.startswith('{"city":"city ')


ERRORS = {
    "rate_limit_exceeded": openai.RateLimitError,
    "server_error": openai.InternalServerError,
    "model_not_found": openai.NotFoundError,
    "conflict": openai.ConflictError,
    "unprocessable": openai.UnprocessableEntityError,
    "unsupported_country": openai.PermissionDeniedError,
    "invalid_prompt": openai.BadRequestError,
}


@pytest.mark.parametrize(("code", "kind"), ERRORS.items(), ids=ERRORS.keys())
async def test_refusals_become_the_sdks_own_errors(
    client: AsyncOpenAI, code: str, kind: type[openai.APIStatusError]
) -> None:
    with pytest.raises(kind) as refused:
        await client.responses.create(
            model="gpt-5.6", input="hello", metadata={"sim.fail": code}, stream=True
        )

    assert refused.value.code == code
    assert refused.value.request_id is not None


async def test_the_websocket_client_chains_and_forks_on_lanes(client: AsyncOpenAI) -> None:
    async with client.responses.connect() as connection:

        async def turn(lane: str, **fields: Any) -> Any:
            create: Any = {"type": "response.create", "model": "gpt-5.6", "stream_id": lane}
            create.update(fields)
            await connection.send(create)
            async for event in connection:
                assert event.stream_id == lane
                if event.type == "error":
                    return event
                if event.type == "response.completed":
                    return event.response
            raise AssertionError("the connection ended")

        root = await turn("main", input="one", store=False)
        fork = await turn("fork", input="two", store=False, previous_response_id=root.id)
        main = await turn("main", input="two", store=False, previous_response_id=root.id)
        stale = await turn("late", input="three", store=False, previous_response_id=root.id)

    assert fork.output == main.output
    assert stale.error.code == "previous_response_not_found"
    assert stale.status == 400


async def test_the_websocket_client_runs_lanes_side_by_side(client: AsyncOpenAI) -> None:
    async with client.responses.connect() as connection:
        for number in range(16):
            await connection.send(
                {
                    "type": "response.create",
                    "model": "gpt-5.6",
                    "input": f"question {number}",
                    "stream_id": f"agent_{number}",
                    "metadata": {"sim.think_ms": "20"},
                }
            )
        ended = set()
        async for event in connection:
            if event.type == "response.completed":
                ended.add(event.stream_id)
            if len(ended) == 16:
                break

    assert ended == {f"agent_{number}" for number in range(16)}


async def test_stored_responses_and_models_are_read_by_the_sdk(client: AsyncOpenAI) -> None:
    created = await client.responses.create(model="gpt-5.6", input="hello")

    shown = await client.responses.retrieve(created.id)
    items = await client.responses.input_items.list(created.id)
    models = await client.models.list()
    await client.responses.delete(created.id)

    assert shown.output_text == created.output_text
    assert len(items.data) == 1
    assert "gpt-5.6" in {model.id for model in models.data}
    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve(created.id)
