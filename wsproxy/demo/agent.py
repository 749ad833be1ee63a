"""The agent: a tool loop with openai-python, the same code directly and through the proxy."""

from __future__ import annotations

import hashlib
import json
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

from openai import DefaultHttpxClient, OpenAI

#: Codex's first turn: 40 KB, of it 18 KB of tools, its prompt the first item of the input.
_PROMPT_BYTES: Final = 20_000
_TOOLS: Final = 12
_TOOL_DESCRIPTION_BYTES: Final = 1_300
#: What one call of a tool brings into the conversation: a page of a file.
_TOOL_OUTPUT_BYTES: Final = 2_000
#: Of a call's arguments: a short patch, 40 tokens in the simulator's counting.
_ARGUMENT_BYTES: Final = 960
_TIMEOUT_S: Final = 60.0
#: Any key will do: nobody is charged.
API_KEY: Final = "demo"
TASK: Final = "Find the bug, fix it, run the tests."

Event = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Turn:
    """One call of the API: how long its first event took, and all events as the SDK gave them."""

    first_event_s: float
    events: list[Event]


@dataclass(frozen=True, slots=True)
class Loop:
    """One run of the agent."""

    wall_s: float
    turns: list[Turn]

    @property
    def first_event_s(self) -> float:
        """The median over all turns."""
        return median(turn.first_event_s for turn in self.turns)

    @property
    def event_count(self) -> int:
        """Events of all turns."""
        return sum(len(turn.events) for turn in self.turns)

    def digest(self) -> str:
        """Over every member of every event but `cached_tokens`, which tells how it was sent."""
        found = hashlib.sha256()
        for turn in self.turns:
            for event in turn.events:
                found.update(json.dumps(_comparable(event), sort_keys=True).encode())
            found.update(b"end of turn")
        return found.hexdigest()


def run_loop(base_url: str, calls: int, on_turn: Callable[[], None]) -> Loop:
    """Let the agent do its task of `calls` tool calls; `on_turn` is called after each turn.

    Raises `openai.OpenAIError` where a turn fails: nothing is tried twice.
    """
    body = _body(calls)
    items: list[Any] = [
        {"role": "developer", "content": _prose(_PROMPT_BYTES, "prompt")},
        {"role": "user", "content": TASK},
    ]
    turns: list[Turn] = []
    http_client = DefaultHttpxClient(trust_env=False, timeout=_TIMEOUT_S)
    with OpenAI(
        base_url=base_url, api_key=API_KEY, max_retries=0, http_client=http_client
    ) as client:
        began = time.perf_counter()
        while True:
            turns.append(_turn(client, {**body, "input": items}))
            on_turn()
            output = turns[-1].events[-1]["response"]["output"]
            answers = [_answer(item) for item in output if item["type"] == "function_call"]
            if not answers:
                return Loop(time.perf_counter() - began, turns)
            items += [*output, *answers]


def _turn(client: OpenAI, body: dict[str, Any]) -> Turn:
    began = time.perf_counter()
    first_event_s = 0.0
    events = []
    for event in client.responses.create(**body):
        first_event_s = first_event_s or time.perf_counter() - began
        events.append(event)
    return Turn(first_event_s, [event.to_dict(mode="json") for event in events])


def _answer(call: Event) -> dict[str, str]:
    """What the tool gave: always the same for the same call."""
    text = _prose(_TOOL_OUTPUT_BYTES, str(call["arguments"]))
    return {"type": "function_call_output", "call_id": call["call_id"], "output": text}


def _body(calls: int) -> dict[str, Any]:
    orders = {
        "sim.tool_calls": str(calls),
        "sim.reasoning": "encrypted",
        "sim.argument_bytes": str(_ARGUMENT_BYTES),
        "sim.text_tokens": "100",
    }
    return {
        "model": "gpt-5.6",
        "tools": [_tool(number) for number in range(_TOOLS)],
        "store": False,
        "include": ["reasoning.encrypted_content"],
        "stream": True,
        "metadata": orders,
    }


def _tool(number: int) -> dict[str, Any]:
    text = {"type": "string", "description": "What to work on."}
    return {
        "type": "function",
        "name": f"tool_{number}",
        "description": _prose(_TOOL_DESCRIPTION_BYTES, f"tool {number}"),
        "parameters": {"type": "object", "properties": {"text": text}, "required": ["text"]},
        "strict": False,
    }


def _prose(size: int, seed: str) -> str:
    """Words that deflate about as text does, the same for the same seed."""
    return " ".join(_words(random.Random(seed), size))[:size]


def _words(chance: random.Random, size: int) -> Iterator[str]:
    letters = "etaoinshrdlu"
    vocabulary = ["".join(chance.choices(letters, k=chance.randint(2, 9))) for _ in range(400)]
    while size > 0:
        word = chance.choice(vocabulary)
        size -= len(word) + 1
        yield word


def _comparable(event: Event) -> Event:
    usage = (event.get("response") or {}).get("usage")
    if usage is None:
        return event
    masked = {**usage, "input_tokens_details": None}
    return {**event, "response": {**event["response"], "usage": masked}}
