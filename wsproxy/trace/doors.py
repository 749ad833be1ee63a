"""The core's two doors as the journal keeps them: events in, commands out, no text.

Rules of this file
------------------
1. The core compares digests and ids and never looks behind them. So each digest and each id of
   upstream's is written under a keyed name of the same length, the same one everywhere: whatever
   was equal is equal, and the core decides the same.
2. Words of clients and of upstream (messages, details, unknown types) are left out or replaced.
3. What is taken from the core on the loop's thread is immutable or copied; the writer's thread
   does the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from enum import Enum
from functools import lru_cache, partial
from typing import Any, Final

import msgspec

from wsproxy.core.api.errors import has_lost_parent, upstream_error
from wsproxy.core.api.events import Received
from wsproxy.core.api.items import ANSWERS, ECHO_RULES, Item
from wsproxy.core.commands import Command, Note
from wsproxy.core.conversation.plan import Why, safe
from wsproxy.core.conversation.transcript import Transcript
from wsproxy.core.events import ErrorReceived, Event, TurnArrived, TurnEnded
from wsproxy.core.ids import ConnectionId, TurnId
from wsproxy.core.multiplexer import Multiplexer
from wsproxy.trace.journal import Journal
from wsproxy.trace.keyed import Keyed
from wsproxy.trace.record import Core, Door, Record

#: Members that hold words, or what can be made from the rest.
_LEFT_OUT: Final = frozenset({"detail", "message", "error", "stream", "transcript"})
#: Text members that hold ids of upstream's, or keys of calls.
_IDS: Final = frozenset({"response_id", "parent", "key"})
_KNOWN_TYPES: Final = frozenset(
    (*ECHO_RULES, *(answer for _, answer, _ in ANSWERS.values()), "item_reference", "", "end")
)
_KNOWN_ROLES: Final = frozenset({"user", "system", "developer", "assistant", "tool", ""})
_AS_THEY_ARE: Final = frozenset({int, float, bool, type(None)})
_NULL: Final = b"null"
#: Turns that are over are forgotten together: to look for them with each event would make it the
#: dearer the more turns run.
_FORGOTTEN_LATER: Final = 32


def _names(type_: type[Any]) -> Sequence[str]:
    """The members of a dataclass that are written."""
    known = _NAMES.get(type_)
    if known is None:
        known = [field.name for field in fields(type_) if field.name not in _LEFT_OUT]
        _NAMES[type_] = known
    return known


#: Looked up once a type: reflection is what makes this slow.
_NAMES: Final[dict[type[Any], Sequence[str]]] = {}


class Words:
    """Turns what stands at the doors into plain values, under the names of one folder."""

    def __init__(self, keyed: Keyed) -> None:
        self.digest = lru_cache(maxsize=4_096)(self._digest)
        self._keyed = keyed

    def _digest(self, value: bytes) -> str:
        return self._keyed.digest(value, len(value)).hex() if 0 < len(value) <= 64 else ""

    def id(self, value: str) -> str:
        """An id of upstream's under its keyed name."""
        return self._keyed.name(value.encode())

    def plain(self, value: Any, name: str = "") -> Any:
        """One value as JSON has it."""
        type_ = type(value)
        if type_ in _AS_THEY_ARE:
            return value
        if type_ is str:
            return self._text(value, name)
        if type_ is bytes:
            return self._parent(value) if name == "own_parent" else self.digest(value)
        if type_ is Item:
            return self.item(value)
        if isinstance(value, Enum):
            return value.name
        if type_ is Received:
            return {"type": safe(value.type), "kind": value.kind.name}
        if type_ is Why:
            return {"reason": value.reason, "about": self._about(value.about)}
        if type_ is frozenset:
            return sorted(self.plain(member) for member in value)
        if isinstance(value, list | tuple):
            return [self.plain(member) for member in value]
        if isinstance(value, Mapping):
            return {str(key): self.plain(member) for key, member in value.items()}
        return self._members(value)

    def item(self, item: Item) -> dict[str, Any]:
        """An item. They are most of what is written: 1.9 µs each, by reflection 5.0."""
        return {
            "type": self._text(item.type, "type"),
            "role": self._text(item.role, "role"),
            "exact": None if item.exact is None else self.digest(item.exact),
            "identity": self.digest(item.identity),
            "optional": sorted(map(self.digest, item.optional)),
            "blobs": sorted(map(self.digest, item.blobs)),
            "id_mark": None if item.id_mark is None else self.digest(item.id_mark),
            "call": self.plain(item.call),
            "answer": self.plain(item.answer),
            "is_reference": item.is_reference,
        }

    def _members(self, value: Any) -> dict[str, Any]:
        return {name: self.plain(getattr(value, name), name) for name in _names(type(value))}

    def _text(self, value: str, name: str) -> str:
        if name in _IDS:
            return self.id(value)
        if name == "type":
            return value if value in _KNOWN_TYPES else "?" + self.id(value)
        if name == "role":
            return value if value in _KNOWN_ROLES else "?"
        return value[:200]

    def _parent(self, raw: bytes) -> str:
        """The client's own `previous_response_id`, so that it still names a lane's response."""
        return "null" if raw == _NULL else self.id(raw.strip(b'"').decode("utf-8", "replace"))

    def _about(self, about: Sequence[tuple[str, str]]) -> dict[str, str]:
        """An unknown type is told under another name at a replay: it is not compared."""
        return {
            name: "?" if name == "type" and value not in _KNOWN_TYPES else value
            for name, value in about
        }

    def event(self, event: Event) -> dict[str, Any]:
        """An event; `is` tells which."""
        told: dict[str, Any] = {"is": type(event).__name__, **self._members(event)}
        if isinstance(event, TurnArrived):
            told["transcript"] = self._transcript(event.transcript)
        elif isinstance(event, ErrorReceived):
            told["error"] = self._error(event.received.payload)
        return told

    def _transcript(self, transcript: Transcript) -> dict[str, Any]:
        prefixes = {str(k): self.digest(v) for k, v in transcript.prefixes.items()}
        return {
            "length": len(transcript),
            "is_whole_context": transcript.is_whole_context,
            "is_stored": transcript.is_stored,
            "prefixes": prefixes,
        }

    def _error(self, payload: bytes) -> dict[str, Any]:
        """What the core reads out of an error frame."""
        error = upstream_error(payload)
        return {
            "status": error.status,
            "code": None if error.code is None else safe(error.code),
            "type": None if error.type is None else safe(error.type),
            "has_lost_parent": has_lost_parent(error),
            "is_about_lanes": error.param == "stream_id" or "stream_id" in error.message,
        }

    def commands(self, commands: Sequence[Command]) -> list[dict[str, Any]]:
        """Commands; notes are for the log and are left out."""
        return [
            {"is": type(command).__name__, **self._members(command)}
            for command in commands
            if not isinstance(command, Note)
        ]

    def items(self, items: Mapping[int, Item]) -> dict[str, dict[str, Any]]:
        """Items of a transcript, by index."""
        return {str(index): self.item(item) for index, item in items.items()}


