"""The recorded events through a fresh core: does it give the same commands?

A run can be replayed from its first event on, as far as no door is missing: the oldest files of a
long run are removed, and a full queue drops. Notes are for the log and are not compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final

import msgspec

from wsproxy.core.api.events import Kind, Received
from wsproxy.core.api.items import Item, Pairing
from wsproxy.core.api.request import UnfitError
from wsproxy.core.conversation.history import History
from wsproxy.core.conversation.transcript import Transcript
from wsproxy.core.events import (
    ClientLeft,
    ConnectionAborted,
    ConnectionLost,
    ConnectionOpened,
    ContextLost,
    DialFailed,
    DrainBegun,
    ErrorReceived,
    Event,
    FrameSent,
    LoadChanged,
    MessageRefused,
    PongReceived,
    ProbeAnswered,
    Slept,
    Tick,
    TurnArrived,
    TurnEnded,
    TurnStarted,
)
from wsproxy.core.ids import ConnectionId, Digest, PoolKey, SessionName
from wsproxy.core.multiplex.options import Options
from wsproxy.core.multiplex.recovery import Fault
from wsproxy.core.multiplexer import Multiplexer
from wsproxy.trace.doors import Words
from wsproxy.trace.keyed import KEY_BYTES, Keyed
from wsproxy.trace.reader import TraceError, journal_lines
from wsproxy.trace.record import Core, Door, Dropped, decode

#: Events whose members are plain values; `fault` and `detail` are seen to.
_PLAIN_EVENTS: Final[Mapping[str, type[Any]]] = {
    event.__name__: event
    for event in (
        ClientLeft,
        ConnectionAborted,
        ConnectionLost,
        ConnectionOpened,
        ContextLost,
        DialFailed,
        DrainBegun,
        FrameSent,
        LoadChanged,
        MessageRefused,
        PongReceived,
        ProbeAnswered,
        Slept,
        Tick,
    )
}
#: What a door raises that is JSON of the right shape and yet no door of this version.
_UNREADABLE: Final = (AttributeError, LookupError, TypeError, ValueError)
_DAMAGED: Final = "cannot be read: damaged, or of another version"
_LOST_PARENT: Final = "Previous response with id x not found."


@dataclass(slots=True)
class Recorded:
    """What the journal has of one run's core."""

    core: Core | None = None
    doors: list[Door] = field(default_factory=list)
    lost: int = 0  # records of all runs of the folder


@dataclass(frozen=True, slots=True)
class Difference:
    """The first event for which other commands came than were recorded."""

    number: int
    event: str
    recorded: list[dict[str, Any]]
    given: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a replay of one run came to; `missing` says why it could not go on, "" if it could.

    `lost`: records that the folder's journals dropped, where that may be why.
    """

    run: str
    events: int
    commands: int
    difference: Difference | None = None
    missing: str = ""
    lost: int = 0


def read_runs(lines: Iterable[bytes]) -> dict[str, Recorded]:
    """The recorded cores of a journal by run, in order."""
    runs: dict[str, Recorded] = {}
    lost = 0
    for line in lines:
        try:
            record = decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue
        if isinstance(record, Core):
            runs.setdefault(record.run, Recorded()).core = record
        elif isinstance(record, Door):
            runs.setdefault(record.run, Recorded()).doors.append(record)
        elif isinstance(record, Dropped):
            lost += record.count
    for recorded in runs.values():
        recorded.lost = lost
    return runs


def replay(run: str, recorded: Recorded) -> Outcome:
    """Run the core again, up to the first difference or gap."""
    doors = sorted(recorded.doors, key=lambda door: door.number)
    if recorded.core is None or (doors and doors[0].number != 1):
        missing = f"its beginning is not in the journal any more{_why(recorded.lost)}"
        return Outcome(run, 0, 0, missing=missing, lost=recorded.lost)
    try:
        stage = _Stage(recorded.core, doors)
    except _UNREADABLE:
        return Outcome(run, 0, 0, missing=f"its options or items {_DAMAGED}")
    commands = 0
    for number, door in enumerate(doors, start=1):
        if door.number != number:
            missing = f"event {number} was not recorded{_why(recorded.lost)}"
            return Outcome(run, number - 1, commands, missing=missing, lost=recorded.lost)
        try:
            event = stage.read(door)
        except _UNREADABLE:
            return Outcome(run, number - 1, commands, missing=f"event {number} {_DAMAGED}")
        given = stage.take(event, door)
        if given != door.commands:
            difference = Difference(number, str(door.event.get("is")), door.commands, given)
            return Outcome(run, number - 1, commands, difference)
        commands += len(given)
    return Outcome(run, len(doors), commands)


def _why(lost: int) -> str:
    """What may have taken a record away."""
    return f"; {lost} records were lost: queue full, or the disk refused" if lost else ""


class _Same(Words):
    """The values at a replay's doors have their keyed names already."""

    def __init__(self) -> None:
        super().__init__(Keyed(bytes(KEY_BYTES)))

    def _digest(self, value: bytes) -> str:
        return value.hex()

    def id(self, value: str) -> str:
        return value


