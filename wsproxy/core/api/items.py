"""One input or output item: what it is compared by.

Rules of this file
------------------
1. The client's own items are compared by `exact` alone: equal JSON values, nothing looser.
2. Items the model made come back in the client's spelling; `ECHO_RULES` is the whole of what may
   differ (contract §5.4), one row an item type, each difference with its reason.
3. An item is never kept: only digests leave this file.

How an echo is compared: an item is normalised (nulls dropped, a string content made one part, …),
its *optional* members are cut out, and the rest is digested into its `identity`. The identities
must be equal, and every optional member that the echo still has must be among the original's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, NewType

from wsproxy.core.api.canonical import (
    DIGEST_BYTES,
    NotStrictError,
    OpaqueError,
    digest_of,
    encoded,
    exact_numbers,
    is_deeper_than,
    sha,
    value_of,
)
from wsproxy.core.ids import Digest

# ── The table ────────────────────────────────────────────────────────────────────────────────

#: May be absent or null in an echo; if present, equal to the original. SDK models drop them.
OPTIONAL_MEMBERS: Final = ("id", "created_by", "status")
#: In content parts: may be absent, null or empty in an echo (SDK "input" models have no room
#: for them); if present with something in it, equal to the original.
OPTIONAL_PART_MEMBERS: Final = ("annotations", "logprobs")
#: A null member may be absent, at any depth, but not inside these: JSON Schemas and tool
#: arguments, where a null is a value (`"default": null`).
FREE_FORM_MEMBERS: Final = frozenset({"arguments", "parameters", "input_schema", "schema"})


@dataclass(frozen=True, slots=True)
class EchoRule:
    """How the echo of one item type may differ, beyond the optional members above."""

    #: A string `content` is one text part (EasyInputMessage: `{"role":"assistant","content":"…"}`).
    string_content: bool = False
    #: A string member holding JSON that clients parse and write again (spacing, key order, 1.0).
    json_string: str | None = None
    #: Compared by `encrypted_content`, else by id, and by nothing else: summary is never proof.
    is_reasoning: bool = False
    #: The id is what the client's answer names, so it may not be left out.
    needs_id: bool = False


_PLAIN: Final = EchoRule()
ECHO_RULES: Final[dict[str, EchoRule]] = {
    "message": EchoRule(string_content=True),
    "reasoning": EchoRule(is_reasoning=True),
    "function_call": EchoRule(json_string="arguments"),
    "custom_tool_call": _PLAIN,  # its `input` is free text: never parsed
    "computer_call": _PLAIN,
    "local_shell_call": _PLAIN,
    "shell_call": _PLAIN,
    "shell_call_output": _PLAIN,  # hosted shell: the answer is in the model's own output
    "apply_patch_call": _PLAIN,
    "apply_patch_call_output": _PLAIN,
    "tool_search_call": _PLAIN,
    "tool_search_output": _PLAIN,
    "mcp_approval_request": EchoRule(json_string="arguments", needs_id=True),
    "mcp_call": EchoRule(json_string="arguments"),
    "mcp_list_tools": _PLAIN,
    "web_search_call": _PLAIN,
    "file_search_call": _PLAIN,
    "code_interpreter_call": _PLAIN,
    "image_generation_call": _PLAIN,
    "compaction": _PLAIN,  # must come back unpruned (protocol.md §4)
}

#: Which calls wait for an answer of the client (contract §5.6): call type → its key member, the
#: answer's type, and the answer's key members in order of preference.
ANSWERS: Final[dict[str, tuple[str, str, tuple[str, ...]]]] = {
    "function_call": ("call_id", "function_call_output", ("call_id",)),
    "custom_tool_call": ("call_id", "custom_tool_call_output", ("call_id",)),
    "computer_call": ("call_id", "computer_call_output", ("call_id",)),
    "local_shell_call": ("call_id", "local_shell_call_output", ("call_id", "id")),
    "shell_call": ("call_id", "shell_call_output", ("call_id",)),
    "apply_patch_call": ("call_id", "apply_patch_call_output", ("call_id",)),
    "tool_search_call": ("call_id", "tool_search_output", ("call_id",)),
    "mcp_approval_request": ("id", "mcp_approval_response", ("approval_request_id",)),
}
_ANSWER_KEYS: Final = {answer: (call, keys) for call, (_, answer, keys) in ANSWERS.items()}
#: Roles of messages that a client may add in a delta (contract §5.6).
CLIENT_ROLES: Final = frozenset({"user", "system", "developer"})

MARK_BYTES: Final = 8
#: Arguments nested deeper are compared as text: what parses them recurses.
MAX_ARGUMENTS_DEPTH: Final = 64
#: Items nested deeper are not read; the highest value of the setting `max_json_depth`.
MAX_ITEM_DEPTH: Final = 500

# ── What is compared ─────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Pairing:
    """A call that waits for an answer, or an answer: the call's type and the key they share."""

    call_type: str
    key: str