class DoorRecorder:
    """Implements `core.accounts.Doors`: one entry of the journal an event of the core."""

    def __init__(
        self,
        core: Multiplexer,
        history: Mapping[str, Any],
        journal: Journal,
        run: str,
        names: Callable[[], Keyed],
    ) -> None:
        """`history`: what the core's history was made with. `names` is called when writing."""
        self._core = core
        self._journal = journal
        self._run = run
        self._names = names
        self._words: Words | None = None
        self._number = 0
        self._heard: dict[ConnectionId, float] = {}
        self._read: dict[TurnId, tuple[Transcript, int]] = {}
        options = msgspec.to_builtins(core.options)
        journal.put(lambda: [Core(run=run, options=options, history=dict(history))])

    # ── core.accounts.Doors ──────────────────────────────────────────────────────────────────

    def heard(self, connection: ConnectionId, now: float) -> None:
        """See `core.accounts.Doors`."""
        self._heard[connection] = now

    def handled(self, event: Event, now: float, commands: Sequence[Command]) -> None:
        """See `core.accounts.Doors`."""
        self._number += 1
        heard, self._heard = list(self._heard.items()), {}
        streams = [found for connection, _ in heard for found in self._streams(connection)]
        items = self._new_items(event)
        entry = partial(
            self._door, self._number, event, now, tuple(commands), heard, streams, items
        )
        self._journal.put(entry, _held_bytes(event))

    def _streams(self, connection: ConnectionId) -> list[tuple[str, float]]:
        relay = self._core.relays.get(connection)
        if relay is None:
            return []
        streams = {id(s): s for s in (relay.default, *relay.streams.values()) if s is not None}
        return [(stream.turn, stream.heard_at) for stream in streams.values()]

    def _new_items(self, event: Event) -> dict[int, Item]:
        """Items of the event's turn, where some were read for it."""
        if isinstance(event, TurnArrived):
            self._read[event.turn] = event.transcript, 0
        turn: TurnId | None = getattr(event, "turn", None)
        found: dict[int, Item] = {}
        if turn is not None and turn in self._read:
            transcript, count = self._read[turn]
            if len(transcript.seen) > count:
                found = dict(transcript.seen)
                self._read[turn] = transcript, len(found)
        if len(self._read) > 2 * len(self._core.turns) + _FORGOTTEN_LATER:
            self._read = {id_: it for id_, it in self._read.items() if id_ in self._core.turns}
        return found

    # ── The writer's thread ──────────────────────────────────────────────────────────────────

    def _door(
        self,
        number: int,
        event: Event,
        now: float,
        commands: Sequence[Command],
        heard: Sequence[tuple[int, float]],
        streams: Sequence[tuple[str, float]],
        items: Mapping[int, Item],
    ) -> Sequence[Record]:
        if self._words is None:
            self._words = Words(self._names())
        words = self._words
        return [
            Door(
                run=self._run,
                number=number,
                now=now,
                event=words.event(event),
                commands=words.commands(commands),
                heard=list(heard),
                streams=list(streams),
                items=words.items(items),
            )
        ]


def _held_bytes(event: Event) -> int:
    match event:
        case TurnArrived():
            return event.frame_bytes
        case TurnEnded() | ErrorReceived():
            return len(event.received.payload)
    return 0
