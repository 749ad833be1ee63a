"""A conversation as an agent holds it, and the words it is made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

from tests.canary import TEXT
from tests.differential.spellings import Made, Spelling

Item = dict[str, Any]

#: Calls that wait for the client.
_ANSWERED: Final = frozenset(
    "function_call custom_tool_call computer_call local_shell_call shell_call apply_patch_call "
    "tool_search_call mcp_approval_request".split()
)
#: What the model may call.
TOOLS: Final = (
    {"type": "function", "name": "look", "parameters": {"properties": {"n": {"type": "number"}}}},
    {"type": "custom", "name": "write"},
)
#: Odd things that the model may be told to say.
KINDS: Final = (
    "web_search_call mcp_approval_request computer_call shell_call apply_patch_call commentary "
    "tool_search_call local_shell_call refusal compaction mcp_call image_generation_call"
).split()
#: Items that are neither questions nor answers.
FOREIGN: Final[tuple[Item, ...]] = (
    {"type": "additional_tools", "tools": [{"type": "function", "name": "more"}]},
    {"type": "never_heard_of", "x": 1.0},
    {"role": "assistant", "content": f"{TEXT} put into the model's mouth"},
)
_ENDINGS: Final = "failed incomplete after_created:server_error rate_limit_exceeded server_error "
#: How a turn may be told to end.
FAILURES: Final = (_ENDINGS + "invalid_prompt model_not_found conflict unprocessable").split()


#: Members of the body that may change, and to what; `...` takes one out.
CHANGES: Final[tuple[tuple[str, Any], ...]] = (
    ("instructions", "be different"),
    ("instructions", ...),
    ("tools", [TOOLS[0]]),
    ("tools", ...),
    ("model", "gpt-6-astra"),
    ("temperature", 0.5),
    ("temperature", 1),
    ("max_output_tokens", 500),
    ("parallel_tool_calls", False),
    ("service_tier", "flex"),
    ("reasoning", {"effort": "high"}),
    ("truncation", "auto"),
    ("user", None),
    ("never_heard_of", 1.0),
    ("never_heard_of", 1),
)


@dataclass(slots=True)
class Conversation:
    """What the agent holds of one conversation, in its own spelling."""

    items: list[Item] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    asks: list[int] = field(default_factory=list)  # where each question stands
    made: dict[int, Made] = field(default_factory=dict)  # where echoes stand, and of what
    unanswered: list[Item] = field(default_factory=list)
    last_id: str | None = None
    known_until: int = 0  # items that the last response already knew
    failures: int = 0

    def copy(self) -> Conversation:
        """A branch."""
        return Conversation(
            list(self.items),
            dict(self.settings),
            list(self.asks),
            dict(self.made),
            list(self.unanswered),
            self.last_id,
            self.known_until,
        )

    def cut(self, at: int) -> None:
        """Forget every item from `at` on."""
        del self.items[at:]
        self.asks = [index for index in self.asks if index < at]
        self.made = {index: made for index, made in self.made.items() if index < at}
        self.unanswered.clear()
        self.last_id = None

    def ask(self, dice: Random) -> None:
        """A question at the end, after whatever is still owed."""
        self.answer_calls(dice)
        self.asks.append(len(self.items))
        self.items.append(question(dice))

    def answer_calls(self, dice: Random) -> None:
        """The outputs of every call that waits."""
        for number, item in enumerate(self.unanswered):
            self.items.append(answer(item, f"done {TEXT} {number} {dice.randrange(99)}"))
        self.unanswered.clear()

    def echo(self, made: Made, spelling: Spelling) -> None:
        """An item of the model's, as this client spells it."""
        if made.done["type"] in _ANSWERED:
            self.unanswered.append(made.done)
        echo = spelling(made)
        if echo is not None:
            self.made[len(self.items)] = made
            self.items.append(echo)


def question(dice: Random) -> Item:
    """One of the forms that questions have."""
    text = f"{TEXT} {dice.randrange(1000)}"
    match dice.randrange(6):
        case 0:
            part = {"type": "input_text", "text": text}
            return {"type": "message", "role": "user", "content": [part]}
        case 1:
            return {"role": "user", "content": text, "size": dice.choice((1, 1.0, True))}
        case 2:
            return {"role": "developer", "content": text}
        case _:
            return {"role": "user", "content": text}


def edited(item: Item, dice: Random) -> Item:
    """The item with something in it changed."""
    if item.get("size") is not None:
        return {**item, "size": dice.choice((1, 1.0, True))}
    for name in ("content", "output", "arguments", "input"):
        if isinstance(item.get(name), str):
            return {**item, name: item[name] + "."}
    if item.get("type") == "reasoning":
        return {**item, "summary": []}
    if dice.random() < 0.5 and "type" in item:
        return {**item, "phase": "commentary"}
    return dict(reversed(item.items()))


def answer(item: Item, text: str) -> Item:
    """The output of a call."""
    kind = item["type"]
    if kind == "mcp_approval_request":
        answer = {"approval_request_id": item["id"], "approve": True}
        return {"type": "mcp_approval_response", **answer}
    name = kind.replace("search_call", "search") + "_output"
    return {"type": name, "call_id": item["call_id"], "output": text}
