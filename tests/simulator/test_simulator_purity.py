"""The heart of the oracle: equal conversations read the same, whatever road they took."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

TOOLS = [
    {
        "type": "function",
        "name": "shell",
        "parameters": {
            "type": "object",
            "properties": {"command": {"type": "array", "items": {"type": "string"}}},
            "required": ["command"],
        },
    },
    {"type": "custom", "name": "apply_patch"},
]
KINDS = {
    "text": {},
    "long text": {"sim.text_tokens": "50"},
    "tools": {"sim.tool_calls": "4", "sim.parallel": "2"},
    "custom tools": {"sim.tool_calls": "2", "sim.custom_tool": "1"},
    "reasoning": {"sim.reasoning": "encrypted", "sim.tool_calls": "2"},
    "hosted": {"sim.items": "web_search_call,commentary,image_generation_call,refusal"},
}
ANSWERED = (
    "function_call custom_tool_call computer_call local_shell_call shell_call apply_patch_call "
    "tool_search_call"
)
KINDS |= {kind: {"sim.items": kind} for kind in [*ANSWERED.split()[2:], "mcp_approval_request"]}


def answers_to(response: dict[str, Any]) -> list[dict[str, Any]]:
    """What a client adds after a response: outputs of its calls, else another question."""
    answers = []
    for item in response["output"]:
        kind = item["type"]
        if kind == "mcp_approval_request":
            approval = {"approval_request_id": item["id"], "approve": True}
            answers.append({"type": "mcp_approval_response", **approval})
        elif kind in ANSWERED.split():
            output = {"call_id": item["call_id"], "output": "done"}
            answers.append({"type": kind.replace("search_call", "search") + "_output", **output})
    return answers or [{"role": "user", "content": "and then?"}]


def respelled(item: dict[str, Any], dice: random.Random) -> dict[str, Any]:
    """One of the spellings that clients were seen to echo (protocol.md §7.3)."""
    droppable = {"status"} if item["type"] == "mcp_approval_request" else {"id", "status"}
    echo = {k: v for k, v in item.items() if k not in droppable or dice.random() < 0.5}
    if item["type"] == "function_call":
        echo["arguments"] = json.dumps(json.loads(item["arguments"]), indent=dice.choice([None, 1]))
    if "annotations" in str(item) and dice.random() < 0.5:
        echo["content"] = item["content"][0]["text"]
    if item["type"] == "reasoning":
        echo["content"] = dice.choice([None, []])
    return echo


def comparable(events: list[dict[str, Any]]) -> list[str]:
    """Events as text, without what may differ between two roads."""
    texts = []
    for event in events:
        event = {name: value for name, value in event.items() if name != "stream_id"}
        if "response" in event:
            event["response"] = {**event["response"], "previous_response_id": None}
            usage = event["response"]["usage"]
            if usage:
                details = {**usage["input_tokens_details"], "cached_tokens": 0}
                usage = {**usage, "input_tokens_details": details}
                event["response"]["usage"] = usage
        texts.append(json.dumps(event))
    return texts


@pytest.mark.parametrize("orders", KINDS.values(), ids=KINDS.keys())
async def test_a_chain_of_deltas_reads_like_full_bodies_in_any_spelling(
    start: Any, connect: Any, http: Any, orders: dict[str, str]
) -> None:
    simulator = await start()
    socket = await connect(simulator)
    dice = random.Random(str(orders))
    fields = {
        "model": "gpt-5.6",
        "store": False,
        "tools": TOOLS,
        "metadata": {"canary": "purity", **orders},
    }
    full: list[Any] = [{"role": "user", "content": "begin"}]
    delta: list[Any] = list(full)
    parent: str | None = None

    for _ in range(5):
        chain = {} if parent is None else {"previous_response_id": parent}
        await socket.send(**fields, input=delta, stream_id="a", **chain)
        chained = await socket.until_end()
        body = {**fields, "input": full, "stream": True}
        answer = await http.post(simulator.base_url + "/responses", json=body)
        direct = [
            json.loads(line[6:])
            for line in (await answer.text()).split("\n")
            if line.startswith("data: ")
        ]
        assert comparable(chained) == comparable(direct)
        response = direct[-1]["response"]
        parent, delta = response["id"], answers_to(response)
        full = [*full, *(respelled(item, dice) for item in response["output"]), *delta]


async def test_canary_context_length_and_digest_are_in_the_text(start: Any, connect: Any) -> None:
    simulator = await start()
    socket = await connect(simulator)

    one = await socket.response(input="same", metadata={"canary": "one"})
    two = await socket.response(input="same", metadata={"canary": "two"})

    text = one["output"][0]["content"][0]["text"]
    assert text.startswith("items=1 canary=one seed=")
    assert one["id"] != two["id"]
    assert simulator.log.runs().total() == 2


CHANGES = {
    "instructions": ({"instructions": "be brief"}, True),
    "temperature": ({"temperature": 0.5}, True),
    "metadata": ({"metadata": {"a": "b"}}, True),
    "unknown member": ({"brand_new": 1}, True),
    "cache key": ({"prompt_cache_key": "k"}, False),
    "client metadata": ({"client_metadata": {"turn": "1"}}, False),
    "lane": ({"stream_id": "a"}, False),
}


@pytest.mark.parametrize(("change", "matters"), CHANGES.values(), ids=CHANGES.keys())
async def test_parameters_change_the_reply_and_transport_does_not(
    start: Any, connect: Any, change: dict[str, Any], matters: bool
) -> None:
    socket = await connect(await start())

    plain = await socket.response(input="same")
    changed = await socket.response(input="same", **change)

    assert (plain["id"] != changed["id"]) == matters


async def test_both_blobs_of_a_thought_are_accepted_and_a_lost_thought_is_noticed(
    start: Any, connect: Any
) -> None:
    socket = await connect(await start())
    orders = {"metadata": {"sim.reasoning": "encrypted"}}
    await socket.send(input="think", **orders)
    events = await socket.until_end()
    done = [e["item"] for e in events if e["type"] == "response.output_item.done"]
    completed = events[-1]["response"]["output"]
    more = {"role": "user", "content": "more"}

    replies = [
        await socket.response(input=[{"role": "user", "content": "think"}, *echo, more], **orders)
        for echo in (done, completed, done[1:])
    ]

    assert done[0]["encrypted_content"] != completed[0]["encrypted_content"]
    assert replies[0]["output"] == replies[1]["output"]
    assert replies[0]["id"] != replies[2]["id"]


async def test_the_true_transcript_keeps_every_item_as_it_came(start: Any, connect: Any) -> None:
    simulator = await start()
    socket = await connect(simulator)
    first = await socket.response(input=[{"content": "a", "role": "user"}])

    second = await socket.response(input="b", previous_response_id=first["id"])

    assert simulator.transcripts[second["id"]] == [
        {"content": "a", "role": "user"},
        first["output"][0],
        {"type": "message", "role": "user", "content": "b"},
    ]
