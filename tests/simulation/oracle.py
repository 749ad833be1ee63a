"""The oracle: what the same request would have read, sent directly and in full.

The simulated model is a pure function of context and parameters, so one answer is right. Upstream
is asked for it beside the world: same rules, same stored responses, nothing of any connection.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wsproxy.simulator.errors import ApiError, named_error
from wsproxy.simulator.faults import Faults
from wsproxy.simulator.frames import sse
from wsproxy.simulator.log import Log
from wsproxy.simulator.model import Reply
from wsproxy.simulator.outputs import Event
from wsproxy.simulator.rules import Rules
from wsproxy.simulator.store import Kept, Store
from wsproxy.simulator.turns import Caller, Turn, Turns

_AFTER_CREATED = "after_created:"


@dataclass(slots=True, eq=False)
class Expected:
    """The one right answer: a turn, or the refusal in its place."""

    rules: Rules
    turn: Turn | None
    error: ApiError | None

    @property
    def mid_error(self) -> ApiError | None:
        """The failure that follows `response.created`, where one was ordered."""
        fail = self.turn.reply.script.fail if self.turn is not None else ""
        if not fail.startswith(_AFTER_CREATED):
            return None
        return named_error(fail.removeprefix(_AFTER_CREATED))

    @property
    def reply(self) -> Reply:
        """The reply that is right."""
        assert self.turn is not None
        return self.turn.reply

    def events(self, inserted: Mapping[int, Sequence[Event]] | None = None) -> list[bytes]:
        """The SSE answer, event by event; `inserted`: odd events that upstream put in between."""
        assert self.turn is not None
        told: list[bytes] = []
        for number, event in enumerate(self.turn.events()):
            for odd in (inserted or {}).get(number, ()):
                told.append(sse(odd, self.rules))
            event["sequence_number"] = number
            told.append(sse(event, self.rules))
        return told

    def document(self) -> dict[str, Any]:
        """The JSON answer, as values."""
        assert self.turn is not None
        done = self.turn.done
        if done["output"]:
            return done
        items = [e["item"] for e in self.turn.events() if e["type"] == "response.output_item.done"]
        return {**done, "output": items}


class Oracle:
    """Answers as upstream's HTTP API would."""

    def __init__(self, rules: Rules, store: Store) -> None:
        self._turns = Turns(rules, Faults(), Log(100))
        self._turns.store = store

    def expected(
        self,
        fields: dict[str, Any],
        owner: str,
        find: Callable[[str], Kept | None] = lambda _: None,
    ) -> Expected:
        """`find` knows parents that only a lane remembers."""
        rules = self._turns.rules
        try:
            turn = self._turns.prepare(fields, 0, Caller(owner, 0, "http", find, None))
        except ApiError as error:
            return Expected(rules, None, error)
        return Expected(rules, turn, None)


def flat_error_of(tail: bytes) -> dict[str, Any] | None:
    """The flat error event that a stream ends with; None if `tail` is not exactly one."""
    head = b"event: error\ndata: "
    if not tail.startswith(head) or not tail.endswith(b"\n\n"):
        return None
    try:
        found = json.loads(tail[len(head) :])
    except ValueError:
        return None
    return found if isinstance(found, dict) and found.get("type") == "error" else None
