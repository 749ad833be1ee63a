"""THE interpreter: feeds events to the core, performs its commands, owns the timer.

Nothing is decided here. Every method runs on the event loop's thread and returns at once; the one
coroutine, `run`, waits for the core to say how its turn ended.
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, assert_never

import msgspec

from wsproxy.answering import OverHttps, RunningTurn, new_id, told
from wsproxy.backlog import Backlog
from wsproxy.core.accounts import Accounts, Doors, Tracer, TurnAccount
from wsproxy.core.api.announced import is_announced
from wsproxy.core.api.contents import announced_headers
from wsproxy.core.api.errors import (
    has_lost_parent,
    upstream_error,
)
from wsproxy.core.api.events import Kind, Received, receive
from wsproxy.core.api.request import Request, UnfitError, frame
from wsproxy.core.api.spans import EventError
from wsproxy.core.commands import (
    AbortConnection,
    Answer,
    BreakTurn,
    CloseConnection,
    Command,
    Finish,
    Note,
    OpenConnection,
    RefuseTurn,
    RelayError,
    SendChainProbe,
    SendOverHttps,
    SendPing,
    SendTurn,
)
from wsproxy.core.conversation.fields import FieldReader
from wsproxy.core.conversation.identity import Identities
from wsproxy.core.conversation.plan import Route, Why
from wsproxy.core.events import (
    ClientLeft,
    ConnectionAborted,
    ConnectionLost,
    ConnectionOpened,
    DialFailed,
    DrainBegun,
    Event,
    FrameSent,
    LoadChanged,
    PongReceived,
    ProbeAnswered,
    Slept,
    Tick,
    TurnArrived,
    TurnStarted,
)
from wsproxy.core.ids import ConnectionId, PoolKey, TurnId
from wsproxy.core.multiplex.readers import ReaderLimits
from wsproxy.core.multiplex.recovery import Fault
from wsproxy.core.multiplex.relay import Relay, Stream
from wsproxy.core.multiplexer import Multiplexer
from wsproxy.core.wire.websocket import Message, Pong
from wsproxy.ports import Dialer, Headers, Link, Sink, Target
from wsproxy.pulse import Pulse
from wsproxy.reading import Inbound, Reader, ReadingLimits

#: Wall clock minus monotonic clock moving by more says that the machine slept (faults.md F45).
SLEEP_JUMP_S: Final = 5.0

_DICE: Final = random.SystemRandom()
_CONTROL: Final = re.compile(rb"[\x00-\x1f\x7f]")


def _clock_gap() -> float:
    return time.time() - time.monotonic()


@dataclass(frozen=True, slots=True)
class DriverOptions:
    """What the shells need of the settings."""

    websocket_url: str
    is_websocket_used: bool = True
    reading: ReadingLimits = field(default_factory=ReadingLimits)
    age_jitter_s: float = 300.0
    response_headers: Sequence[str] = ()
    forbids_ambiguous_retry: bool = False
    keeps_bodies: bool = False  # until the turn's end, for its trace
    readers: ReaderLimits = field(default_factory=ReaderLimits)


class Driver:
    """Implements `ports.LinkEvents`; `run` is the downstream side's door."""

    def __init__(
        self,
        options: DriverOptions,
        multiplexer: Multiplexer,
        identities: Identities,
        fields: FieldReader,
        dialer: Dialer,
        note: Callable[[Note], None] = lambda _note: None,
        models_etag_seen: Callable[[PoolKey, bytes], None] = lambda _key, _etag: None,
        *,
        tracers: Sequence[Tracer] = (),
        doors: Doors | None = None,
        dice: random.Random = _DICE,
        clock: Callable[[], float] | None = None,
        clock_gap: Callable[[], float] = _clock_gap,
    ) -> None:
        """To be made on the event loop. `clock` (s, monotonic) is the loop's own unless given:
        uvloop's stands still for a round and counts milliseconds. `dice` and `clock_gap` (wall
        clock minus monotonic, s) can be told for a simulation."""
        self._options = options
        self._now = clock or asyncio.get_running_loop().time
        self._core = multiplexer
        self._relays = multiplexer.relays
        self._reader = Reader(options.websocket_url, options.reading, identities, fields, note)
        self._dialer = dialer
        self._note = note
        self._models_etag_seen = models_etag_seen
        self._accounts = Accounts(multiplexer.turns, tracers)
        self._doors = doors
        self._running: dict[TurnId, RunningTurn] = {}
        self._links: dict[ConnectionId, Link] = {}
        self._dialled: dict[ConnectionId, tuple[PoolKey, Target]] = {}
        self._tickets: dict[ConnectionId, dict[int, Stream]] = {}  # of frames not wholly left
        self._ticket = 0
        self._follows: deque[Event] = deque()  # what comes of commands, once all are performed
        self._probes: set[ConnectionId] = set()
        self._announced: dict[ConnectionId, list[tuple[bytes, bytes]]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._backlog = Backlog(options.readers, self._cut_reader)
        self._pulse = Pulse(lambda is_late: self._handle(LoadChanged(is_late)))
        self._dice = dice
        self._read_clock_gap = clock_gap
        self._clock_gap = clock_gap()

    # ── Downstream's door ────────────────────────────────────────────────────────────────────

    async def run(self, inbound: Inbound, sink: Sink) -> OverHttps | None:
        """Answer one turn through `sink`; `OverHttps` if it is to be sent that way instead.

        Cancelled when the client leaves.
        """
        id_ = new_id(self._dice)
        account = TurnAccount(id_, self._now(), inbound.http_bytes, inbound.headers)
        try:
            event, request = self._read(id_, inbound, account)
        except UnfitError as error:
            account.over_https(Why(error.reason))
            account.sent = self._now()
            return OverHttps(told(id_, Route.HTTP, account.why), account)
        self._look_for_sleep()
        outcome: asyncio.Future[OverHttps | None] = asyncio.get_running_loop().create_future()
        let_go, transcript = inbound.let_go, event.transcript
        running = RunningTurn(id_, request, transcript, let_go, sink, outcome, account)
        self._accounts.begin(account)
        self._running[id_] = running
        self._pulse.start()
        over_https: OverHttps | None = None
        try:
            self._handle(event)
            del inbound, event, request  # or this frame would hold the body while it waits
            over_https = await outcome
            if over_https is not None:
                account.sent = self._now()
            return over_https
        except BaseException:  # cancelled, as a rule; whatever it is, the core may not keep it
            self._handle(ClientLeft(id_))
            raise
        finally:
            del self._running[id_]
            self._accounts.leave(id_)
            if not self._running:
                self._pulse.stop()
            if over_https is None:
                self._accounts.end(account, self._now())

    def _read(
        self, id_: TurnId, inbound: Inbound, account: TurnAccount
    ) -> tuple[TurnArrived, Request]:
        """Raises `UnfitError` if it is to go over HTTPS; whose turn it is, is told all the same."""
        identity = self._reader.identify(inbound)
        account.asked_by(identity.pool_key, identity.hint)
        event, request = self._reader.read(id_, inbound, identity)
        account.asked(event, request)
        if not self._options.is_websocket_used:
            raise UnfitError("transport_http")
        return event, request

    def heard_over_https(self, turn: OverHttps, size: int) -> None:
        """So many bytes of the answer came over HTTPS."""
        turn.account.heard_over_https(size, self._now())

    def left_over_https(self, turn: OverHttps) -> None:
        """The client left before that answer's end."""
        turn.account.ended("client_left", None, Fault.CLIENT_LEFT.value)
        self._accounts.end(turn.account, self._now())

    def ended_over_https(self, turn: OverHttps, status: int | None, code: str = "") -> None:
        """The answer that came over HTTPS has ended; None: there was none, or it was cut.

        `code`: of our own error, where we had to answer instead of upstream.
        """
        outcome = "broken" if status is None else "completed" if status < 400 else "error"
        turn.account.ended(outcome, status, code)
        self._accounts.end(turn.account, self._now())

    def _look_for_sleep(self) -> None:
        """Soon after it, so that what was opened since is not taken for older than it is."""
        gap = self._read_clock_gap()
        if gap - self._clock_gap > SLEEP_JUMP_S:
            self._handle(Slept(gap - self._clock_gap))
        self._clock_gap = gap

    # ── Upstream's door (ports.LinkEvents) ───────────────────────────────────────────────────

    def link_opened(self, connection: ConnectionId, headers: Headers, is_compressed: bool) -> None:
        """See `ports.LinkEvents`."""
        self._look_for_sleep()
        if connection not in self._links:
            return  # it was given up for that
        allowed = self._options.response_headers
        self._announced[connection] = [
            (name, value)
            for name, value in headers
            if is_announced(name.decode("latin-1"), allowed) and not _CONTROL.search(value)
        ]
        self._look_for_etag(connection, self._announced[connection])
        if is_compressed:
            self._accounts.compressed(connection)
        jitter_s = self._dice.uniform(0, self._options.age_jitter_s)
        self._handle(ConnectionOpened(connection, jitter_s))

    def link_refused(
        self,
        connection: ConnectionId,
        fault: Fault,
        status: int | None,
        headers: Headers,
        body: bytes,
        detail: str,
    ) -> None:
        """See `ports.LinkEvents`."""
        if self._forget_link(connection) is None:
            return
        retry_after_s, jitter = _retry_after_s(headers), self._dice.random()
        self._handle(DialFailed(connection, fault, status, retry_after_s, detail, jitter))

    def link_sent(self, connection: ConnectionId, ticket: int) -> None:
        """See `ports.LinkEvents`."""
        stream = self._tickets.get(connection, {}).pop(ticket, None)
        if stream is not None:
            stream.is_sent = True
            self._handle(FrameSent(stream.turn, connection))

    def link_lost(
        self, connection: ConnectionId, fault: Fault, detail: str, unsent: Sequence[int]
    ) -> None:
        """See `ports.LinkEvents`."""
        tickets = self._tickets.get(connection, {})
        if self._forget_link(connection) is None:
            return  # it was given up before
        turns = [tickets[ticket].turn for ticket in unsent if ticket in tickets]
        self._handle(ConnectionLost(connection, fault, detail, turns, self._dice.random()))

    def link_received(self, connection: ConnectionId, messages: Sequence[Message]) -> None:
        """See `ports.LinkEvents`. The hot path: the core is asked only for what matters."""
        now = self._now()
        self._core.heard(connection, now)
        if self._doors is not None:
            self._doors.heard(connection, now)
        relay = self._relays.get(connection)
        for message in messages:
            if relay is None:
                return  # the connection was given up while this read was looked at
            if type(message) is not bytes:
                if isinstance(message, Pong):
                    self._handle(PongReceived(connection))
            elif connection in self._probes:
                self._probe_answered(connection, message)
            else:
                significant = relay.receive(message, now)
                if significant is None:
                    continue
                if isinstance(significant, Received):
                    self._announce(relay, significant)
                else:
                    self._handle(significant)
                    if isinstance(significant, TurnStarted):
                        self._let_go_of_body(significant.turn)
            relay = self._relays.get(connection)
        if relay is not None and relay.dirty:
            relay.drain(self._write)

    def _let_go_of_body(self, turn: TurnId) -> None:
        """What has started is never sent again (recovery.py: no cell of STARTED says so)."""
        running = self._running.get(turn)
        if running is not None and not self._options.keeps_bodies:
            running.let_go_of_body()

    def _write(self, stream: Stream, data: bytes) -> None:
        running = self._running.get(stream.turn)
        if running is not None and running.stream is stream:
            behind = running.sink.write(data)
            if behind:
                self._wrote(running, len(data))

    def _wrote(self, running: RunningTurn, size: int) -> None:
        self._backlog.wrote(running.id, running.sink, size)

    def _cut_reader(self, turn: TurnId, sink: Sink, fault: Fault) -> None:
        """The client takes too little of its answer; also one whose turn has ended since."""
        self._note(Note("client.cut", turn, fault=fault.value, detail=fault.what))
        self._handle(ClientLeft(turn, fault))
        sink.drop()

    def _look_for_etag(self, connection: ConnectionId, headers: Headers) -> None:
        key = self._core.key_of(connection)
        for name, value in headers:
            if name.lower() == b"x-models-etag" and key is not None:
                self._models_etag_seen(key, value)

    def _announce(self, relay: Relay, received: Received) -> None:
        """Headers of a WebSocket-only frame, for the one turn that can still use them."""
        found = announced_headers(received.payload, self._options.response_headers)
        headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in found]
        self._look_for_etag(relay.connection, headers)
        streams = [relay.default] if relay.default else list(relay.streams.values())
        if received.stream_id is not None:
            named = relay.streams.get(received.stream_id)
            streams = [named] if named is not None else []
        unstarted = [stream for stream in streams if not stream.is_started]
        if len(unstarted) != 1 or unstarted[0].turn not in self._running:
            return
        self._running[unstarted[0].turn].headers += headers

    def _probe_answered(self, connection: ConnectionId, message: bytes) -> None:
        try:
            kind = receive(message).kind
            is_refusal = kind is Kind.ERROR and has_lost_parent(upstream_error(message))
        except EventError:
            self._handle(ProbeAnswered(connection, False))
            return
        if kind is Kind.CONNECTION:
            return
        self._handle(ProbeAnswered(connection, is_refusal))

    # ── Drain ────────────────────────────────────────────────────────────────────────────────

    @property
    def running_count(self) -> int:
        """Turns that have no end yet."""
        return len(self._running)

    def drain(self, timeout_s: float) -> None:
        """Accept nothing new; what still runs is cut after `timeout_s`."""
        self._handle(DrainBegun(self._now() + timeout_s))

    def close(self) -> None:
        """Close every connection (1001) and stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
        self._backlog.close()
        self._pulse.stop()
        for connection in list(self._links):
            if (link := self._forget_link(connection)) is not None:
                link.close(1001)

    # ── Performing ───────────────────────────────────────────────────────────────────────────

    def _handle(self, event: Event) -> None:
        now = self._now()
        commands = self._core.handle(event, now)
        self._accounts.handled(event, commands, self._now())
        if self._doors is not None:
            self._doors.handled(event, now, commands)
        try:
            for command in commands:
                self._perform(command)
        finally:
            self._set_timer()
        while self._follows:
            self._handle(self._follows.popleft())

    def _set_timer(self) -> None:
        at = self._core.next_alarm()
        if self._timer is not None:
            if at is not None and self._timer_at <= at and not self._timer.cancelled():
                return
            self._timer.cancel()
        loop = asyncio.get_running_loop()
        self._timer = None if at is None else loop.call_later(at - self._now(), self._tick)
        self._timer_at = at or 0.0  # uvloop's handle of a time that has passed cannot tell it

    def _tick(self) -> None:
        self._timer = None
        self._look_for_sleep()
        self._handle(Tick())

    def _perform(self, command: Command) -> None:
        match command:
            case SendTurn():
                self._send_turn(command)
            case Answer(turn):
                running = self._running[turn]
                self._wrote(running, running.answer())
            case Finish(turn, received):
                running = self._running[turn]
                self._wrote(running, running.finish(received))
            case RelayError(turn, error):
                self._running[turn].relay_error(error)
            case SendOverHttps(turn, why):
                self._running[turn].send_over_https(why)
            case RefuseTurn(turn):
                forbids_retry = self._options.forbids_ambiguous_retry
                self._running[turn].refuse(command, forbids_retry=forbids_retry)
            case BreakTurn(turn, code, message):
                self._running[turn].break_off(code, message)
            case OpenConnection(connection, key):
                self._dial(connection, key)
            case CloseConnection(connection, code, reason):
                if (link := self._forget_link(connection)) is not None:
                    link.close(code, reason)
            case AbortConnection(connection):
                self._abort(connection)
            case SendChainProbe():
                self._send_chain_probe(command)
            case SendPing(connection):
                if (link := self._links.get(connection)) is not None:
                    link.ping(b"")
            case Note():
                self._note(command)
            case _:
                assert_never(command)

    def _dial(self, connection: ConnectionId, key: PoolKey) -> None:
        target = self._reader.target(key)
        if target is None:  # a successor's, perhaps: what it follows was opened with one
            target = next((known for of, known in self._dialled.values() if of == key), None)
        if target is None:
            detail = "its headers are not remembered: too many other keys came since"
            failed = DialFailed(connection, Fault.UNREACHABLE, None, None, detail)
            self._follows.append(failed)
            return
        self._dialled[connection] = key, target
        self._links[connection] = self._dialer.dial(connection, target, self)

    def _abort(self, connection: ConnectionId) -> None:
        tickets = self._tickets.get(connection, {})
        link = self._forget_link(connection)
        unsent = link.abort() if link is not None else ()
        turns = [tickets[ticket].turn for ticket in unsent if ticket in tickets]
        self._follows.append(ConnectionAborted(connection, turns))

    def _forget_link(self, connection: ConnectionId) -> Link | None:
        self._announced.pop(connection, None)
        self._dialled.pop(connection, None)
        self._probes.discard(connection)
        self._tickets.pop(connection, None)
        return self._links.pop(connection, None)

    def _send_turn(self, command: SendTurn) -> None:
        running = self._running[command.turn]
        running.placed(command, self._announced.get(command.connection, ()))
        assert running.request is not None, "it had started"
        payload = frame(
            running.request,
            lane=command.lane,
            parent=command.parent,
            delta_from=command.delta_from,
        )
        self._accounts.framed(command.turn, len(payload), self._now())
        self._ticket += 1
        self._tickets.setdefault(command.connection, {})[self._ticket] = command.stream
        command.stream.is_sent = False
        self._links[command.connection].send(payload, self._ticket)

    def _send_chain_probe(self, command: SendChainProbe) -> None:
        """An id that cannot exist: only an upstream that looks ids up can refuse it."""
        self._probes.add(command.connection)
        probe = {
            "type": "response.create",
            "model": msgspec.Raw(self._reader.model(command.key)),
            "input": [{"type": "message", "role": "user", "content": "."}],
            "previous_response_id": "resp_" + self._dice.randbytes(24).hex(),
            "store": False,
            "generate": False,
        }
        self._links[command.connection].send(msgspec.json.encode(probe), 0)


def _retry_after_s(headers: Headers) -> float | None:
    for name, value in headers:
        if name.lower() == b"retry-after" and value.strip().isdigit():
            return min(float(value), 3600.0)
    return None