@dataclass(frozen=True, slots=True)
class Item:
    """One item as the core sees it: digests and ids, no text.

    `exact` is None for an opaque item (contract §5.3). `identity` is what an echo is found by,
    `optional` the digests of the optional members it has, `blobs` those of its encrypted content.
    """

    type: str
    role: str
    exact: Digest | None
    identity: Digest
    optional: frozenset[bytes]
    blobs: frozenset[bytes]
    id_mark: bytes | None
    call: Pairing | None
    answer: Pairing | None
    is_reference: bool

    @property
    def may_be_delta(self) -> bool:
        """Whether a delta may hold it (contract §5.6); that answers pair is checked elsewhere."""
        if self.type == "message":
            return self.role in CLIENT_ROLES
        return self.answer is not None


def read_item(raw: bytes, *, max_depth: int = MAX_ITEM_DEPTH) -> Item:
    """Look at one item; one with a duplicate name, or of no kind, comes out opaque.

    Raises `NotStrictError`, also for an item nested too deeply.
    """
    if is_deeper_than(raw, max_depth):
        raise NotStrictError("nested too deeply")
    try:
        value = value_of(raw)
        exact = digest_of(value)
    except OpaqueError:
        return _opaque(raw)
    return _read(value, exact, raw) if isinstance(value, dict) else _opaque(raw)


def read_text(raw: bytes) -> Item:
    """A string `input`: it equals one user message of that content (contract §5.3).

    Its `exact` is the mark that every spelling of such a message has as `identity`.
    """
    mark = _user_text_mark({"role": "user", "content": value_of(raw)})
    assert mark is not None
    return Item("message", "user", mark, mark, frozenset(), frozenset(), None, None, None, False)


def _opaque(raw: bytes) -> Item:
    mark = sha(b"opaque:", raw)
    return Item("", "", None, mark, frozenset(), frozenset(), None, None, None, False)


def _read(value: dict[str, Any], exact: Digest, raw: bytes) -> Item:
    type_ = value.get("type")
    role = value.get("role")
    role = role if type(role) is str else ""
    if type_ is None and role:
        type_ = "message"
    if type(type_) is not str:
        return _opaque(raw)
    rule = ECHO_RULES.get(type_)
    is_model_made = rule is not None and (type_ != "message" or role == "assistant")
    if rule is not None and is_model_made:
        identity, blobs = _identity(type_, value, rule)
        optional = frozenset(_optional(value))
    else:
        identity, blobs, optional = _user_text_mark(value) or exact, frozenset(), frozenset()
    id_ = value.get("id")
    return Item(
        type=type_,
        role=role,
        exact=exact,
        identity=identity,
        optional=optional,
        blobs=blobs,
        id_mark=_mark("id", id_) if type(id_) is str else None,
        call=_call(type_, value),
        answer=_answer(type_, value),
        is_reference=type_ == "item_reference",
    )


