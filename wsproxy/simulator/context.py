"""The effective context of one response: what the model sees, item by item.

Rules of this file
------------------
1. A context is a value; `extended` returns another one and costs the new items only.
2. `marks[n]` is a digest over the meaning of items 0…n, so equal contexts have equal marks however
   they came: in one body, or as a chain of deltas, or re-spelled by a client.
3. `items` are the true values in the spelling they came in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from wsproxy.simulator.canonical import Item, digest, item_type, meaning, unseal
from wsproxy.simulator.errors import ApiError
from wsproxy.simulator.script import orders_in_text

#: Finds a stored item by its id, under the caller's Authorization.
Lookup = Callable[[str], Item | None]

#: Type of an output → types of call it may answer, and its name in the service's messages.
ANSWERS: Final[Mapping[str, tuple[frozenset[str], str]]] = {
    "function_call_output": (
        frozenset({"function_call", "local_shell_call"}),
        "function call output",
    ),
    "custom_tool_call_output": (frozenset({"custom_tool_call"}), "custom tool call output"),
    "computer_call_output": (frozenset({"computer_call"}), "computer call output"),
    "local_shell_call_output": (frozenset({"local_shell_call"}), "local shell call output"),
    "shell_call_output": (frozenset({"shell_call"}), "shell call output"),
    "apply_patch_call_output": (frozenset({"apply_patch_call"}), "apply patch call output"),
    "tool_search_output": (frozenset({"tool_search_call"}), "tool search output"),
}
_CALLS: Final = frozenset().union(*(calls for calls, _ in ANSWERS.values()))
_ROLES: Final = frozenset({"user", "assistant", "system", "developer"})
_BYTES_PER_TOKEN: Final = 4  # of JSON text; near enough for usage and costs


@dataclass(frozen=True, slots=True)
class Context:
    """An item sequence with everything about it that a reply depends on."""

    items: tuple[Item, ...] = ()
    marks: tuple[bytes, ...] = ()
    tokens_at: tuple[int, ...] = ()
    ids: frozenset[str] = frozenset()
    open_calls: Mapping[str, str] = field(default_factory=dict)  # call id → type
    approvals: frozenset[str] = frozenset()  # ids of requests for approval
    answers_since_user: int = 0
    user_text: str = ""
    orders: Mapping[str, str] = field(default_factory=dict)  # of markers in user text
    tools: tuple[Item, ...] = ()  # declared inside the input

    @property
    def mark(self) -> bytes:
        """The digest over everything the model sees."""
        return self.marks[-1] if self.marks else b""

    @property
    def tokens(self) -> int:
        """Context tokens."""
        return self.tokens_at[-1] if self.tokens_at else 0

    def extended(self, items: Sequence[Item], lookup: Lookup, rules: ContextRules) -> Context:
        """This context and `items` after it. Raises `ApiError` where the service would refuse."""
        if not items:
            return self
        fold = _Fold(self, lookup, rules)
        for index, item in enumerate(items):
            fold.add(item, index)
        return fold.result()

    def check_answered(self) -> None:
        """Every client-side call must have its output before the model goes on."""
        for call_id, kind in self.open_calls.items():
            name = kind.removesuffix("_call").replace("_", " ")
            raise ApiError(f"No tool output found for {name} call {call_id}.", param="input")


@dataclass(frozen=True, slots=True)
class ContextRules:
    """Which of the service's checks are on."""

    check_pairing: bool = True
    verify_reasoning: bool = True


