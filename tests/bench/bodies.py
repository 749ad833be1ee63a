"""What agents send: conversations that grow by the upstream's own replies and short questions."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from tests.bench.source import reply_items

_ITEM_BYTES: Final = 2_000
_QUESTION_BYTES: Final = 120


def prose(size: int, seed: str) -> str:
    """Words that deflate about as text does, the same for the same seed."""
    chance = random.Random(seed)
    words = ["".join(chance.choices("etaoinshrdlu", k=chance.randint(2, 9))) for _ in range(400)]
    text = " ".join(chance.choices(words, k=size // 4 + 1))
    return text[:size]


def question(number: int) -> str:
    """Another one for each number, at next to no cost: whoever asks shares the processors with
    whoever is measured."""
    start = number * 37 % (len(_TALKED) - _QUESTION_BYTES)
    return f"{number}: {_TALKED[start : start + _QUESTION_BYTES]}"


def tools(size: int) -> list[dict[str, Any]]:
    """Twelve functions of so many bytes in all."""
    text = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
    return [
        {"type": "function", "name": f"tool_{number}", "parameters": text, "strict": False}
        | {"description": prose(size // 12 - 150, f"tool {number}")}
        for number in range(12)
    ]


def message(text: str, role: str = "user") -> dict[str, Any]:
    """A message of the client's own."""
    return {"type": "message", "role": role, "content": [{"type": "input_text", "text": text}]}


@dataclass(frozen=True, slots=True)
class Shape:
    """One client: sizes (bytes) of what every request repeats, and what a turn brings."""

    name: str
    prompt_bytes: int
    tools_in_input_bytes: int = 0
    tools_at_top_bytes: int = 0
    tool_output_bytes: int = 2_000


SHAPES: Final = (
    Shape("Codex, tools in input", 11_000, tools_in_input_bytes=18_000),
    Shape("Codex, tools at top level", 11_000, tools_at_top_bytes=18_000),
    Shape("small agent, 2 KB of tools", 3_000, tools_at_top_bytes=2_000, tool_output_bytes=600),
)


class Talk:
    """One conversation, as the bodies that its client sends."""

    def __init__(self, items: list[Any], **members: Any) -> None:
        fields = {"model": "bench", "stream": True, "store": False, **members}
        self._head = json.dumps(fields, separators=(",", ":"))[:-1].encode()
        self._items = [_dumped(item) for item in items]
        self._turns = 0

    @classmethod
    def of_bytes(cls, size: int, seed: str) -> Talk:
        """A history of so many bytes."""
        count = max(1, size // _ITEM_BYTES)
        each = max(40, size // count - 80)
        return cls([message(prose(each, f"{seed}-{number}")) for number in range(count)])

    @classmethod
    def of_shape(cls, shape: Shape) -> Talk:
        """The first turn of an agent's task."""
        items = [message(prose(shape.prompt_bytes, "prompt"), "developer")]
        if shape.tools_in_input_bytes:
            text = json.dumps(tools(shape.tools_in_input_bytes))
            items.append(message(text, "developer"))
        items.append(message("Find the bug, fix it, run the tests."))
        include = ["reasoning.encrypted_content"]
        if shape.tools_at_top_bytes:
            return cls(items, include=include, tools=tools(shape.tools_at_top_bytes))
        return cls(items, include=include)

    def copy(self) -> Talk:
        """The same up to now, that goes on by itself."""
        other = copy.copy(self)
        other._items = list(self._items)
        return other

    def body(self, kind: str = "text") -> bytes:
        """The next request; the reply will be of that kind."""
        order = b',"metadata":{"bench":"reply/%b"},"input":[' % kind.encode()
        return b"".join((self._head, order, b",".join(self._items), b"]}"))

    def answered(self) -> None:
        """The reply came, and the user asks on."""
        self._turns += 1
        self._items += _REPLY
        self._items.append(_dumped(message(question(self._turns))))

    def called(self, kind: str, output_bytes: int) -> None:
        """The reply was a tool call, and this is what the tool gave."""
        output = reply_items(kind)
        answer = {"type": "function_call_output", "call_id": output[-1]["call_id"]}
        answer["output"] = prose(output_bytes, kind)
        self._items += map(_dumped, [*output, answer])


def loop(shape: Shape, calls: int) -> Iterator[bytes]:
    """The requests of one agent loop, the last of which is answered with text."""
    talk = Talk.of_shape(shape)
    for number in range(calls):
        kind = f"call-{number}"
        yield talk.body(kind)
        talk.called(kind, shape.tool_output_bytes)
    yield talk.body()


def _dumped(item: Any) -> bytes:
    return json.dumps(item, separators=(",", ":")).encode()


_TALKED: Final = prose(20_000, "questions")
_REPLY: Final = [_dumped(item) for item in reply_items("text")]
