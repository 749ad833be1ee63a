"""Who is asked: one event in, commands out. Everything that is decided, is decided below here.

Rules of this file
------------------
1. `handle` is synchronous and whole: no lock, no await, no clock (it is told the time).
2. Each event goes to the one noun that decides about it; after every event the queue is looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

from wsproxy.core.api.items import Item, Pairing, hold, is_known_output
from wsproxy.core.commands import Answer, Command, Finish
from wsproxy.core.conversation.history import Checkpoint, History
from wsproxy.core.conversation.plan import Route
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
from wsproxy.core.ids import ConnectionId, PoolKey, TurnId
from wsproxy.core.multiplex.admission import Admission
from wsproxy.core.multiplex.alarms import Kind
from wsproxy.core.multiplex.beliefs import Beliefs
from wsproxy.core.multiplex.board import Board
from wsproxy.core.multiplex.chain_probes import ChainProbes
from wsproxy.core.multiplex.deadlines import Deadlines
from wsproxy.core.multiplex.dialling import Dialling
from wsproxy.core.multiplex.discovery import Discovery
from wsproxy.core.multiplex.judging import Judging
from wsproxy.core.multiplex.options import Options
from wsproxy.core.multiplex.placing import Placing
from wsproxy.core.multiplex.pool import Pool
from wsproxy.core.multiplex.recovery import Phase
from wsproxy.core.multiplex.relay import Relay
from wsproxy.core.multiplex.turn import Turn
from wsproxy.core.multiplex.upkeep import Upkeep

__all__ = ["Multiplexer", "Options"]


class Multiplexer:
    """The core's one object. `handle` is its door; the rest is for looking."""

    def __init__(self, options: Options, history: History) -> None:
        self._board = Board(options, history)
        self._discovery = Discovery(self._board)
        self._judging = Judging(self._board, self._discovery)
        self._deadlines = Deadlines(self._board, self._judging)
        self._placing = Placing(self._board, self._deadlines)
        self._chain_probes = ChainProbes(self._board)
        self._admission = Admission(self._board)
        self._upkeep = Upkeep(self._board, self._judging)
        self._dialling = Dialling(
            self._board, self._placing, self._judging, self._deadlines, self._chain_probes
        )

    def __repr__(self) -> str:
        return f"<Multiplexer {self._board!r}>"

    # ── The door ─────────────────────────────────────────────────────────────────────────────

    def handle(self, event: Event, now: float) -> list[Command]:
        """Take one event; the caller performs the returned commands in order, at once."""
        self._take(event, now)
        self._upkeep.look(now)
        self._place(event, now)
        self._upkeep.set_alarm()
        return self._board.take_said()

    def _place(self, event: Event, now: float) -> None:
        """Look at all that wait when anything may have changed for them. With each frame and each
        newcomer nothing has, and of n turns that come at once all would be looked at n times."""
        has_moved = self._board.take_moved()
        if has_moved or not isinstance(event, TurnArrived | FrameSent | TurnStarted):
            self._placing.place_waiting(now)
        elif isinstance(event, TurnArrived) and event.turn in self._board.waiting:
            self._placing.place_newcomer(self.turns[event.turn], now)

    def next_alarm(self) -> float | None:
        """When a `Tick` is due at the latest."""
        return self._board.alarms.next_at()

    def key_of(self, connection_id: ConnectionId) -> PoolKey | None:
        """Whose connection it is."""
        connection = self.pool.get(connection_id)
        return None if connection is None else connection.key

    def heard(self, connection_id: ConnectionId, now: float) -> None:
        """Bytes came in on a connection (called once a read: no event, no commands)."""
        connection = self._board.pool.get(connection_id)
        if connection is not None:
            connection.received_at = now

    # ── For looking ──────────────────────────────────────────────────────────────────────────

    @property
    def pool(self) -> Pool:
        """All connections."""
        return self._board.pool

    @property
    def beliefs(self) -> Beliefs:
        """What has been learned of upstream."""
        return self._board.beliefs

    @property
    def history(self) -> History:
        """All checkpoints."""
        return self._board.history

    @property
    def options(self) -> Options:
        """What the operator chose."""
        return self._board.options

    @property
    def turns(self) -> dict[TurnId, Turn]:
        """Turns that have no answer yet."""
        return self._board.turns

    @property
    def waiting(self) -> Sequence[TurnId]:
        """Turns in our queue, oldest first."""
        return list(self._board.waiting)

    @property
    def relays(self) -> dict[ConnectionId, Relay]:
        """Where each connection's messages go."""
        return self._board.relays

    @property
    def drain_deadline(self) -> float | None:
        """When what still runs is cut; None: not draining."""
        return self._board.drain_deadline

    # ── Events ───────────────────────────────────────────────────────────────────────────────

    def _take(self, event: Event, now: float) -> None:
        match event:
            case TurnArrived():
                self._admission.arrived(event, now)
                self._chain_probes.ask(event.key, now)
            case FrameSent():
                self._sent(event, now)
            case TurnStarted():
                self._started(event)
            case TurnEnded():
                self._ended(event, now)
            case ErrorReceived():
                self._judging.erred(event, now)
            case ContextLost():
                self._judging.context_lost(event, now)
            case MessageRefused():
                self._judging.message_refused(event, now)
            case ConnectionOpened():
                self._opened(event, now)
            case DialFailed():
                self._dialling.failed(event, now)
            case ConnectionLost():
                self._dialling.lost(event, now)
            case ConnectionAborted():
                self._judging.aborted(event, now)
            case ClientLeft():
                self._judging.client_left(event, now)
            case PongReceived():
                self._deadlines.ponged(event.connection, now)
            case ProbeAnswered():
                self._chain_probes.answered(event, now)
            case DrainBegun():
                self._drain(event, now)
            case LoadChanged():
                self._board.is_overloaded = event.is_overloaded
            case Slept():
                for connection in self.pool.connections:
                    connection.slept(event.for_s)
                self._upkeep.soon()
            case Tick():
                self._tick(now)
            case _:
                assert_never(event)

    def _opened(self, event: ConnectionOpened, now: float) -> None:
        self._dialling.opened(event, now)
        connection = self.pool.get(event.connection)
        if connection is not None:
            self._chain_probes.ask(connection.key, now)

    def _drain(self, event: DrainBegun, now: float) -> None:
        self._board.drain_deadline = event.deadline
        if event.deadline <= now:
            self._judging.drained(now)
        else:
            self._board.alarms.set(event.deadline, Kind.DRAIN)

    # ── A turn runs ──────────────────────────────────────────────────────────────────────────

    def _sent(self, event: FrameSent, now: float) -> None:
        turn = self.turns.get(event.turn)
        if turn is None or turn.connection != event.connection:
            return
        turn.sent_at = now
        if turn.phase is Phase.ADMITTED:
            assert turn.stream is not None
            turn.phase, turn.stream.heard_at = Phase.SENT, now
            self._deadlines.watch(turn.id, turn.stream)

    def _started(self, event: TurnStarted) -> None:
        self._discovery.heard(event.connection, has_echo=event.has_echo)
        turn = self.turns.get(event.turn)
        if turn is None:
            return
        assert turn.stream is not None
        turn.phase = Phase.STARTED
        self._deadlines.watch(turn.id, turn.stream)
        if turn.is_streaming:
            self._board.say(Answer(turn.id))

    def _ended(self, event: TurnEnded, now: float) -> None:
        if event.is_first:
            self._discovery.heard(event.connection, has_echo=event.has_echo)
        turn = self.turns.get(event.turn)
        checkpoint = self._commit(turn, event, now) if turn is not None else None
        if turn is not None:
            self._finish(turn, event, checkpoint, now)
        self._board.settle(event.connection, event.turn, checkpoint, now, event.response_id)
        if turn is not None:
            self._board.forget(turn)

    def _finish(
        self, turn: Turn, event: TurnEnded, checkpoint: Checkpoint | None, now: float
    ) -> None:
        assert turn.stream is not None
        if checkpoint is not None:
            turn.conversation = checkpoint.conversation.number
        turn.phase = Phase.FINISHED
        if turn.is_streaming and event.is_first:
            self._board.say(Answer(turn.id))
        self._board.say(Finish(turn.id, event.received))
        if turn.stream.is_parent_shown:
            self.beliefs.of(turn.key).names_parents = True
        if turn.is_by_id:
            self.beliefs.stored_accepted(turn.key)
        elif turn.route is Route.DELTA:
            self.beliefs.warm_accepted(turn.key)
        self.beliefs.turn_took(turn.key, turn.session, now - (turn.sent_at or now))

    def _commit(self, turn: Turn, event: TurnEnded, now: float) -> Checkpoint | None:
        """Remember a completed turn, if it can be known again (contract §5.1)."""
        if event.response_id is None or event.outputs is None or turn.connection is None:
            return None
        first = [versions[0] for versions in event.outputs]
        if not all(is_known_output(item) for item in first):
            return None
        return self.history.commit(
            turn.key,
            turn.transcript,
            turn.reading,
            fields=turn.fields,
            response_id=event.response_id,
            outputs=[hold(versions) for versions in event.outputs],
            open_calls=_open_calls(first),
            session=turn.session,
            home=(turn.connection, turn.lane),
            now=now,
            tokens=event.tokens,
        )

    # ── Time ─────────────────────────────────────────────────────────────────────────────────

    def _tick(self, now: float) -> None:
        for kind, id_ in self._board.alarms.due(now):
            match kind:
                case Kind.EVENTS:
                    self._deadlines.events_due(TurnId(str(id_)), now)
                case Kind.PROBE:
                    self._deadlines.probe_due(_connection(id_))
                case Kind.PING:
                    self._deadlines.ping_due(_connection(id_), now)
                case Kind.CHAIN_PROBE:
                    self._chain_probes.overdue(_connection(id_), now)
                case Kind.DRAIN:
                    self._judging.drained(now)
                case Kind.WAIT | Kind.UPKEEP:
                    pass  # looked at after every event
                case _:
                    assert_never(kind)


def _connection(id_: TurnId | ConnectionId | None) -> ConnectionId:
    assert isinstance(id_, int)
    return id_


def _open_calls(outputs: Sequence[Item]) -> tuple[Pairing, ...]:
    """Calls of a response that its own output does not answer."""
    answered = {item.answer for item in outputs if item.answer is not None}
    return tuple(i.call for i in outputs if i.call is not None and i.call not in answered)
