"""A stage for conversations: requests in, model outputs committed, verdicts out. No sockets."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from wsproxy.config import Settings
from wsproxy.core.api.items import Item, hold, is_known_output, read_item
from wsproxy.core.api.request import Request, parse
from wsproxy.core.conversation.fields import FieldReader
from wsproxy.core.conversation.history import Checkpoint, History, Reading
from wsproxy.core.conversation.plan import Continuation, decide
from wsproxy.core.conversation.transcript import Transcript
from wsproxy.core.ids import ConnectionId, Digest, LaneName, PoolKey, SessionName

Json = dict[str, Any]
#: An output item, or its two versions: as in `output_item.done`, as in `response.completed`.
Output = Json | tuple[Json, Json]

KEY: Final = PoolKey(b"k" * 32)
OTHER_KEY: Final = PoolKey(b"o" * 32)


def user(text: str) -> Json:
    return {"type": "message", "role": "user", "content": text}


def system(text: str) -> Json:
    return {"type": "message", "role": "system", "content": text}


def says(text: str, **members: Any) -> Json:
    """A message as the model's output has it."""
    part = {"type": "output_text", "annotations": [], "logprobs": [], "text": text}
    return {
        "id": f"msg_{text}",
        "type": "message",
        "status": "completed",
        "content": [part],
        "role": "assistant",
        **members,
    }


def calls(call_id: str, arguments: str = '{"a": 1}', **members: Any) -> Json:
    """A function call as the model's output has it."""
    return {
        "id": f"fc_{call_id}",
        "type": "function_call",
        "status": "completed",
        "arguments": arguments,
        "call_id": call_id,
        "name": "run",
        **members,
    }


def answers(call_id: str, output: str = "done") -> Json:
    return {"type": "function_call_output", "call_id": call_id, "output": output}


def thinks(name: str, blob: str | None = None, **members: Any) -> Json:
    """A reasoning item as the model's output has it."""
    sealed = {} if blob is None else {"encrypted_content": blob}
    return {"id": f"rs_{name}", "type": "reasoning", "summary": [], **sealed, **members}


def without(item: Json, *names: str) -> Json:
    return {name: value for name, value in item.items() if name not in names}


def body(items: Any, **members: Any) -> bytes:
    """A request's body; items may be given as bytes, in a spelling of their own."""
    if isinstance(items, list):
        spelled = [i if isinstance(i, bytes) else json.dumps(i).encode() for i in items]
        raw = b"[" + b",".join(spelled) + b"]"
    else:
        raw = items if isinstance(items, bytes) else json.dumps(items).encode()
    others = json.dumps({"model": "m", "store": False, **members}).encode()
    return others[:-1] + b',"input":' + raw + b"}"


@dataclass
class Seen:
    """One request as the core sees it, and what it makes of it."""

    request: Request
    transcript: Transcript
    fields: Mapping[str, Digest]
    reading: Reading
    plan: Continuation
    checkpoint: Checkpoint | None = None

    @property
    def parent(self) -> str | None:
        """The response that is continued, None for a full send."""
        return self.plan.candidates[0].checkpoint.response_id if self.plan.candidates else None

    @property
    def delta_from(self) -> int:
        return self.plan.candidates[0].delta_from if self.plan.candidates else 0

    @property
    def why(self) -> str:
        return str(self.plan.why_full).removeprefix("reason=")


def open_calls(outputs: Sequence[Item]) -> tuple[Any, ...]:
    """Calls of a response that its own output does not answer."""
    answered = {item.answer for item in outputs if item.answer is not None}
    return tuple(i.call for i in outputs if i.call is not None and i.call not in answered)


@dataclass
class Stage:
    """One history, and the turns that ran over it."""

    history: History = field(default_factory=History)
    key: PoolKey = KEY
    now: float = 0.0
    reader: FieldReader = field(default_factory=lambda: FieldReader(Settings().changeable_fields))
    count: int = 0

    def look(self, raw: bytes, key: PoolKey | None = None) -> Seen:
        """Read a request and decide what it continues."""
        key = key or self.key
        request = parse(raw)
        transcript = Transcript(request)
        fields = self.reader.read(key, request)
        reading = self.history.read(key, transcript)
        return Seen(request, transcript, fields, reading, decide(reading, transcript, fields))

    def run(
        self,
        raw: bytes,
        outputs: Sequence[Output] = (),
        response_id: str | None = None,
        key: PoolKey | None = None,
    ) -> Seen:
        """Read a request and complete its turn with these output items."""
        seen = self.look(raw, key)
        self.complete(seen, outputs, response_id, key)
        return seen

    def complete(
        self,
        seen: Seen,
        outputs: Sequence[Output],
        response_id: str | None = None,
        key: PoolKey | None = None,
    ) -> None:
        self.count += 1
        versions = [
            [read_item(json.dumps(v).encode()) for v in (o if isinstance(o, tuple) else (o,))]
            for o in outputs
        ]
        first = [items[0] for items in versions]
        if not all(is_known_output(item) for item in first):
            return
        seen.checkpoint = self.history.commit(
            key or self.key,
            seen.transcript,
            seen.reading,
            fields=seen.fields,
            response_id=response_id or f"resp_{self.count}",
            outputs=[hold(items) for items in versions],
            open_calls=open_calls(first),
            session=SessionName(b"s" * 16),
            home=(ConnectionId(1), LaneName("l01")),
            now=self.now,
        )