class _Fold:
    """Adds items one by one to a copy of a context."""

    def __init__(self, start: Context, lookup: Lookup, rules: ContextRules) -> None:
        self._start = start
        self._lookup = lookup
        self._rules = rules
        self._items = list(start.items)
        self._marks = list(start.marks)
        self._tokens = list(start.tokens_at)
        self._ids = set(start.ids)
        self._open = dict(start.open_calls)
        self._approvals = set(start.approvals)
        self._answers = start.answers_since_user
        self._text = start.user_text
        self._orders = dict(start.orders)
        self._tools = start.tools

    def result(self) -> Context:
        return replace(
            self._start,
            items=tuple(self._items),
            marks=tuple(self._marks),
            tokens_at=tuple(self._tokens),
            ids=frozenset(self._ids),
            open_calls=self._open,
            approvals=frozenset(self._approvals),
            answers_since_user=self._answers,
            user_text=self._text,
            orders=self._orders,
            tools=self._tools,
        )

    def add(self, item: Item, index: int) -> None:
        kind = check_item(item, index)
        if kind == "item_reference":
            item, kind = self._referenced(item)
        self._note_id(item)
        if kind == "reasoning":
            item = self._opened_reasoning(item, index)
        elif kind == "message":
            self._note_message(item)
        elif kind in ANSWERS:
            self._note_answer(item, kind)
        elif kind in _CALLS:
            self._note_call(item, kind)
        elif kind == "mcp_approval_request":
            self._approvals.add(str(item.get("id")))
        elif kind == "mcp_approval_response":
            self._note_approval(item)
        elif kind == "additional_tools" and isinstance(item.get("tools"), list):
            self._tools = (*self._tools, *item["tools"])
        self._append(item)

    def _append(self, item: Item) -> None:
        seen = meaning(item)
        before = self._marks[-1] if self._marks else b""
        tokens = self._tokens[-1] if self._tokens else 0
        self._items.append(item)
        self._marks.append(digest(before, seen))
        self._tokens.append(tokens + 4 + len(seen) // _BYTES_PER_TOKEN)

    def _referenced(self, reference: Item) -> tuple[Item, str]:
        wanted = reference.get("id")
        found = self._lookup(wanted) if isinstance(wanted, str) else None
        if found is None:
            raise ApiError(f"Item with id '{wanted}' not found.", status=404, param="input")
        return found, item_type(found)

    def _note_id(self, item: Item) -> None:
        item_id = item.get("id")
        if not isinstance(item_id, str) or not item_id:
            return
        if item_id in self._ids and self._rules.check_pairing:
            raise ApiError(
                f"Duplicate item found with id {item_id}. "
                "Remove duplicate items from your input and try again.",
                param="input",
            )
        self._ids.add(item_id)

    def _opened_reasoning(self, item: Item, index: int) -> Item:
        if not self._rules.verify_reasoning:
            return item
        blob = item.get("encrypted_content")
        if isinstance(blob, str):
            if unseal(blob) is None:
                raise ApiError(
                    f"The encrypted content {blob[:8]}... could not be verified.",
                    code="invalid_encrypted_content",
                    param=f"input[{index}].encrypted_content",
                )
            return item
        found = self._lookup(str(item.get("id")))
        if found is None:
            raise ApiError(
                f"Item with id '{item.get('id')}' not found. Items are not persisted when `store` "
                "is set to false. Try again with `store` set to true, or remove this item.",
                status=404,
                param="input",
            )
        return item

    def _note_message(self, item: Item) -> None:
        if item.get("role") != "user":
            return
        self._text = _text_of(item.get("content"))
        self._orders.update(orders_in_text(self._text))
        self._answers = 0

    def _note_call(self, item: Item, kind: str) -> None:
        call_id = item.get("call_id") or item.get("id")
        if kind == "tool_search_call" and item.get("execution") != "client":
            return
        if isinstance(call_id, str):
            self._open[call_id] = kind

    def _note_answer(self, item: Item, kind: str) -> None:
        self._answers += 1
        call_id = item.get("call_id") or item.get("id")
        calls, name = ANSWERS[kind]
        if self._open.get(str(call_id)) in calls:
            del self._open[str(call_id)]
        elif self._rules.check_pairing and not _is_server_side(item):
            raise ApiError(f"No tool call found for {name} with call_id {call_id}.", param="input")

    def _note_approval(self, item: Item) -> None:
        self._answers += 1
        wanted = item.get("approval_request_id")
        if wanted not in self._approvals and self._rules.check_pairing:
            raise ApiError(f"No approval request found with id {wanted}.", param="input")


def _is_server_side(item: Item) -> bool:
    return item.get("type") == "tool_search_output" and item.get("execution") == "server"


def _text_of(content: object) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    texts = (part.get("text") for part in content if isinstance(part, dict))
    return "\n".join(text for text in texts if isinstance(text, str))


def check_item(item: Any, index: int) -> str:
    """The type of one input item, minimally validated."""
    where = f"input[{index}]"
    if not isinstance(item, dict):
        raise ApiError(
            f"Invalid type for '{where}': expected an object.", code="invalid_type", param=where
        )
    kind = item_type(item)
    if not kind:
        raise ApiError(
            f"Missing required parameter: '{where}.type'.",
            code="missing_required_parameter",
            param=f"{where}.type",
        )
    if kind == "message":
        _check_message(item, where)
    elif kind in ANSWERS and not isinstance(item.get("call_id") or item.get("id"), str):
        raise ApiError(
            f"Missing required parameter: '{where}.call_id'.",
            code="missing_required_parameter",
            param=f"{where}.call_id",
        )
    return kind


def _check_message(item: Item, where: str) -> None:
    if item.get("role") not in _ROLES:
        raise ApiError(
            f"Invalid value: {item.get('role')!r}. Supported values are: 'assistant', "
            "'developer', 'system', and 'user'.",
            code="invalid_value",
            param=f"{where}.role",
        )
    content = item.get("content")
    is_parts = isinstance(content, list) and all(isinstance(part, dict) for part in content)
    if not is_parts and not isinstance(content, str):
        raise ApiError(
            f"Invalid type for '{where}.content'.", code="invalid_type", param=f"{where}.content"
        )