class _Stage:
    """A core as the recorded one was, and the transcripts it asks."""

    def __init__(self, core: Core, doors: Sequence[Door]) -> None:
        options = msgspec.convert(core.options, Options)
        self._core = Multiplexer(options, History(**core.history))
        self._words = _Same()
        self._items: dict[str, dict[int, Item]] = {}
        for door in doors:
            read = self._items.setdefault(str(door.event.get("turn")), {})
            read.update((int(index), _item(item)) for index, item in door.items.items())

    def read(self, door: Door) -> Event:
        """The event of a door. Raises one of `_UNREADABLE`."""
        return self._event(door.event)

    def take(self, event: Event, door: Door) -> list[dict[str, Any]]:
        """Let the core handle one event; its commands as the journal writes them.

        A core that fails on it gives that as its command: then the journal tells of what cannot
        have happened, or shows a bug.
        """
        try:
            for connection, at in door.heard:
                self._core.heard(ConnectionId(connection), at)
            self._hear(dict(door.streams))
            self._start(event)
            return self._words.commands(self._core.handle(event, door.now))
        except Exception as error:
            return [{"is": "raised", "error": type(error).__name__}]

    def _hear(self, heard: Mapping[str, float]) -> None:
        for relay in self._core.relays.values():
            for stream in (relay.default, *relay.streams.values()):
                if stream is not None and stream.turn in heard:
                    stream.heard_at = heard[stream.turn]

    def _start(self, event: Event) -> None:
        """What the relay notes before it tells the core."""
        if isinstance(event, TurnStarted | TurnEnded | ErrorReceived | ContextLost):
            relay = self._core.relays.get(event.connection)
            stream = relay.find(event.turn) if relay and event.turn is not None else None
            if stream is not None:
                stream.is_started = True

    def _event(self, told: dict[str, Any]) -> Event:
        given = {name: value for name, value in told.items() if name != "is"}
        match told["is"]:
            case "TurnArrived":
                return self._arrived(given)
            case "TurnStarted":
                return TurnStarted(**{**given, "received": _received(given["received"])})
            case "TurnEnded":
                outputs = given["outputs"]
                items = outputs and [[_item(item) for item in versions] for versions in outputs]
                received = _received(given["received"])
                return TurnEnded(**{**given, "received": received, "outputs": items})
            case "ErrorReceived":
                error = given.pop("error")
                received = _received(given["received"], _frame(error))
                return ErrorReceived(**{**given, "received": received})
            case name:
                event: Event = _plain_event(_PLAIN_EVENTS[name], given)
                return event

    def _arrived(self, given: dict[str, Any]) -> TurnArrived:
        told, hint = given["transcript"], given["hint"]
        transcript = RecordedTranscript(told, self._items.get(given["turn"], {}))
        changed = {
            "key": PoolKey(bytes.fromhex(given["key"])),
            "hint": hint and (hint[0], SessionName(bytes.fromhex(hint[1]))),
            "transcript": transcript,
            "fields": {n: Digest(bytes.fromhex(value)) for n, value in given["fields"].items()},
            "own_parent": _parent(given["own_parent"]),
        }
        return TurnArrived(**{**given, **changed})


class RecordedTranscript(Transcript):
    """Answers what the recorded one answered."""

    def __init__(self, told: Mapping[str, Any], items: Mapping[int, Item]) -> None:
        self._length: int = told["length"]
        self._items = dict(items)
        self.is_whole_context = told["is_whole_context"]
        self.is_stored = told["is_stored"]
        self.prefixes = {int(k): Digest(bytes.fromhex(v)) for k, v in told["prefixes"].items()}

    def __len__(self) -> int:
        return self._length

    def _read(self, index: int) -> Item:
        raise UnfitError("unparsed")  # as it did, or it would have been recorded

    def raw_prefixes(self, seed: bytes, lengths: object) -> dict[int, Digest]:
        """Those that were told then; `lengths` are the same."""
        return self.prefixes


def _plain_event(event: type[Any], given: dict[str, Any]) -> Any:
    if given.get("fault") is not None:
        given["fault"] = Fault[given["fault"]]
    if "detail" in {one.name for one in fields(event)}:
        given["detail"] = ""
    return event(**given)


def _received(told: Mapping[str, Any], payload: bytes = b"{}") -> Received:
    return Received(told["type"], Kind[told["kind"]], None, None, payload, False, False, False)


def _frame(error: Mapping[str, Any]) -> bytes:
    """An error frame out of which the core reads the same."""
    message = "stream_id" if error["is_about_lanes"] else ""
    told = {
        "code": error["code"],
        "type": error["type"],
        "message": _LOST_PARENT if error["has_lost_parent"] else message,
    }
    kept = {name: value for name, value in told.items() if value is not None}
    return msgspec.json.encode({"type": "error", "status": error["status"], "error": kept})


def _parent(told: str | None) -> bytes | None:
    if told is None:
        return None
    return b"null" if told == "null" else msgspec.json.encode(told)


def _item(told: Mapping[str, Any]) -> Item:
    def digest(name: str) -> Any:
        return None if told[name] is None else bytes.fromhex(told[name])

    def pairing(name: str) -> Pairing | None:
        return None if told[name] is None else Pairing(**told[name])

    return Item(
        type=told["type"],
        role=told["role"],
        exact=digest("exact"),
        identity=digest("identity"),
        optional=frozenset(map(bytes.fromhex, told["optional"])),
        blobs=frozenset(map(bytes.fromhex, told["blobs"])),
        id_mark=digest("id_mark"),
        call=pairing("call"),
        answer=pairing("answer"),
        is_reference=told["is_reference"],
    )


def outcomes(folder: Path) -> Iterator[Outcome]:
    """Replay every run of a folder. Raises `TraceError`."""
    runs = read_runs(journal_lines(folder))
    if not runs:
        advice = "a copy by `wsproxy trace share` or `export` has none: replay the original"
        raise TraceError(f"nothing to replay: no events of a core in {folder}", advice)
    for run, recorded in runs.items():
        yield replay(run, recorded)