def _identity(type_: str, value: dict[str, Any], rule: EchoRule) -> tuple[Digest, frozenset[bytes]]:
    """What an echo must have in common with its original, and the blobs that prove reasoning."""
    if rule.is_reasoning:
        blob = value.get("encrypted_content")
        if blob is None or blob == "":
            return sha(b"reasoning-id:", encoded(value.get("id"))), frozenset()
        mark = sha(b"reasoning-blob:", encoded(blob))
        return mark, frozenset((mark,))
    core = {
        name: member
        for name, member in _without_nulls(value).items()
        if name not in OPTIONAL_MEMBERS or (rule.needs_id and name == "id")
    }
    core["type"] = type_
    if rule.json_string is not None:
        core[rule.json_string] = _json_value(core.get(rule.json_string))
    if rule.string_content:
        core["content"] = _parts(core.get("content"))
    return digest_of(core), frozenset()


def _json_value(text: Any) -> list[Any]:
    """A JSON string as the value it holds; as itself where it does not parse or is ambiguous."""
    if type(text) is str:
        raw = text.encode("utf-8", "surrogatepass")
        if not is_deeper_than(raw, MAX_ARGUMENTS_DEPTH):
            with suppress(OpaqueError, NotStrictError):
                return ["json", exact_numbers(value_of(raw))]
    return ["as is", text]


def _without_nulls(value: Any) -> Any:
    """The value without its null members; loops, for a comprehension costs a frame a level."""
    if isinstance(value, dict):
        members = {}
        for name, member in value.items():
            if member is not None:
                is_free = name in FREE_FORM_MEMBERS
                members[name] = member if is_free else _without_nulls(member)
        return members
    if isinstance(value, list):
        elements = []
        for element in value:
            elements.append(_without_nulls(element))
        return elements
    return value


def _parts(content: Any) -> Any:
    if type(content) is str:
        return [{"type": "output_text", "text": content}]
    if not isinstance(content, list):
        return content
    return [
        {n: m for n, m in part.items() if n not in OPTIONAL_PART_MEMBERS}
        if isinstance(part, dict)
        else part
        for part in content
    ]


def _optional(value: dict[str, Any]) -> Iterable[bytes]:
    """Digests of the optional members that say something."""
    for name in OPTIONAL_MEMBERS:
        member = value.get(name)
        if member is not None and not (name == "status" and member == "completed"):
            yield _mark(name, member)
    content = value.get("content")
    for index, part in enumerate(content if isinstance(content, list) else ()):
        for name in OPTIONAL_PART_MEMBERS:
            member = part.get(name) if isinstance(part, dict) else None
            if member is not None and member != []:
                yield _mark(f"content/{index}/{name}", _without_nulls(member))


def _mark(name: str, value: Any) -> bytes:
    """Half a digest: it only ever confirms an item whose identity is already equal."""
    return sha(name.encode(), b":", encoded(value))[:MARK_BYTES]


def _user_text_mark(value: dict[str, Any]) -> Digest | None:
    """What all spellings of a user message of one plain text have in common."""
    content = value.get("content")
    if value.get("role") != "user" or value.keys() - {"type", "role", "content"}:
        return None
    if value.get("type", "message") != "message":
        return None
    if isinstance(content, list) and len(content) == 1 and isinstance(content[0], dict):
        part = content[0]
        if part.keys() == {"type", "text"} and part["type"] == "input_text":
            content = part["text"]
    return sha(b"user-text:", encoded(content)) if type(content) is str else None


def _call(type_: str, value: dict[str, Any]) -> Pairing | None:
    if type_ not in ANSWERS:
        return None
    if type_ == "tool_search_call" and value.get("execution") != "client":
        return None
    key = value.get(ANSWERS[type_][0])
    return Pairing(type_, key if type(key) is str else "")  # "": no answer can name it


