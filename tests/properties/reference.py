"""Continuation as the contract has it (§5.1–§5.7), slow and plain: whole values, no digests."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

Json = dict[str, Any]

KNOWN_OUTPUTS: Final = frozenset(
    """message reasoning function_call custom_tool_call shell_call shell_call_output
    mcp_approval_request mcp_list_tools web_search_call""".split()
)
#: Call → the answer's type, the call's key, the answer's key.
ANSWERED_BY: Final = {
    "function_call": ("function_call_output", "call_id", "call_id"),
    "custom_tool_call": ("custom_tool_call_output", "call_id", "call_id"),
    "shell_call": ("shell_call_output", "call_id", "call_id"),
    "mcp_approval_request": ("mcp_approval_response", "id", "approval_request_id"),
}
ANSWER_KEY: Final = {answer: (call, key) for call, (answer, _, key) in ANSWERED_BY.items()}
SCHEMAS: Final = frozenset({"arguments", "parameters", "input_schema", "schema"})


class Opaque(Exception):
    """A name stands twice in one object."""


@dataclass(frozen=True)
class Lexeme:
    """A number as it was written."""

    text: str


def _strict(pairs: list[tuple[str, Any]]) -> Json:
    if len(dict(pairs)) != len(pairs):
        raise Opaque
    return dict(pairs)


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_strict, parse_int=Lexeme, parse_float=Lexeme)


def parsed(raw: bytes | str) -> Any:
    """A JSON value whose `==` is the contract's: lexemes, true is not 1, names in any order."""
    return _DECODER.decode(raw if isinstance(raw, str) else raw.decode())


def same(a: Any, b: Any) -> bool:
    """Equal values of equal types (Python takes True for 1)."""
    return type(a) is type(b) and bool(a == b)


def item_type(item: Json) -> str:
    kind = item.get("type")
    if kind is None:
        return "message" if isinstance(item.get("role"), str) else ""
    return str(kind)


# ── Echoes ───────────────────────────────────────────────────────────────────────────────────


def is_echo(versions: Sequence[Json], item: Json, is_stored: bool) -> bool:
    original = versions[0]
    has_id = original.get("id") is not None and item.get("id") == original["id"]
    if item.get("type") == "item_reference":
        return is_stored and has_id
    if item_type(item) != item_type(original):
        return False
    if item_type(item) == "reasoning":
        blob = item.get("encrypted_content")
        if blob is not None:
            return any(v.get("encrypted_content") == blob for v in versions)
        return is_stored and has_id
    return _says_nothing_else(original, item) and same(_core(original), _core(item))


def _says_nothing_else(original: Json, item: Json) -> bool:
    """Whether what an echo may leave out is either left out or as it was."""
    for name in ("id", "status", "created_by"):
        value = item.get(name)
        if value is None or (name == "status" and value == "completed"):
            continue
        if not same(value, original.get(name)):
            return False
    if item_type(item) == "mcp_approval_request" and item.get("id") is None:
        return original.get("id") is None
    ours, theirs = item.get("content"), original.get("content")
    if not isinstance(ours, list) or not isinstance(theirs, list) or len(ours) != len(theirs):
        return True  # the texts decide
    return all(
        not part.get(name) or same(_pruned(part[name]), _pruned(other.get(name)))
        for part, other in zip(ours, theirs, strict=True)
        for name in ("annotations", "logprobs")
    )


def _core(item: Json) -> Json:
    core = {
        name: _arguments(value) if name == "arguments" else _pruned(value)
        for name, value in item.items()
        if name not in ("id", "status", "created_by") and value is not None
    }
    core["type"] = item_type(item)
    content = core.get("content")
    if isinstance(content, str):
        core["content"] = [{"type": "output_text", "text": content}]
    elif isinstance(content, list):
        core["content"] = [
            {n: v for n, v in part.items() if n not in ("annotations", "logprobs")}
            for part in content
        ]
    return core


