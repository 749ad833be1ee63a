"""Upstream messages → bytes for each turn: the hot path.

Rules of this file
------------------
1. An ordinary event costs one look, its edits and an append; the core is asked only when a turn
   starts, ends, errs, or when something is wrong.
2. What the core is told can be edited and read: whatever cannot is refused before (F18).
3. Bytes are gathered per turn and handed on once per read (`drain`).
4. If it is not certain whose bytes these are, nobody gets them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from msgspec import UNSET

from wsproxy.core.api.canonical import NotStrictError
from wsproxy.core.api.contents import (
    Usage,
    echoed_parent,
    is_gapless,
    ordered,
    output_item,
    outputs,
    response_id,
    shows_parent,
    usage,
)
from wsproxy.core.api.edits import edited, relayed, sse
from wsproxy.core.api.errors import upstream_error
from wsproxy.core.api.events import USUAL_TYPES, Head, Kind, Received, look, receive
from wsproxy.core.api.items import Item, read_item
from wsproxy.core.api.spans import EventError
from wsproxy.core.events import (
    ContextLost,
    ErrorReceived,
    MessageRefused,
    TurnEnded,
    TurnStarted,
)
from wsproxy.core.ids import ConnectionId, LaneName, TurnId
from wsproxy.core.multiplex.recovery import Fault

Significant = TurnStarted | TurnEnded | ErrorReceived | ContextLost | MessageRefused
_TERMINAL = frozenset({Kind.COMPLETED, Kind.ENDED})
_WITH_RESPONSE = frozenset({Kind.LIFECYCLE, Kind.COMPLETED, Kind.ENDED})


@dataclass(frozen=True, slots=True)
class TurnLimits:
    """Against an upstream that never ends (faults.md §4, 16)."""

    max_events: int = 2_000_000
    max_bytes: int = 268_435_456


class Stream:
    """One turn's events on their way home.

    `restored` is the raw JSON that `previous_response_id` gets back, None if we added no id.
    `heard_at`: when its last event came; before the first one, when its frame left.
    """

    __slots__ = (
        "done",
        "event_count",
        "expects_parent",
        "first_event_at",
        "first_output_at",
        "floor_tokens",
        "heard_at",
        "is_discarding",
        "is_parent_asked",
        "is_parent_shown",
        "is_sent",
        "is_started",
        "is_streaming",
        "next_number",
        "parent",
        "pending",
        "response_id",
        "restored",
        "turn",
        "upstream_bytes",
    )

    def __init__(
        self,
        turn: TurnId,
        *,
        is_streaming: bool,
        parent: str | None,
        restored: bytes | None,
        expects_parent: bool = False,
        floor_tokens: int | None = None,
        now: float = 0.0,
    ) -> None:
        self.turn = turn
        self.is_streaming = is_streaming
        self.parent = parent
        self.restored = restored
        self.expects_parent = expects_parent  # this upstream has named parents before
        self.floor_tokens = floor_tokens  # it cannot read fewer, if it remembers the parent
        self.is_parent_asked = self.is_parent_shown = False
        self.next_number = 0
        self.pending: list[bytes] = []
        self.done: list[tuple[int | None, bytes]] = []
        self.is_sent = True  # False while its frame leaves: the driver sees it go
        self.is_started = False
        self.response_id: str | None = None  # as its first event with a response named it
        self.is_discarding = False
        self.heard_at = now
        self.first_event_at: float | None = None
        self.first_output_at: float | None = None  # of the first event that is no lifecycle
        self.event_count = 0
        self.upstream_bytes = 0

    def has_lost_context(self, received: Received) -> bool:
        """The tripwire: upstream continued from another response than the one we named.

        Not to name one says nothing. To say that there is none (null) where its beginnings named
        one before says so, too, of an upstream that nobody vouches for (`expects_parent`).
        """
        if self.parent is None:
            return False
        payload = received.payload
        shown = shows_parent(payload, self.parent)
        is_beginning = received.kind is Kind.LIFECYCLE and not self.is_parent_asked
        self.is_parent_asked = True
        if is_beginning and shown:
            self.is_parent_shown = True
        is_denied = is_beginning and self.expects_parent and echoed_parent(payload) is None
        return shown is False or is_denied

    def has_read_too_little(self, tokens: Usage | None) -> bool:
        """The tripwire's second sign: an upstream may name the parent and have forgotten it."""
        floor = self.floor_tokens
        return tokens is not None and floor is not None and tokens.input_tokens < floor

    def forward(self, received: Received) -> None:
        """Append the event as HTTP would have sent it."""
        if self.is_discarding:
            return
        number = self.next_number
        if self.is_streaming:  # an event that cannot be edited raises, and takes no number
            self.pending.append(sse(received.type, edited(received, number, self.restored)))
        if received.is_numbered:
            self.next_number = number + 1

    def relay(self, head: Head, payload: bytes) -> None:
        """The same for one of the usual events of a turn that has started."""
        number = self.next_number
        if self.is_streaming and not self.is_discarding:
            self.pending.append(relayed(head, payload, number, self.restored))
        if head.sequence_number is not UNSET:
            self.next_number = number + 1

    def take_pending(self) -> bytes:
        """What is to be written now, in one piece."""
        pending = self.pending
        if len(pending) == 1:
            whole = pending[0]
        else:
            whole = b"".join(pending)
        pending.clear()
        return whole

    def remember(self, received: Received) -> None:
        """Keep an output item until the turn's end: it is what the next turn will echo."""
        if not self.is_discarding:
            self.done.append(output_item(received.payload))

    def outputs(self, received: Received) -> list[list[Item]] | None:
        """The items of a completed response in order, in the versions seen; None if one is
        missing or unknown (contract §5.1)."""
        if not is_gapless(self.done):
            return None
        done = ordered(self.done)
        final = outputs(received.payload)
        if final and len(final) != len(done):
            return None
        try:
            versions = [[read_item(item)] for item in done]
            for seen, item, again in zip(versions, done, final, strict=False):
                seen.append(seen[0] if again == item else read_item(again))
        except NotStrictError:
            return None
        return versions


