"""The model: a pure function from (context, parameters) to a reply.

Ids, times, texts, blobs and paddings all come from one digest, so the same conversation gives the
same bytes whether it arrived as one body or as a chain of deltas, over HTTP or over a frame.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from wsproxy.simulator import outputs
from wsproxy.simulator.canonical import IDENTITY_BYTES, Item, digest, seal
from wsproxy.simulator.context import Context
from wsproxy.simulator.outputs import Draft
from wsproxy.simulator.request import Request
from wsproxy.simulator.script import Script, read_script
from wsproxy.simulator.tools import (
    Tool,
    arguments_for,
    callable_tools,
    choose_tool,
    custom_input,
    fill,
)

_WORDS: Final = re.findall(
    r"\S+",
    "river stone Olá window quiet naïve lantern copper … maple thread “north” harbour signal amber "
    "→ garden winter 雪 pencil orbit meadow façade violet engine 🙂 letter salt anchor",
)
_CALL_WORDS: Final = re.compile(r"use the tool|call (?:the |a )?tool", re.IGNORECASE)
#: 2026-01-01; ids carry no clock, so times do not either.
_EPOCH: Final = 1_767_225_600
_YEAR_S: Final = 31_536_000
_SHORT_TOKENS: Final = 6  # of a text nobody gave a length for
_ARGUMENT_PIECE: Final = 24  # characters of one arguments delta


@dataclass(frozen=True, slots=True)
class Reply:
    """What the model answers: items and totals, not yet events."""

    response_id: str
    created_at: int
    drafts: tuple[Draft, ...]
    completed_items: tuple[Item, ...]  # as `response.completed` shows them
    script: Script
    status: str  # completed | incomplete | failed
    incomplete_reason: str | None
    output_tokens: int
    reasoning_tokens: int
    seed: bytes

    def pad(self, number: int) -> str:
        """Obfuscation of the `number`-th delta of an item."""
        first = self.seed[number % 16] % 24
        return self.seed.hex()[first : first + 8 + self.seed[(number + 7) % 32] % 16]


def reply_to(request: Request, context: Context, *, reencrypt: bool) -> Reply:
    """The one reply to this context under these parameters."""
    seed = digest(request.digest, context.mark)
    fields = request.fields
    script = read_script(request.model, context.orders, fields.get("metadata"))
    writer = _Writer(request, context, script, seed)
    drafts = writer.drafts() if request.generate else []
    status, reason = writer.outcome()
    return Reply(
        response_id="resp_" + seed[:IDENTITY_BYTES].hex(),
        created_at=_EPOCH + int.from_bytes(seed[-6:], "big") % _YEAR_S,
        drafts=tuple(drafts),
        completed_items=tuple(_at_completion(draft.item, reencrypt) for draft in drafts),
        script=script,
        status=status,
        incomplete_reason=reason,
        output_tokens=sum(2 + len(draft.pieces) for draft in drafts),
        reasoning_tokens=sum(len(d.pieces) for d in drafts if d.stream == "reasoning"),
        seed=seed,
    )


def _at_completion(item: Item, reencrypt: bool) -> Item:
    if not reencrypt or item["type"] != "reasoning" or "encrypted_content" not in item:
        return item
    identity = bytes.fromhex(item["id"].removeprefix("rs_"))
    return {**item, "encrypted_content": seal(identity, "completed")}


class _Writer:
    """Writes the output items of one reply."""

    def __init__(self, request: Request, context: Context, script: Script, seed: bytes) -> None:
        self._fields = request.fields
        self._canary = request.canary
        self._context = context
        self._script = script
        self._seed = seed
        self._limit = request.fields.get("max_output_tokens")
        self._is_cut = script.fail == "incomplete"
        self._count = 0

    def outcome(self) -> tuple[str, str | None]:
        """Status and, for an incomplete one, its reason."""
        if self._script.fail == "failed":
            return "failed", None
        if self._is_cut:
            return "incomplete", "max_output_tokens"
        return "completed", None

    def drafts(self) -> list[Draft]:
        written: list[Draft] = []
        if self._context.answers_since_user == 0:
            for kind in re.split(r"[,+]", self._script.items):
                if kind:
                    written += self._with_reasoning(self._extra(kind))
            if written and written[-1].stream in _ENDS_THE_TURN:
                return written
        calls = self._calls()
        if calls:
            for draft in calls:
                written += self._with_reasoning(draft)
            return written
        return written + self._with_reasoning(outputs.message(self._id("msg"), self._text()))

    def _id(self, prefix: str) -> str:
        self._count += 1
        return f"{prefix}_{digest(self._seed, prefix, str(self._count))[:IDENTITY_BYTES].hex()}"

    def _call_id(self) -> str:
        self._count += 1
        return f"call_{digest(self._seed, 'call', str(self._count))[:12].hex()}"

    def _tag(self) -> str:
        return digest(self._seed, "tag", str(self._count))[:4].hex()

    # -- reasoning -----------------------------------------------------------------------------

    def _with_reasoning(self, draft: Draft) -> list[Draft]:
        if self._script.reasoning not in {"encrypted", "plain"}:
            return [draft]
        item_id = self._id("rs")
        identity = bytes.fromhex(item_id.removeprefix("rs_"))
        has_blob = self._script.reasoning == "encrypted"
        blob = seal(identity, "done") if has_blob else None
        summary = self._words(self._seed[3] % 5 + 3)
        thought = outputs.reasoning(item_id, summary, blob, seal(identity, "added", 80))
        return [thought, draft]

    # -- calls ---------------------------------------------------------------------------------

    def _calls(self) -> list[Draft]:
        choice = self._fields.get("tool_choice")
        count = 0 if choice == "none" else self._call_count(choice)
        if not count:
            return []
        declared = [*(self._fields.get("tools") or []), *self._context.tools]
        tools = callable_tools(declared)
        return [self._call(tools, choice, number) for number in range(count)]

    def _call_count(self, choice: object) -> int:
        done = self._context.answers_since_user
        if self._script.tool_calls >= 0:
            return max(0, min(self._script.parallel, self._script.tool_calls - done))
        if done or not (self._fields.get("tools") or self._context.tools):
            return 0
        is_forced = choice == "required" or isinstance(choice, dict)
        return int(is_forced or _CALL_WORDS.search(self._context.user_text) is not None)

    def _call(self, tools: Sequence[Tool], choice: object, number: int) -> Draft:
        turn = self._context.answers_since_user + number
        tool = choose_tool(tools, turn, choice, custom=self._script.custom_tool)
        if tool is None:
            tool = Tool("lookup", self._script.custom_tool, _QUERY_SCHEMA)
        if tool.is_custom:
            text = custom_input(tool, self._tag())
            call_id = self._call_id()
            return outputs.custom_tool_call(self._id("ctc"), call_id, tool.name, _pieces(text))
        filled = arguments_for(tool.schema, self._tag(), self._script.argument_bytes)
        text = json.dumps(filled, ensure_ascii=False, separators=(",", ":"))
        call_id = self._call_id()
        item_id = self._id("fc")
        return outputs.function_call(item_id, call_id, tool.name, _pieces(text), tool.namespace)

    # -- text ----------------------------------------------------------------------------------

    def _text(self) -> list[str]:
        wanted = self._structured() or self._prose()
        if isinstance(self._limit, int) and len(wanted) > self._limit:
            self._is_cut = True
        if self._is_cut:
            return wanted[: max(1, min(len(wanted) // 2, self._limit or len(wanted)))]
        return wanted

    def _structured(self) -> list[str]:
        text = self._fields.get("text")
        shape = text.get("format") if isinstance(text, dict) else None
        if not isinstance(shape, dict) or shape.get("type") not in {"json_schema", "json_object"}:
            return []
        schema = shape.get("schema") or {"type": "object"}
        value = fill(schema, "", self._tag(), schema, 0)
        return _pieces(json.dumps(value, ensure_ascii=False, separators=(",", ":")))

    def _prose(self) -> list[str]:
        head = f"items={len(self._context.items)} canary={self._canary} seed={self._seed[:6].hex()}"
        count = self._script.text_tokens or _SHORT_TOKENS + self._seed[4] % 8
        return [*head.split(" ", 1)[:1], " " + head.split(" ", 1)[1], *self._words(count - 2)]

    def _words(self, count: int) -> list[str]:
        seed = self._seed
        return [
            " " + _WORDS[(seed[number % 32] + number * 11) % len(_WORDS)]
            for number in range(max(0, count))
        ]

    # -- other output types --------------------------------------------------------------------

    def _extra(self, kind: str) -> Draft:
        if kind == "commentary":
            return outputs.message(self._id("msg"), self._words(4), "commentary")
        if kind == "final_answer":
            return outputs.message(self._id("msg"), self._words(4), "final_answer")
        if kind == "refusal":
            return outputs.refusal(self._id("msg"), "I cannot help with that.")
        prefix, members = _EXTRAS.get(kind, ("item", {"status": "completed"}))
        item: Item = {"id": self._id(prefix), "type": kind, **members}
        if kind in _ENDS_THE_TURN and kind != "mcp_approval_request":
            item["call_id"] = self._call_id()
        if kind == "compaction":
            item["encrypted_content"] = seal(self._seed[:IDENTITY_BYTES], "compaction")
        return outputs.whole_item(item)


def _pieces(text: str) -> list[str]:
    step = max(_ARGUMENT_PIECE, len(text) // 40)
    return [text[at : at + step] for at in range(0, len(text), step)]


_QUERY_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {"query": {"type": "string"}},
    "required": ["query"],
}
#: Items after which the model waits for the client.
_ENDS_THE_TURN: Final = frozenset(
    {
        "mcp_approval_request",
        "computer_call",
        "local_shell_call",
        "shell_call",
        "apply_patch_call",
        "tool_search_call",
    }
)
_PIXEL: Final = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJ"
)
_EXTRAS: Final[dict[str, tuple[str, Item]]] = {
    "web_search_call": (
        "ws",
        {"status": "completed", "action": {"type": "search", "query": "sim", "sources": None}},
    ),
    "file_search_call": ("fs", {"status": "completed", "queries": ["sim"], "results": None}),
    "code_interpreter_call": (
        "ci",
        {"status": "completed", "code": "1+1", "container_id": "cntr_sim", "outputs": None},
    ),
    "image_generation_call": ("ig", {"status": "completed", "result": _PIXEL}),
    "mcp_list_tools": ("mcpl", {"server_label": "sim", "tools": []}),
    "mcp_call": (
        "mcp",
        {"status": "completed", "arguments": "{}", "name": "ping", "output": "pong"},
    ),
    "mcp_approval_request": (
        "mcpr",
        {"arguments": "{}", "name": "ping", "server_label": "sim"},
    ),
    "compaction": ("cmp", {}),
    "computer_call": (
        "cu",
        {"status": "completed", "action": {"type": "screenshot"}, "pending_safety_checks": []},
    ),
    "local_shell_call": (
        "lsh",
        {"status": "completed", "action": {"type": "exec", "command": ["echo", "hi"], "env": {}}},
    ),
    "shell_call": ("sh", {"status": "completed", "action": {"commands": ["echo hi"]}}),
    "apply_patch_call": (
        "apc",
        {
            "status": "completed",
            "operation": {"type": "create_file", "path": "sim.txt", "diff": "+hello\n"},
        },
    ),
    "tool_search_call": (
        "tsc",
        {"status": "completed", "execution": "client", "arguments": {"query": "sim"}},
    ),
}