def _pruned(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            name: member if name in SCHEMAS else _pruned(member)
            for name, member in value.items()
            if member is not None
        }
    return [_pruned(element) for element in value] if isinstance(value, list) else value


def _arguments(text: str) -> Any:
    try:
        return ("json", _decimal(parsed(text)))
    except (ValueError, Opaque):
        return text


def _decimal(value: Any) -> Any:
    if isinstance(value, Lexeme):
        number = Decimal(value.text)
        return ("number", str(number.normalize()) if number else value.text[0] == "-")
    if isinstance(value, dict):
        return {name: _decimal(member) for name, member in value.items()}
    return [_decimal(element) for element in value] if isinstance(value, list) else value


# ── Checkpoints ──────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Position:
    """One item of a context: as the client sent it last, and what of the model's it echoed."""

    sent: Json | None
    made: Sequence[Json] | None

    def takes(self, item: Json, is_stored: bool) -> bool:
        if self.sent is not None and same(self.sent, item):
            return True
        return self.made is not None and is_echo(self.made, item, is_stored)

    @property
    def is_made_reasoning(self) -> bool:
        return self.made is not None and item_type(self.made[0]) == "reasoning"


@dataclass(frozen=True)
class Kept:
    """A checkpoint: whole values."""

    number: int
    key: bytes
    fields: Json
    positions: tuple[Position, ...]
    output: Sequence[Json]


@dataclass(frozen=True)
class Asked:
    """A request: its items are None where they are opaque."""

    key: bytes
    fields: Json
    items: Sequence[Json | None]
    is_stored: bool


def starts_with(asked: Asked, kept: Kept) -> bool:
    """Whether the request's first items are the checkpoint's, and one more follows."""
    return (
        asked.key == kept.key
        and len(kept.positions) < len(asked.items)
        and all(
            item is not None and position.takes(item, asked.is_stored)
            for position, item in zip(kept.positions, asked.items, strict=False)
        )
    )


def starts_with_less(asked: Asked, kept: Kept, used: int) -> list[Position] | None:
    """The same where left-out reasoning is allowed: what the request's first items are, each."""

    def rest(position: int, at: int) -> list[Position] | None:
        if position == len(kept.positions):
            return [] if at == used else None
        here, item = kept.positions[position], asked.items[at] if at < used else None
        if item is not None and (here.takes(item, asked.is_stored) or _is_emptied(here, item)):
            found = rest(position + 1, at + 1)
            return None if found is None else [here, *found]
        return rest(position + 1, at) if here.is_made_reasoning else None

    return rest(0, 0) if asked.key == kept.key else None


def _is_emptied(position: Position, item: Json) -> bool:
    if not position.is_made_reasoning or item.get("type") != "reasoning":
        return False
    assert position.made is not None
    id_ = item.get("id")
    return item.get("encrypted_content") is None and id_ in (None, position.made[0].get("id"))


def may_continue(asked: Asked, kept: Kept, used: int) -> bool:
    """Contract §5.6 and §5.7."""
    return same(asked.fields, kept.fields) and _is_answered(kept.output, asked.items[used:])


def _is_answered(output: Sequence[Json], delta: Sequence[Json | None]) -> bool:
    answers: Counter[tuple[str, str]] = Counter()
    for item in delta:
        if item is None:
            return False
        kind = item_type(item)
        if isinstance(item.get(ANSWER_KEY.get(kind, ("", ""))[1]), str):
            answers[kind, item[ANSWER_KEY[kind][1]]] += 1
        elif kind != "message" or item["role"] not in ("user", "system", "developer"):
            return False
    return answers == Counter(_open(output)) and all(n == 1 for n in answers.values())


def _open(output: Sequence[Json]) -> Iterator[tuple[str, str]]:
    own = {(i["type"], i.get("call_id")) for i in output if i["type"] in ANSWER_KEY}
    for item in output:
        if item["type"] in ANSWERED_BY:
            answer, key, _ = ANSWERED_BY[item["type"]]
            if (answer, item[key]) not in own:
                yield answer, item[key]
