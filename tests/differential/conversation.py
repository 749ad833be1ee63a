"""A conversation as its client holds it: its own items, and the model's in its own spelling."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from tests.differential.repertoire import CLIENT_CALLS
from tests.differential.spellings import Made
from tests.worlds import Answer

Item = dict[str, Any]


def answer_to(call: Item, text: str) -> Item:
    """What a client sends back for one call, by the call's type."""
    kind, call_id = call["type"], call.get("call_id")
    if kind == "mcp_approval_request":
        return {"type": "mcp_approval_response", "approval_request_id": call["id"], "approve": True}
    if kind == "computer_call":
        shot = {"type": "computer_screenshot", "image_url": f"data:image/png;base64,{text}"}
        return {"type": "computer_call_output", "call_id": call_id, "output": shot}
    if kind == "tool_search_call":
        return {
            "type": "tool_search_output",
            "call_id": call_id,
            "execution": "client",
            "tools": [],
        }
    return {"type": f"{kind}_output", "call_id": call_id, "output": text}


_ANSWERED: Final = frozenset({"function_call", "custom_tool_call", *CLIENT_CALLS})


@dataclass(slots=True)
class Echo:
    """One output item in the conversation: what it was, and how this client writes it."""

    made: Made
    sent: Item | None

    @property
    def meant(self) -> Item | None:
        """What the model sees of it; None if the client leaves it out."""
        is_reference = self.sent is not None and self.sent.get("type") == "item_reference"
        return self.made.done if is_reference else self.sent

    def exactly(self) -> Echo:
        """The same, as it came."""
        return Echo(self.made, self.made.done)


Entry = Item | Echo


@dataclass(slots=True)
class Conversation:
    """What an agent would send, and where its turns ended."""

    entries: list[Entry] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    parent: str | None = None  # the latest completed response, if it was stored
    parent_end: int = 0  # what follows from there is new to it

    def items(self) -> list[Item]:
        """The input."""
        return [sent for e in self.entries if (sent := _sent(e)) is not None]

    def meant(self) -> list[Item]:
        """What the model is to see."""
        return [item for e in self.entries if (item := _meant(e)) is not None]

    def open_calls(self) -> list[Item]:
        """Calls that have no answer yet."""
        answered = {
            e.get("call_id") or e.get("approval_request_id")
            for e in self.entries
            if not isinstance(e, Echo)
        }
        made = [e.made.done for e in self.entries if isinstance(e, Echo)]
        calls = [item for item in made if item["type"] in _ANSWERED]
        return [c for c in calls if (c.get("call_id") or c.get("id")) not in answered]

    def cut(self, length: int) -> None:
        """Forget everything from there on."""
        del self.entries[length:]
        self.ends = [end for end in self.ends if end <= length]
        self.starts = [start for start in self.starts if start <= length]
        self.parent = None


def is_plain(item: Item) -> bool:
    """Whether a string input means the same."""
    members = {name: value for name, value in item.items() if name != "type"}
    return members == {"role": "user", "content": item["content"]} and isinstance(
        item["content"], str
    )


def _sent(entry: Entry) -> Item | None:
    return entry.sent if isinstance(entry, Echo) else entry


def _meant(entry: Entry) -> Item | None:
    return entry.meant if isinstance(entry, Echo) else entry


def made_in(answer: Answer) -> list[Made] | None:
    """The output items of an answer in the versions that its client saw; None after an error."""
    if "event-stream" not in answer.headers["content-type"]:
        document = answer.json()
        if document["status"] in ("queued", "failed"):
            return None
        return [Made(item, item) for item in document["output"]]
    events = answer.events()
    if events[-1]["type"] not in ("response.completed", "response.incomplete"):
        return None
    done = [e["item"] for e in events if e["type"] == "response.output_item.done"]
    final = events[-1]["response"]["output"] or done
    return [Made(one, two) for one, two in zip(done, final, strict=True)]