class Relay:
    """The streams of one connection, by lane.

    `default` gets what carries no `stream_id`: the one turn of a connection without lanes, or
    the turn that is finding out.
    """

    def __init__(self, connection: ConnectionId, limits: TurnLimits | None = None) -> None:
        limits = limits or TurnLimits()
        self.connection = connection
        self._max_events, self._max_bytes = limits.max_events, limits.max_bytes
        self.streams: dict[str, Stream] = {}
        self.default: Stream | None = None
        self.names: set[str] = set()
        self._ended: dict[str | None, str] = {}  # the last response of each lane
        self.dirty: list[Stream] = []

    def add(self, lane: LaneName, stream: Stream, *, is_default: bool) -> None:
        """Events of this lane belong to the stream from now on."""
        if lane:
            self.names.add(lane)
            self.streams[lane] = stream
        if is_default:
            self.default = stream

    def lanes_known(self, *, has_lanes: bool) -> None:
        """The first turn has told whether lanes are echoed."""
        if has_lanes:
            self.default = None
        else:
            self.streams.clear()
            self.names.clear()  # were one of them used after all, nobody could say for whom

    def remove(self, turn: TurnId) -> None:
        """The turn has ended; later events on its lane are nobody's."""
        self.streams = {lane: s for lane, s in self.streams.items() if s.turn != turn}
        if self.default is not None and self.default.turn == turn:
            self.default = None

    def find(self, turn: TurnId) -> Stream | None:
        """The stream of a turn that runs on this connection."""
        if self.default is not None and self.default.turn == turn:
            return self.default
        return next((s for s in self.streams.values() if s.turn == turn), None)

    def receive(self, payload: bytes, now: float) -> Significant | Received | None:
        """Take one message; what the core must know, and WebSocket-only frames, are returned."""
        try:
            head = look(payload)
            lane = head.stream_id
            stream = self.streams.get(lane) if type(lane) is str else self.default
            if stream is None:
                received = receive(payload, head)
                return received if received.kind is Kind.CONNECTION else self._nobodys(received)
            if not stream.is_started or head.type not in USUAL_TYPES:
                return self._unusual(stream, receive(payload, head), now)
            stream.heard_at = now
            stream.event_count += 1
            stream.upstream_bytes += len(payload)
            if stream.upstream_bytes > self._max_bytes or stream.event_count > self._max_events:
                return self._endless()
            if stream.first_output_at is None:
                stream.first_output_at = now
            if not stream.pending:
                self.dirty.append(stream)
            stream.relay(head, payload)
            return None
        except EventError as error:
            return MessageRefused(self.connection, Fault.INVALID_EVENT, str(error))

    def _endless(self) -> MessageRefused:
        return MessageRefused(self.connection, Fault.MESSAGE_TOO_BIG, "an endless turn")

    def _unusual(
        self, stream: Stream, received: Received, now: float
    ) -> Significant | Received | None:
        """Of everything but the usual events there are a few in a turn."""
        if received.kind is Kind.CONNECTION:
            return received
        stream.heard_at = now
        stream.event_count += 1
        stream.upstream_bytes += len(received.payload)
        if stream.upstream_bytes > self._max_bytes or stream.event_count > self._max_events:
            return self._endless()
        if received.kind is Kind.ORDINARY and stream.is_started:
            if stream.first_output_at is None:
                stream.first_output_at = now
            self._forward(stream, received)
            return None
        return self._significant(stream, received)

    def _forward(self, stream: Stream, received: Received) -> None:
        if not stream.pending:
            self.dirty.append(stream)
        stream.forward(received)

    def _significant(self, stream: Stream, received: Received) -> Significant | None:
        kind = received.kind
        if not stream.is_sent:
            # Its frame has not wholly left: this is left over from the turn before it (F22).
            return self._nobodys(received)
        is_first, stream.is_started = not stream.is_started, True
        if is_first:
            stream.first_event_at = stream.heard_at
        has_echo = received.stream_id is not None
        if kind is Kind.ITEM_DONE:
            stream.remember(received)
        if kind is Kind.ERROR:
            return self._error(stream.turn, received, is_first=is_first, has_echo=has_echo)
        if kind in _WITH_RESPONSE:
            named = response_id(received.payload)
            if self._is_anothers(stream, received, named):
                return MessageRefused(self.connection, Fault.UNATTRIBUTABLE_EVENT, "not its own")
            if stream.has_lost_context(received):
                return ContextLost(self.connection, stream.turn)
            if kind in _TERMINAL:
                return self._ends(stream, received, named, is_first)
            stream.response_id = stream.response_id or named
        if is_first:
            stream.forward(received)
            return TurnStarted(self.connection, stream.turn, received, has_echo)
        self._forward(stream, received)
        return None

    def _error(
        self, turn: TurnId | None, received: Received, *, is_first: bool, has_echo: bool
    ) -> ErrorReceived:
        """An error frame that cannot be read is refused here (F18), before the core acts on it."""
        upstream_error(received.payload)
        return ErrorReceived(self.connection, turn, received, is_first, has_echo)

    def _ends(
        self, stream: Stream, received: Received, named: str | None, is_first: bool
    ) -> TurnEnded | ContextLost:
        """A turn whose response changed its name on the way is not continued."""
        has_echo = received.stream_id is not None
        if named is not None:
            self._ended[received.stream_id] = named
        is_same = stream.response_id in (None, named)
        is_kept = received.kind is Kind.COMPLETED and is_same
        tokens = usage(received.payload) if is_kept else None
        if stream.has_read_too_little(tokens):
            return ContextLost(self.connection, stream.turn)
        outputs_ = stream.outputs(received) if is_kept else None
        stream.forward(received)
        return TurnEnded(
            self.connection,
            stream.turn,
            received,
            is_first,
            has_echo,
            named if is_kept else None,
            outputs_,
            (tokens.input_tokens, tokens.visible_tokens) if tokens else None,
        )

    def _is_anothers(self, stream: Stream, received: Received, named: str | None) -> bool:
        """Whether the event names the response that ended on this lane before, or that runs on
        another one: then lanes or turns got mixed up, and nobody can say whose bytes these are.

        A first event that opens a response is believed: it is what gives the turn its name.
        """
        if named is None or named == stream.response_id:
            return False
        if stream.response_id is None and received.kind is Kind.LIFECYCLE:
            return False
        if named == self._ended.get(received.stream_id):
            return True
        return any(named == other.response_id for other in self.streams.values())

    def _nobodys(self, received: Received) -> Significant | None:
        """An event no running turn can be given (F21, F22, F30)."""
        if received.kind is Kind.ERROR and received.stream_id is None:
            return self._error(None, received, is_first=False, has_echo=False)
        if not received.type.startswith("response.") and received.kind is not Kind.ERROR:
            return None  # of the connection, whoever invented it; nobody's answer is touched
        is_late = received.stream_id in self.names if received.stream_id else not self.streams
        fault = Fault.LATE_EVENT if is_late else Fault.UNATTRIBUTABLE_EVENT
        return MessageRefused(self.connection, fault, received.type)

    def drain(self, write: Callable[[Stream, bytes], None]) -> None:
        """Hand on what one read brought: one write a turn."""
        dirty, self.dirty = self.dirty, []
        for stream in dirty:
            if stream.pending:
                write(stream, stream.take_pending())
