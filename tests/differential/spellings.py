"""How clients write the model's output back: every spelling that was seen, one function each.

A spelling takes an item as the model made it and gives what the client would send, or None if it
leaves the item out. Items that a spelling does not concern come back as they are.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

Item = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Made:
    """One output item in the versions that a client saw: when done, and at the very end."""

    done: Item
    final: Item


Spelling = Callable[[Made], Item | None]


def exact(made: Made) -> Item:
    """As it came."""
    return made.done


def second_version(made: Made) -> Item:
    """As in `response.completed`, where reasoning was encrypted anew."""
    return made.final


def without(*names: str, kinds: tuple[str, ...] = ()) -> Spelling:
    """Members dropped, as SDK input models do; an approval keeps its id, its answer needs it."""

    def spell(made: Made) -> Item:
        item = made.done
        if (kinds and item["type"] not in kinds) or item["type"] == "mcp_approval_request":
            return item
        kept = {name: value for name, value in item.items() if name not in names}
        if item["type"] == "reasoning" and "encrypted_content" not in item:
            kept["id"] = item["id"]  # nothing else says which reasoning it is
        return kept

    return spell


def added(member: str, value: object, kinds: tuple[str, ...] = ()) -> Spelling:
    """A member added where there was none."""

    def spell(made: Made) -> Item:
        if kinds and made.done["type"] not in kinds:
            return made.done
        return {member: value, **made.done}

    return spell


def arguments(separators: tuple[str, str], *, is_sorted: bool = False) -> Spelling:
    """JSON arguments parsed and written again."""

    def spell(made: Made) -> Item:
        item = made.done
        if item["type"] != "function_call":
            return item
        value = json.loads(item["arguments"])
        if is_sorted:
            value = dict(sorted(value.items(), reverse=True))
        return {**item, "arguments": json.dumps(value, separators=separators)}

    return spell


def parts_without(*names: str) -> Spelling:
    """Members of content parts dropped: SDK "input" models have no room for them."""

    def spell(made: Made) -> Item:
        item = made.done
        if item["type"] != "message":
            return item
        parts = [{k: v for k, v in part.items() if k not in names} for part in item["content"]]
        return {**item, "content": parts}

    return spell


def plain_message(made: Made) -> Item:
    """`{"role": "assistant", "content": "…"}`."""
    item = made.done
    if item["type"] != "message" or "phase" in item or "text" not in item["content"][0]:
        return item
    return {"role": "assistant", "content": item["content"][0]["text"]}


def string_content(made: Made) -> Item:
    """The same with everything else kept."""
    item = made.done
    if item["type"] != "message" or "text" not in item["content"][0]:
        return item
    return {**item, "content": item["content"][0]["text"]}


def reference(made: Made) -> Item:
    """`item_reference`: needs an upstream that stores."""
    return {"type": "item_reference", "id": made.done["id"]}


def reasoning_left_out(made: Made) -> Item | None:
    """No reasoning at all."""
    return None if made.done["type"] == "reasoning" else made.done


def text_edited(made: Made) -> Item:
    """The client put other words into the model's mouth."""
    item = made.done
    if item["type"] != "message" or "text" not in item["content"][0]:
        return item
    part = {**item["content"][0], "text": item["content"][0]["text"] + " "}
    return {**item, "content": [part]}


def arguments_edited(made: Made) -> Item:
    """One number of a call is another one."""
    item = made.done
    if item["type"] != "function_call":
        return item
    return {**item, "arguments": json.dumps({**json.loads(item["arguments"]), "limit": 1.25})}


def nulls(made: Made) -> Item:
    """`model_dump()` of an SDK object: every optional member there, as null."""
    item = made.done
    if item["type"] == "function_call":
        return {**item, "namespace": item.get("namespace"), "created_by": None}
    if item["type"] == "reasoning":
        return {**item, "content": None, "status": None}
    return item


def keys_reversed(made: Made) -> Item:
    """The same members in another order."""
    return dict(reversed(made.done.items()))


#: Spellings whose loops must be deltas throughout, on any `store`.
SPELLINGS: Final[Mapping[str, Spelling]] = {
    "exact": exact,
    "second blob": second_version,
    "keys in another order": keys_reversed,
    "arguments respaced": arguments((", ", ": ")),
    "arguments reordered": arguments((",", ":"), is_sorted=True),
    "id dropped": without("id"),
    "status dropped": without("status"),
    "id and status dropped": without("id", "status"),
    "reasoning id dropped": without("id", kinds=("reasoning",)),
    "reasoning summary dropped": without("summary", kinds=("reasoning",)),
    "reasoning content null": added("content", None, kinds=("reasoning",)),
    "reasoning status added": added("status", "completed", kinds=("reasoning",)),
    "created_by null": added("created_by", None),
    "nulls added": nulls,
    "annotations and logprobs dropped": parts_without("annotations", "logprobs"),
    "message as a plain string": plain_message,
    "string content": string_content,
}
#: Those that need an upstream that stores.
STORED_SPELLINGS: Final[Mapping[str, Spelling]] = {
    "item reference": reference,
    "reasoning without blob": without("encrypted_content", kinds=("reasoning",)),
}
#: Those that show upstream less than it holds, so that a delta would be wrong.
LOSSY_SPELLINGS: Final[Mapping[str, Spelling]] = {"reasoning left out": reasoning_left_out}
#: Those that are edits, so that the model has to read them anew.
EDITED_SPELLINGS: Final[Mapping[str, Spelling]] = {
    "phase dropped": without("phase", kinds=("message",)),
    "text edited": text_edited,
    "arguments edited": arguments_edited,
}
#: All of them.
EVERY_SPELLING: Final[Mapping[str, Spelling]] = {
    **SPELLINGS,
    **STORED_SPELLINGS,
    **LOSSY_SPELLINGS,
    **EDITED_SPELLINGS,
}
