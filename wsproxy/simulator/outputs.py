"""Output items and the events that tell them, shaped as protocol.md §3.2, §7.3 and §9.1 record.

`Draft.item` is the item as `response.output_item.done` shows it. Event members: `type` first, the
others in alphabetical order; `sequence_number` is filled in when the event leaves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from wsproxy.simulator.canonical import Item

Event = dict[str, Any]
#: Cuts a text into the pieces that its deltas carry.
Cut = Callable[[str], Sequence[str]]
#: Pads the k-th delta, or None where obfuscation was switched off.
Obfuscation = Callable[[int], str | None]


@dataclass(frozen=True, slots=True)
class Draft:
    """One output item, its first appearance, and what streams between the two."""

    item: Item
    added: Item
    stream: str = ""  # "message" | "function_call" | "custom_tool_call" | "reasoning" | hosted
    pieces: tuple[str, ...] = field(default=())


def message(item_id: str, pieces: Sequence[str], phase: str | None = None) -> Draft:
    """An assistant message with one text part."""
    part = {"type": "output_text", "annotations": [], "logprobs": [], "text": "".join(pieces)}
    spoken = {} if phase is None else {"phase": phase}
    head = {"id": item_id, "type": "message"}
    tail = {**spoken, "role": "assistant"}
    return Draft(
        {**head, "status": "completed", "content": [part], **tail},
        {**head, "status": "in_progress", "content": [], **tail},
        "message",
        tuple(pieces),
    )


def refusal(item_id: str, text: str) -> Draft:
    """An assistant message that refuses."""
    head = {"id": item_id, "type": "message"}
    done = {**head, "status": "completed", "content": [{"type": "refusal", "refusal": text}]}
    added = {**head, "status": "in_progress", "content": [], "role": "assistant"}
    return Draft({**done, "role": "assistant"}, added, "refusal", (text,))


def function_call(
    item_id: str, call_id: str, name: str, arguments: Sequence[str], namespace: str | None = None
) -> Draft:
    """A call of a declared function; `arguments` are the pieces of its JSON text."""
    head = {"id": item_id, "type": "function_call"}
    tail = {"call_id": call_id, "name": name}
    if namespace is not None:
        tail["namespace"] = namespace
    return Draft(
        {**head, "status": "completed", "arguments": "".join(arguments), **tail},
        {**head, "status": "in_progress", "arguments": "", **tail},
        "function_call",
        tuple(arguments),
    )


def custom_tool_call(item_id: str, call_id: str, name: str, text: Sequence[str]) -> Draft:
    """A call of a custom tool; `text` are the pieces of its input."""
    head = {"id": item_id, "type": "custom_tool_call"}
    return Draft(
        {**head, "status": "completed", "call_id": call_id, "input": "".join(text), "name": name},
        {**head, "status": "in_progress", "call_id": call_id, "input": "", "name": name},
        "custom_tool_call",
        tuple(text),
    )


def reasoning(item_id: str, summary: Sequence[str], blob: str | None, early_blob: str) -> Draft:
    """A reasoning item; with a blob, the one at its first appearance is incomplete."""
    head: Item = {"id": item_id, "type": "reasoning"}
    done: Item = {**head, "summary": [{"type": "summary_text", "text": "".join(summary)}]}
    added: Item = {**head, "summary": []}
    if blob is not None:
        done["encrypted_content"] = blob
        added["encrypted_content"] = early_blob
    return Draft(done, added, "reasoning", tuple(summary))


#: Steps of hosted calls between their first and last appearance.
_HOSTED_STEPS: Final = {
    "web_search_call": ("in_progress", "searching", "completed"),
    "file_search_call": ("in_progress", "searching", "completed"),
    "code_interpreter_call": ("in_progress", "interpreting", "completed"),
    "image_generation_call": ("in_progress", "generating", "completed"),
    "mcp_call": ("in_progress", "completed"),
    "mcp_list_tools": ("in_progress", "completed"),
}


def whole_item(item: Item) -> Draft:
    """An item that appears in one piece: hosted calls, approvals, compaction, client tools."""
    added = {**item, "status": "in_progress"} if "status" in item else item
    return Draft(item, added, str(item["type"]))


# -- events --------------------------------------------------------------------------------------


def item_events(draft: Draft, index: int, obfuscation: Obfuscation) -> Iterator[Event]:
    """Every event of one output item, in order."""
    yield _appearance("added", index, draft.added)
    teller = _TELLERS.get(draft.stream)
    if teller is not None:
        yield from teller(draft, index, obfuscation)
    else:
        item_id = draft.item.get("id", "")
        for step in _HOSTED_STEPS.get(draft.stream, ()):
            yield {
                "type": f"response.{draft.stream}.{step}",
                "item_id": item_id,
                "output_index": index,
                "sequence_number": 0,
            }
    yield _appearance("done", index, draft.item)


def _appearance(step: str, index: int, item: Item) -> Event:
    return {
        "type": f"response.output_item.{step}",
        "item": item,
        "output_index": index,
        "sequence_number": 0,
    }


def _message_events(draft: Draft, index: int, obfuscation: Obfuscation) -> Iterator[Event]:
    item_id = draft.item["id"]
    part = draft.item["content"][0]
    place = {"item_id": item_id, "output_index": index}
    yield _part_event("added", place, {**part, "text": ""})
    for number, piece in enumerate(draft.pieces):
        event: Event = {
            "type": "response.output_text.delta",
            "content_index": 0,
            "delta": piece,
            "item_id": item_id,
            "logprobs": [],
        }
        pad = obfuscation(number)
        if pad is not None:
            event["obfuscation"] = pad
        event["output_index"] = index
        event["sequence_number"] = 0
        yield event
    yield {
        "type": "response.output_text.done",
        "content_index": 0,
        "item_id": item_id,
        "logprobs": [],
        "output_index": index,
        "sequence_number": 0,
        "text": part["text"],
    }
    yield _part_event("done", place, part)


def _part_event(step: str, place: Item, part: Item) -> Event:
    return {
        "type": f"response.content_part.{step}",
        "content_index": 0,
        **place,
        "part": part,
        "sequence_number": 0,
    }


def _refusal_events(draft: Draft, index: int, obfuscation: Obfuscation) -> Iterator[Event]:
    part = draft.item["content"][0]
    place = {"item_id": draft.item["id"], "output_index": index}
    yield _part_event("added", place, {**part, "refusal": ""})
    delta: Event = {"type": "response.refusal.delta", "content_index": 0, "delta": part["refusal"]}
    yield {**delta, **place, "sequence_number": 0}
    done: Event = {"type": "response.refusal.done", "content_index": 0, **place}
    yield {**done, "refusal": part["refusal"], "sequence_number": 0}
    yield _part_event("done", place, part)


def _piecewise(kind: str, final: str) -> Callable[[Draft, int, Obfuscation], Iterator[Event]]:
    """Events of an item whose `final` member streams under `response.KIND`."""

    def tell(draft: Draft, index: int, obfuscation: Obfuscation) -> Iterator[Event]:
        item_id = draft.item["id"]
        for number, piece in enumerate(draft.pieces):
            event: Event = {"type": f"response.{kind}.delta", "delta": piece, "item_id": item_id}
            pad = obfuscation(number)
            if pad is not None:
                event["obfuscation"] = pad
            event["output_index"] = index
            event["sequence_number"] = 0
            yield event
        done: Event = {"type": f"response.{kind}.done", "item_id": item_id, "output_index": index}
        done["sequence_number"] = 0
        members = {**done, final: draft.item[final]}
        yield {"type": members.pop("type"), **dict(sorted(members.items()))}

    return tell


def _reasoning_events(draft: Draft, index: int, obfuscation: Obfuscation) -> Iterator[Event]:
    item_id = draft.item["id"]
    text = draft.item["summary"][0]["text"]
    end: Event = {"sequence_number": 0, "summary_index": 0}
    place: Event = {"item_id": item_id, "output_index": index}
    part = {"type": "summary_text", "text": ""}
    yield {"type": "response.reasoning_summary_part.added", **place, "part": part, **end}
    for number, piece in enumerate(draft.pieces):
        event: Event = {"type": "response.reasoning_summary_text.delta", "delta": piece}
        event["item_id"] = item_id
        pad = obfuscation(number)
        if pad is not None:
            event["obfuscation"] = pad
        yield {**event, "output_index": index, **end}
    yield {"type": "response.reasoning_summary_text.done", **place, **end, "text": text}
    part = {"type": "summary_text", "text": text}
    yield {"type": "response.reasoning_summary_part.done", **place, "part": part, **end}


_TELLERS: Final[dict[str, Callable[[Draft, int, Obfuscation], Iterator[Event]]]] = {
    "message": _message_events,
    "refusal": _refusal_events,
    "function_call": _piecewise("function_call_arguments", "arguments"),
    "custom_tool_call": _piecewise("custom_tool_call_input", "input"),
    "reasoning": _reasoning_events,
}
