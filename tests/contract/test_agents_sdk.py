"""openai-agents, unmodified: an agent with a tool, streamed and not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from agents import (
    Agent,
    ModelSettings,
    OpenAIResponsesModel,
    RunConfig,
    Runner,
    Tool,
    function_tool,
    set_tracing_disabled,
)
from openai import AsyncOpenAI

from tests.canary import TEXT
from tests.worlds import KEY, World, world

set_tracing_disabled(True)
CALLS = 12


@function_tool
def look(query: str) -> str:
    """Looks something up."""
    return f"nothing about {query}"


@pytest.fixture
async def scene() -> AsyncIterator[World]:
    async with world(continuation="on") as scene:
        yield scene


@pytest.fixture
async def client(scene: World) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=scene.proxy.base_url, api_key=KEY, max_retries=0) as client:
        yield client


def agent_with(client: AsyncOpenAI, canary: str, **settings: Any) -> Agent[Any]:
    """An agent as its documentation builds one; the model calls its tool so often."""
    orders = {"sim.tool_calls": str(CALLS), "sim.reasoning": "encrypted", "canary": canary}
    tools: list[Tool] = [look]
    return Agent(
        name="worker",
        instructions=f"Work. {TEXT}",
        tools=tools,
        model=OpenAIResponsesModel(model="gpt-5.6", openai_client=client),
        model_settings=ModelSettings(metadata=orders, **settings),
    )


def assert_one_socket_and_deltas(scene: World, canary: str) -> None:
    creates = [c for c in scene.seen if c.canary == canary]
    assert len(creates) == CALLS + 1
    assert {c.via for c in creates} == {"ws"}
    assert len({c.connection for c in creates}) == 1
    assert all(c.previous_response_id and c.items == 1 for c in creates[1:])


@pytest.mark.parametrize("store", [None, False], ids=["store absent", "store false"])
async def test_an_agent_runs_its_loop_over_one_socket(
    scene: World, client: AsyncOpenAI, store: bool | None
) -> None:
    agent = agent_with(client, "plain", store=store)
    result = await Runner.run(agent, f"work {TEXT}", max_turns=CALLS + 2)

    assert result.final_output.startswith("items=")
    assert_one_socket_and_deltas(scene, "plain")


async def test_a_streamed_agent_runs_its_loop_over_one_socket(
    scene: World, client: AsyncOpenAI
) -> None:
    result = Runner.run_streamed(agent_with(client, "sse"), f"work {TEXT}", max_turns=CALLS + 2)
    seen = [event.type async for event in result.stream_events()]

    assert "raw_response_event" in seen
    assert result.final_output.startswith("items=")
    assert_one_socket_and_deltas(scene, "sse")


async def test_agents_at_once_get_their_own_answers(scene: World, client: AsyncOpenAI) -> None:
    names = [f"canary-{number}" for number in range(4)]
    config = RunConfig(tracing_disabled=True)
    results = await asyncio.gather(
        *(
            Runner.run(
                agent_with(client, name), f"work {TEXT}", max_turns=CALLS + 2, run_config=config
            )
            for name in names
        )
    )

    for name, result in zip(names, results, strict=True):
        assert f"canary={name} " in result.final_output
        assert_one_socket_and_deltas(scene, name)
