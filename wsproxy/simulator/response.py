"""The Response object and the lifecycle events around a reply.

Member order as recorded in June 2026 (protocol.md §9.1).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from wsproxy.simulator.canonical import Item
from wsproxy.simulator.context import Context
from wsproxy.simulator.model import Reply
from wsproxy.simulator.outputs import Event, item_events
from wsproxy.simulator.request import Request

#: Members in wire order, with what the API shows where the request says nothing. `...` marks the
#: ones that do not come from the request.
_MEMBERS: Final[Mapping[str, Any]] = {
    "id": ...,
    "object": ...,
    "created_at": ...,
    "status": ...,
    "background": ...,
    "completed_at": ...,
    "error": ...,
    "frequency_penalty": 0.0,
    "incomplete_details": ...,
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "model": ...,
    "moderation": None,
    "output": ...,
    "parallel_tool_calls": True,
    "presence_penalty": 0.0,
    "previous_response_id": ...,
    "prompt_cache_key": None,
    "prompt_cache_retention": None,
    "reasoning": {"effort": None, "summary": None},
    "safety_identifier": None,
    "service_tier": "auto",
    "store": True,
    "temperature": 1.0,
    "text": {"format": {"type": "text"}, "verbosity": "medium"},
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": 1.0,
    "truncation": "disabled",
    "usage": ...,
    "user": None,
    "metadata": {},
}
_THINKING_S: Final = 2  # between created_at and completed_at


def skeleton(request: Request, reply: Reply, previous_response_id: str | None) -> Item:
    """The object as `response.created` shows it."""
    fields = request.fields
    shown: Item = {}
    for name, default in _MEMBERS.items():
        value = fields.get(name)
        shown[name] = default if value is None else value
    shown["id"] = reply.response_id
    shown["object"] = "response"
    shown["created_at"] = reply.created_at
    shown["status"] = "in_progress"
    shown["background"] = request.background
    for name in ("completed_at", "error", "incomplete_details", "usage"):
        shown[name] = None
    shown["output"] = []
    shown["previous_response_id"] = previous_response_id
    return shown


def finished(shown: Item, reply: Reply, output: list[Item], usage: Item) -> Item:
    """The object as the terminal event shows it."""
    done = {**shown, "status": reply.status, "output": output, "usage": usage}
    if done["service_tier"] == "auto":
        done["service_tier"] = "default"
    if reply.status == "completed":
        done["completed_at"] = reply.created_at + _THINKING_S
    elif reply.status == "incomplete":
        done["incomplete_details"] = {"reason": reply.incomplete_reason}
    else:
        done["error"] = {"code": "server_error", "message": "The model failed on order."}
        done["usage"] = None
    return done


def usage(request: Request, context: Context, reply: Reply, cached_tokens: int) -> Item:
    """Token counts; only `cached_tokens` depends on the road the request took."""
    tokens = context.tokens + request.preamble_tokens
    return {
        "input_tokens": tokens,
        "input_tokens_details": {"cached_tokens": cached_tokens},
        "output_tokens": reply.output_tokens,
        "output_tokens_details": {"reasoning_tokens": reply.reasoning_tokens},
        "total_tokens": tokens + reply.output_tokens,
    }


def reply_events(
    reply: Reply, shown: Item, done: Item, *, obfuscate: bool, keepalive: bool
) -> Iterator[Event]:
    """Every event of the reply, terminal one last."""
    yield _lifecycle("created", shown)
    yield _lifecycle("in_progress", shown)
    if keepalive:
        yield {"type": "keepalive", "sequence_number": 0}
    pad = reply.pad if obfuscate else _no_pad
    for index, draft in enumerate(reply.drafts):
        is_last = index == len(reply.drafts) - 1
        events = item_events(draft, index, pad)
        if is_last and reply.status != "completed":
            yield from _cut_short(list(events), reply.status)
        else:
            yield from events
    if keepalive:
        yield {"type": "keepalive", "sequence_number": 0}
    yield _lifecycle(reply.status, done)


def _cut_short(events: list[Event], status: str) -> list[Event]:
    """A failed reply ends in mid-text; an incomplete one shows its last item as incomplete."""
    if status == "failed":
        return events[: max(1, len(events) // 2)]
    last = events[-1]
    if "status" in last["item"]:
        last["item"] = {**last["item"], "status": "incomplete"}
    return events


def _lifecycle(step: str, shown: Item) -> Event:
    return {"type": f"response.{step}", "response": shown, "sequence_number": 0}


def _no_pad(number: int) -> None:
    return None