def _answer(type_: str, value: dict[str, Any]) -> Pairing | None:
    if type_ not in _ANSWER_KEYS:
        return None
    call_type, members = _ANSWER_KEYS[type_]
    keys = [key for member in members if type(key := value.get(member)) is str and key]
    return Pairing(call_type, keys[0]) if keys else None


# ── What is held of the model's output ───────────────────────────────────────────────────────

#: One output item, packed: type index, number of optional marks, whether the first of them is the
#: id's, identity, marks, blobs. 27 bytes a call, 59 a reasoning item with two blobs.
Held = NewType("Held", bytes)

_TYPES: Final = tuple(ECHO_RULES)
_TYPE_INDEX: Final = {type_: index for index, type_ in enumerate(_TYPES)}
_HEAD_BYTES: Final = 3
_IDENTITY_END: Final = _HEAD_BYTES + DIGEST_BYTES
_MAX_MARKS: Final = 255  # their number is packed into one byte


def is_known_output(item: Item) -> bool:
    """Whether the model may be continued after this item: its echo could be recognised."""
    return item.exact is not None and item.type in _TYPE_INDEX and len(item.optional) <= _MAX_MARKS


def hold(versions: Sequence[Item]) -> Held:
    """Pack an output item; `versions`: as in `output_item.done`, and as in the terminal event.

    The service encrypts reasoning anew between the two, and a client may echo either.
    """
    done = versions[0]
    same = [v for v in versions if (v.type, v.id_mark) == (done.type, done.id_mark)]
    marks = b"".join(sorted(done.optional, key=lambda mark: (mark != done.id_mark, mark)))
    blobs = b"".join(sorted({blob for version in same for blob in version.blobs}))
    head = bytes((_TYPE_INDEX[done.type], len(done.optional), done.id_mark is not None))
    return Held(head + done.identity + marks + blobs)


def held_type(held: Held) -> str:
    """The item's type."""
    return _TYPES[held[0]]


def held_identity(held: Held) -> Digest:
    """The item's identity, as it stands in the chain of its conversation."""
    return Digest(held[_HEAD_BYTES:_IDENTITY_END])


def held_id_mark(held: Held) -> bytes | None:
    """What an `item_reference` to this item would carry as `id_mark`; None without an id."""
    return held[_IDENTITY_END : _IDENTITY_END + MARK_BYTES] if held[2] else None


def held_blobs(held: Held) -> list[bytes]:
    """Marks of the encrypted contents by which an echo may name this item."""
    start = _IDENTITY_END + held[1] * MARK_BYTES
    return [held[at : at + DIGEST_BYTES] for at in range(start, len(held), DIGEST_BYTES)]


def _has_mark(held: Held, mark: bytes) -> bool:
    end = _IDENTITY_END + held[1] * MARK_BYTES
    return any(held[at : at + MARK_BYTES] == mark for at in range(_IDENTITY_END, end, MARK_BYTES))


def is_echo(held: Held, item: Item, *, is_stored: bool) -> bool:
    """Whether `item` is the client's spelling of `held`.

    `is_stored`: `store` is not false, so upstream can look an item up by its id.
    """
    if item.is_reference:
        return is_stored and _has_id(held, item)
    if item.type != held_type(held):
        return False
    if ECHO_RULES[item.type].is_reasoning:
        if item.blobs:
            return not item.blobs.isdisjoint(held_blobs(held))
        return is_stored and _has_id(held, item)
    return item.identity == held_identity(held) and all(
        _has_mark(held, mark) for mark in item.optional
    )


def is_emptied_reasoning(held: Held, item: Item) -> bool:
    """Whether `item` may be this reasoning with all proof of it left out (contract §5.5)."""
    return (
        item.type == "reasoning" == held_type(held)
        and not item.blobs
        and (item.id_mark is None or _has_id(held, item))
    )


def _has_id(held: Held, item: Item) -> bool:
    return item.id_mark is not None and item.id_mark == held_id_mark(held)
