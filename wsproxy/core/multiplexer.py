"""Who is asked: one event in, commands out. Everything that is decided, is decided below here.

Rules of this file
------------------
1. `handle` is synchronous and whole: no lock, no await, no clock (it is told the time).
2. What may be sent again, and what the client is told, is read from the fault table.
3. A turn leaves `turns` in one place (`_forget`), a connection leaves the pool in one (`_gone`),
   and a lane is given back in one (`_settle`).
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, assert_never

from wsproxy.core.api import errors
from wsproxy.core.api.errors import UpstreamError, upstream_error
from wsproxy.core.api.items import Item, Pairing, hold, is_known_output
from wsproxy.core.api.request import UnfitError
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
from wsproxy.core.conversation.history import Checkpoint, History, Reading
from wsproxy.core.conversation.identity import Hints
from wsproxy.core.conversation.plan import Continuation, Route, Why, decide
from wsproxy.core.events import (
    ClientLeft,
    ConnectionLost,
    ConnectionOpened,
    ContextLost,
    DialFailed,
    DrainBegun,
    ErrorReceived,
    Event,
    FrameSent,
    MessageRefused,
    PongReceived,
    ProbeAnswered,
    Slept,
    Tick,
    TurnArrived,
    TurnEnded,
    TurnStarted,
)
from wsproxy.core.ids import ConnectionId, LaneName, PoolKey, SessionName, TurnId
from wsproxy.core.multiplex import recovery
from wsproxy.core.multiplex.beliefs import PROBE_AGAIN_S, Beliefs, Chains
from wsproxy.core.multiplex.connection import (
    DEFAULT_LANE,
    Connection,
    ConnectionLimits,
    Lanes,
    State,
)
from wsproxy.core.multiplex.pool import Ask, Hold, Need, Pool, PoolLimits, Use
from wsproxy.core.multiplex.recovery import Condition, Fault, Phase, Verdict, verdict
from wsproxy.core.multiplex.relay import Relay, Stream
from wsproxy.core.multiplex.turn import MAX_ATTEMPTS, Turn

#: Idle connections and old conversations are looked at this often.
UPKEEP_S: Final = 5.0
#: Of upstream's words, as much goes into a log line.
_REFUSED_LOG_CHARS: Final = 200


@dataclass(frozen=True, slots=True)
class Options:
    """What the operator chose, as far as the core is concerned (docs/settings.md)."""

    lanes: Lanes = Lanes.UNKNOWN
    chains: Chains = Chains.UNPROVEN
    chains_by_id: bool = True
    connection: ConnectionLimits = field(default_factory=ConnectionLimits)
    pool: PoolLimits = field(default_factory=PoolLimits)
    max_turns: int = 256
    max_frame_bytes: int = 16_252_928
    queue_wait_s: float = 0.25
    handshake_wait_s: float = 3.0
    discovery_wait_s: float = 2.0
    probe_wait_s: float = 2.0
    chain_probe_wait_s: float = 10.0
    first_event_timeout_s: float = 600.0
    event_idle_timeout_s: float = 900.0
    no_websocket_key_s: float = 60.0
    no_websocket_url_s: float = 600.0


@dataclass(order=True, slots=True)
class _Alarm:
    at: float
    number: int
    kind: str = field(compare=False)
    id: TurnId | ConnectionId = field(compare=False)


class Multiplexer:
    """The core's one object. `handle` is its door; the rest is for looking."""

    def __init__(self, options: Options, history: History) -> None:
        self.options = options
        self.history = history
        self.pool = Pool(options.pool)
        self.beliefs = Beliefs(
            lanes=options.lanes,
            chains=options.chains,
            no_websocket_key_s=options.no_websocket_key_s,
            no_websocket_url_s=options.no_websocket_url_s,
        )
        self.turns: dict[TurnId, Turn] = {}
        self.waiting: list[TurnId] = []
        self.relays: dict[ConnectionId, Relay] = {}
        self.drain_deadline: float | None = None
        self._hints: dict[PoolKey, Hints] = {}
        self._alarms: list[_Alarm] = []
        self._numbered = 0
        self._numbered_alarm = 0
        self._out: list[Command] = []
        self._next_upkeep = 0.0

    def __repr__(self) -> str:
        turns = list(self.turns.values())
        return f"<Multiplexer {turns!r} waiting={len(self.waiting)} {self.pool!r}>"

    # ── The door ─────────────────────────────────────────────────────────────────────────────

    def handle(self, event: Event, now: float) -> list[Command]:
        """Take one event; the caller performs the returned commands in order, at once."""
        self._take(event, now)
        self._place_waiting(now)
        if now >= self._next_upkeep:
            self._upkeep(now)
        commands, self._out = self._out, []
        return commands

    def next_alarm(self) -> float | None:
        """When a `Tick` is due at the latest."""
        return self._alarms[0].at if self._alarms else None

    def key_of(self, connection_id: ConnectionId) -> PoolKey | None:
        """Whose connection it is."""
        connection = self.pool.get(connection_id)
        return None if connection is None else connection.key

    def heard(self, connection_id: ConnectionId, now: float) -> None:
        """Bytes came in on a connection (called once a read: no event, no commands)."""
        connection = self.pool.get(connection_id)
        if connection is not None:
            connection.received_at = now

    def _take(self, event: Event, now: float) -> None:
        match event:
            case TurnArrived():
                self._arrived(event, now)
            case FrameSent():
                self._sent(event, now)
            case TurnStarted():
                self._started(event, now)
            case TurnEnded():
                self._ended(event, now)
            case ErrorReceived():
                self._erred(event, now)
            case ContextLost():
                self._context_lost(event, now)
            case MessageRefused():
                self._message_refused(event, now)
            case ConnectionOpened():
                self._opened(event, now)
            case DialFailed():
                self._dial_failed(event, now)
            case ConnectionLost():
                self._lost(event, now)
            case ClientLeft():
                self._client_left(event, now)
            case PongReceived():
                self._ponged(event, now)
            case ProbeAnswered():
                self._chains_probed(event, now)
            case DrainBegun():
                self.drain_deadline = event.deadline
                self._alarm(event.deadline, "drain", TurnId(""))
            case Slept():
                self._slept()
            case Tick():
                self._tick(now)
            case _:
                assert_never(event)

    # ── A turn comes in ──────────────────────────────────────────────────────────────────────

    def _arrived(self, event: TurnArrived, now: float) -> None:
        if self.drain_deadline is not None:
            self._say(
                RefuseTurn(
                    event.turn,
                    503,
                    "proxy_draining",
                    "wsproxy is shutting down; send the request again",
                    retry_after_s=1,
                    should_retry=True,
                )
            )
            return
        if len(self.turns) >= self.options.max_turns:
            self._say(
                RefuseTurn(
                    event.turn,
                    503,
                    "proxy_overloaded",
                    f"wsproxy runs {len(self.turns)} turns, its limit (setting max_turns)",
                    retry_after_s=1,
                )
            )
            return
        try:
            reading = self.history.read(event.key, event.transcript)
        except UnfitError as error:
            self._say(SendOverHttps(event.turn, Why(error.reason)))
            return
        if not self._may_use_websocket(event.key, now):
            self._say(SendOverHttps(event.turn, Why("no_websocket")))
            return
        turn = self._admit(event, reading, now)
        self._probe_chains(turn.key, now)
        self.waiting.append(turn.id)

    def _admit(self, event: TurnArrived, reading: Reading, now: float) -> Turn:
        turn = Turn(
            id=event.turn,
            key=event.key,
            session=self._session(event, reading),
            transcript=event.transcript,
            fields=event.fields,
            reading=reading,
            continuation=self._continuation(event, reading),
            is_streaming=event.is_streaming,
            own_parent=event.own_parent,
            frame_bytes=event.frame_bytes,
            admitted_at=now,
        )
        self.turns[turn.id] = turn
        return turn

    def _continuation(self, event: TurnArrived, reading: Reading) -> Continuation:
        found = decide(reading, event.transcript, event.fields)
        if found.candidates and self.beliefs.of(event.key).chains is not Chains.PROVEN:
            return Continuation((), Why("chains_unproven"))
        return found

    def _session(self, event: TurnArrived, reading: Reading) -> SessionName:
        """Which connection is preferred: the hint's, else where the conversation was before."""
        match_ = reading.matches[0][0].session if reading.matches else None
        if event.hint is not None:
            source, name = event.hint
            hints = self._hints.setdefault(event.key, Hints())
            is_known = hints.is_known(source, name)
            if hints.means_something(source) and (is_known or match_ is None):
                return name
        return match_ if match_ is not None else SessionName(b"")

    def _may_use_websocket(self, key: PoolKey, now: float) -> bool:
        """Whether turns go over the WebSocket; if not, a due dial is made behind their backs."""
        has_open = any(c.is_open for c in self.pool.of_key(key))
        if has_open or not self.beliefs.is_doubted(key):
            return True
        is_dialling = any(c.state is State.DIALLING for c in self.pool.of_key(key))
        if not is_dialling and self.beliefs.has_websocket(key, now):
            self._open(key, SessionName(b""), now)
        return False

    # ── Placing ──────────────────────────────────────────────────────────────────────────────

    def _place_waiting(self, now: float) -> None:
        """Give every waiting turn its place, oldest first, or let it wait on."""
        waiting, self.waiting = self.waiting, []
        for id_ in waiting:
            turn = self.turns.get(id_)
            if turn is not None and not self._place(turn, now):
                self.waiting.append(id_)

    def _place(self, turn: Turn, now: float) -> bool:
        """Whether the turn need not wait any longer."""
        belief = self.beliefs.of(turn.key)
        ask = Ask(
            key=turn.key,
            session=turn.session,
            candidates=turn.continuation.candidates,
            chains_by_id=self.options.chains_by_id and now >= belief.stored_off_until,
            own_parent_home=self._home_of(turn),
            waits_for_discovery=turn.waits_for_discovery,
        )
        found = self.pool.assign(ask, now, belief.longest_turn_s)
        if isinstance(found, Use):
            self._send(turn, found, now)
            return True
        if turn.attempts >= MAX_ATTEMPTS:
            self._over_https(turn, "no_websocket", now)
            return True
        return self._hold(turn, found, now)

    def _home_of(self, turn: Turn) -> tuple[ConnectionId, LaneName] | None:
        """Which lane made the response that the client itself named."""
        if turn.own_parent is None or turn.own_parent == b"null":
            return None
        return self.pool.owner(turn.key, turn.own_parent.strip(b'"').decode("utf-8", "replace"))

    def _hold(self, turn: Turn, hold_: Hold, now: float) -> bool:
        if hold_.probes is not None:
            self._probe(hold_.probes, now)
        for connection in hold_.closes:
            self._close(connection)
        if hold_.opens:
            self._open(turn.key, turn.session, now)
        if turn.waiting_since is None:
            turn.waiting_since = now
        waited = now - turn.waiting_since
        limit = self._patience_s(hold_.need)
        if waited < limit:
            self._alarm(turn.waiting_since + limit, "wait", turn.id)
            return False
        if hold_.need is Need.DISCOVERY:
            turn.waits_for_discovery, turn.waiting_since = False, None
            return self._place(turn, now)
        self._over_https(turn, "busy" if hold_.need is Need.ROOM else "no_websocket", now)
        return True

    def _patience_s(self, need: Need) -> float:
        match need:
            case Need.DIAL:
                return self.options.handshake_wait_s
            case Need.DISCOVERY:
                return self.options.discovery_wait_s
            case Need.PROBE:
                return self.options.handshake_wait_s + self.options.probe_wait_s
            case Need.ROOM:
                return self.options.queue_wait_s
        assert_never(need)

    def _send(self, turn: Turn, use: Use, now: float) -> None:
        if use.candidate is None and turn.frame_bytes > self.options.max_frame_bytes:
            self._over_https(turn, "too_large", now)
            return
        connection, candidate = use.connection, use.candidate
        turn.placed(
            connection.id,
            use.lane,
            use.route,
            parent=candidate.checkpoint.response_id if candidate else None,
            delta_from=candidate.delta_from if candidate else 0,
        )
        connection.sessions.add(turn.session)
        connection.take(turn.id, use.lane, now)
        stream = Stream(
            turn.id,
            is_streaming=turn.is_streaming,
            parent=turn.parent,
            restored=None if turn.parent is None else turn.own_parent or b"null",
        )
        turn.stream = stream
        is_default = connection.lanes_belief is not Lanes.ON
        self.relays[connection.id].add(use.lane, stream, is_default=is_default)
        self._say(
            SendTurn(
                turn.id,
                connection.id,
                use.lane,
                turn.parent,
                turn.delta_from,
                turn.route,
                turn.why,
                stream,
            )
        )
        self._watch(turn, now)

    # ── A turn runs ──────────────────────────────────────────────────────────────────────────

    def _sent(self, event: FrameSent, now: float) -> None:
        turn = self.turns.get(event.turn)
        if turn is not None and turn.connection == event.connection:
            turn.sent_at = now
            if turn.phase is Phase.ADMITTED:
                turn.phase = Phase.SENT

    def _started(self, event: TurnStarted, now: float) -> None:
        self._learn_lanes(event.connection, has_echo=event.has_echo)
        turn = self.turns.get(event.turn)
        if turn is None:
            return
        turn.phase = Phase.STARTED
        assert turn.stream is not None
        turn.stream.forward(event.received)
        if turn.is_streaming:
            self._say(Answer(turn.id))

    def _ended(self, event: TurnEnded, now: float) -> None:
        if event.is_first:
            self._learn_lanes(event.connection, has_echo=event.has_echo)
        turn = self.turns.get(event.turn)
        checkpoint = self._commit(turn, event, now) if turn is not None else None
        self._settle(event.connection, event.turn, checkpoint, now, event.response_id)
        if turn is None:
            return
        turn.phase = Phase.FINISHED
        assert turn.stream is not None
        turn.stream.forward(event.received)
        if turn.is_streaming and event.is_first:
            self._say(Answer(turn.id))
        self._say(Finish(turn.id, event.received))
        belief = self.beliefs.of(turn.key)
        belief.longest_turn_s = max(belief.longest_turn_s, now - (turn.sent_at or now))
        if turn.is_ours and turn.route is Route.DELTA:
            belief.stored_refusals = 0
        self._forget(turn)

    def _commit(self, turn: Turn, event: TurnEnded, now: float) -> Checkpoint | None:
        if event.response_id is None or event.outputs is None:
            return None
        first = [versions[0] for versions in event.outputs]
        if not all(is_known_output(item) for item in first):
            return None
        assert turn.connection is not None
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
        )

    def _learn_lanes(self, id_: ConnectionId, *, has_echo: bool) -> None:
        """The first event on a connection of unknown habits tells whether lanes are echoed."""
        connection = self.pool.get(id_)
        if connection is None or connection.lanes_belief is not Lanes.UNKNOWN:
            return
        self._lanes_known(connection, Lanes.ON if has_echo else Lanes.OFF)

    def _lanes_known(self, connection: Connection, lanes: Lanes) -> None:
        connection.lanes_belief = lanes
        self.beliefs.of(connection.key).lanes = lanes
        self.relays[connection.id].lanes_known(has_lanes=lanes is Lanes.ON)
        if lanes is Lanes.OFF:
            connection.become_laneless()
            for turn in self.turns.values():
                if turn.connection == connection.id:
                    turn.lane = DEFAULT_LANE
        self._say(Note(f"lanes.{lanes.name.lower()}", connection=connection.id))

    # ── Upstream refuses ─────────────────────────────────────────────────────────────────────

    def _erred(self, event: ErrorReceived, now: float) -> None:
        error = upstream_error(event.received.payload)
        connection = self.pool.get(event.connection)
        if connection is None:
            return
        turn_id = event.turn
        if turn_id is None:
            running = [lane.turn for lane in connection.lanes.values() if lane.turn]
            if len(running) != 1:
                self._erred_for_all(connection, error, now)
                return
            turn_id = running[0]
        if event.is_first and event.has_echo:
            self._learn_lanes(connection.id, has_echo=True)
        turn = self.turns.get(turn_id)
        if turn is None:
            self._settle(connection.id, turn_id, None, now)
        elif connection.lanes_belief is Lanes.UNKNOWN and _is_about_lanes(error):
            self._take_back(turn, now)
            self._lanes_known(connection, Lanes.OFF)
        else:
            self._judge_error(turn, connection, error, now)

    def _judge_error(
        self, turn: Turn, connection: Connection, error: UpstreamError, now: float
    ) -> None:
        """An error that belongs to one turn (F24–F29)."""
        fault = errors.fault_of(error)
        facts = {Condition.NAMED, Condition.SOLE_SENT_TURN}
        if turn.is_ours:
            facts.add(Condition.OUR_ID)
            if errors.is_retryable_refusal(error.status):
                facts.add(Condition.OUR_DELTA)
        if turn.was_refused:
            facts.add(Condition.RETRIES_SPENT)
        phase = Phase.SENT if turn.phase is Phase.ADMITTED else turn.phase
        found = verdict(fault, phase, frozenset(facts))
        turn.faults.append(fault.value)
        if recovery.CONNECTION_FATE[fault] is recovery.Fate.RETIRE:
            connection.retire()
        match found:
            case recovery.Retry():
                self._send_again(turn, now)
            case recovery.Relay():
                self._settle(connection.id, turn.id, None, now)
                self._say(RelayError(turn.id, error))
                self._forget(turn)
            case _:
                self._settle(connection.id, turn.id, None, now)
                self._apply(turn, found, error.message, now)

    def _send_again(self, turn: Turn, now: float) -> None:
        """Upstream refused it by name: once more, in full, unseen by the client (§5.11)."""
        if turn.is_ours and turn.continuation.candidates[0].checkpoint.is_stored:
            self.beliefs.stored_refused(turn.key, now)
        why = Why("parent_refused") if turn.is_ours else turn.continuation.why_full
        self._take_back(turn, now)
        turn.was_refused = True
        turn.continuation = Continuation((), why)

    def _erred_for_all(self, connection: Connection, error: UpstreamError, now: float) -> None:
        """An error of the connection while several turns run on it, or none (F25, F30)."""
        fault = errors.fault_of(error)
        if fault is not Fault.CONNECTION_LIMIT_REACHED:
            fault = Fault.ERROR_WITHOUT_LANE
        connection.retire()
        self._judge_all(connection, fault, error.message[:_REFUSED_LOG_CHARS], now)

    def _context_lost(self, event: ContextLost, now: float) -> None:
        """A delta reached a model that had forgotten: nothing of its answer is true (§3)."""
        turn = self.turns.get(event.turn)
        connection = self.pool.get(event.connection)
        if turn is not None:
            belief = self.beliefs.of(turn.key)
            belief.chains = Chains.REFUTED
            message = "upstream continued from another response than the one named"
            self._say(
                RefuseTurn(turn.id, 502, "upstream_lost_context", message)
                if turn.phase is not Phase.STARTED
                else BreakTurn(turn.id, "upstream_lost_context", message)
            )
            self._forget(turn)
        if connection is not None:
            self._cut(connection, Fault.UNATTRIBUTABLE_EVENT, "context lost", now)

    def _message_refused(self, event: MessageRefused, now: float) -> None:
        connection = self.pool.get(event.connection)
        if connection is None:
            return
        if event.fault is Fault.LATE_EVENT:
            connection.retire()
            self._say(
                Note("connection.retired", None, connection.id, event.fault.value, event.detail)
            )
            return
        if event.fault is Fault.UNATTRIBUTABLE_EVENT and self.options.lanes is Lanes.UNKNOWN:
            self.beliefs.of(connection.key).lanes = Lanes.UNKNOWN
        self._cut(connection, event.fault, event.detail, now)

    # ── Connections come and go ──────────────────────────────────────────────────────────────

    def _open(
        self, key: PoolKey, session: SessionName, now: float, *, is_chain_probe: bool = False
    ) -> None:
        self._numbered += 1
        connection = Connection(
            ConnectionId(self._numbered),
            key,
            session,
            now,
            limits=self.options.connection,
            belief=self.beliefs.of(key).lanes,
            is_chain_probe=is_chain_probe,
        )
        self.pool.connections.append(connection)
        self.relays[connection.id] = Relay(connection.id)
        self._say(OpenConnection(connection.id, key))

    def _opened(self, event: ConnectionOpened, now: float) -> None:
        connection = self.pool.get(event.connection)
        if connection is None:
            return
        connection.opened(now, event.jitter_s)
        connection.lanes_belief = self.beliefs.of(connection.key).lanes
        self.beliefs.opened(connection.key)
        if connection.is_chain_probe:
            self._say(SendChainProbe(connection.id, connection.key))
            self._alarm(now + self.options.chain_probe_wait_s, "chain_probe", connection.id)
        else:
            self._probe_chains(connection.key, now)

    def _dial_failed(self, event: DialFailed, now: float) -> None:
        connection = self.pool.get(event.connection)
        if connection is None:
            return
        self._gone(connection)
        if connection.is_chain_probe:
            self._chains_untold(connection.key, now)
            return
        self.beliefs.refused(connection.key, event.fault, event.retry_after_s, now)
        if any(c.is_open for c in self.pool.of_key(connection.key)):
            return
        for turn in [self.turns[t] for t in self.waiting if self.turns[t].key == connection.key]:
            turn.faults.append(event.fault.value)
            self._apply(turn, verdict(event.fault, Phase.ADMITTED), event.detail, now)

    def _lost(self, event: ConnectionLost, now: float) -> None:
        connection = self.pool.get(event.connection)
        if connection is None:
            return
        if event.fault is Fault.CLOSED_POLICY:
            self.beliefs.refused(connection.key, event.fault, None, now)
        for id_ in event.unsent:
            turn = self.turns.get(id_)
            if turn is not None and turn.phase is Phase.SENT:
                turn.phase = Phase.ADMITTED
        if connection.is_chain_probe:
            self._chains_untold(connection.key, now)
        self._gone(connection)
        self._judge_all(connection, event.fault, event.detail, now)

    def _cut(self, connection: Connection, fault: Fault, detail: str, now: float) -> None:
        """Drop a connection whose bytes cannot be trusted; its turns are judged one by one."""
        self._say(Note("connection.cut", None, connection.id, fault.value, detail))
        self._say(AbortConnection(connection.id))
        self._gone(connection)
        self._judge_all(connection, fault, detail, now)

    def _close(self, connection: Connection) -> None:
        self._say(CloseConnection(connection.id))
        self._gone(connection)

    def _gone(self, connection: Connection) -> None:
        connection.closed()
        self.pool.connections.remove(connection)
        del self.relays[connection.id]

    def _judge_all(self, connection: Connection, fault: Fault, detail: str, now: float) -> None:
        """One connection fault meets up to 16 turns; each is judged by its own phase."""
        turns = [t for t in self.turns.values() if t.connection == connection.id]
        sent = [t for t in turns if t.phase is Phase.SENT]
        for turn in turns:
            turn.faults.append(fault.value)
            facts = {Condition.SOLE_SENT_TURN} if sent == [turn] else set()
            if turn.attempts >= MAX_ATTEMPTS:
                facts.add(Condition.RETRIES_SPENT)
            self._apply(turn, verdict(fault, turn.phase, frozenset(facts)), detail, now)

    def _apply(self, turn: Turn, found: Verdict, detail: str, now: float) -> None:
        """Do to a turn what the fault table says."""
        match found:
            case recovery.Retry():
                self._take_back(turn, now)
                turn.continuation = Continuation((), Why("connection_lost"))
            case recovery.FallBack():
                self._over_https(turn, "no_websocket", now)
            case recovery.Refuse(status, code, is_unknown, retry_after_s):
                self._say(
                    RefuseTurn(
                        turn.id,
                        status,
                        code,
                        detail,
                        is_outcome_unknown=is_unknown,
                        retry_after_s=retry_after_s,
                        should_retry=True if retry_after_s else None,
                    )
                )
                self._forget(turn)
            case recovery.Break(code):
                self._say(BreakTurn(turn.id, code, detail))
                self._forget(turn)
            case recovery.Drop() | recovery.Abandon():
                self._forget(turn)
                self._abandon(turn, now)
            case recovery.Relay() | recovery.Ignore() | recovery.Wait() | recovery.Lost():
                pass
            case recovery.Unreachable():
                raise AssertionError(f"{turn!r} met a fault that cannot be: {detail}")
            case _:
                assert_never(found)

    def _over_https(self, turn: Turn, reason: str, now: float) -> None:
        if turn.connection is not None:
            self._settle(turn.connection, turn.id, None, now)
        self._say(SendOverHttps(turn.id, Why(reason)))
        self._forget(turn)

    def _take_back(self, turn: Turn, now: float) -> None:
        """The turn did not run: off its lane, and back into our queue."""
        if turn.connection is not None:
            self._settle(turn.connection, turn.id, None, now)
        turn.taken_back()
        if turn.id not in self.waiting:
            self.waiting.append(turn.id)

    def _settle(
        self,
        id_: ConnectionId,
        turn: TurnId,
        checkpoint: Checkpoint | None,
        now: float,
        response_id: str | None = None,
    ) -> None:
        """Give a lane back: warm with the checkpoint, or cold."""
        connection = self.pool.get(id_)
        if connection is None:
            return
        self.relays[id_].remove(turn)
        connection.settle(turn, checkpoint, response_id, now)
        if connection.state is State.RETIRED and connection.is_idle:
            self._close(connection)

    def _forget(self, turn: Turn) -> None:
        """The turn has its answer; if upstream still works on it, its lane drains and goes cold."""
        self.turns.pop(turn.id, None)
        connection = self.pool.get(turn.connection) if turn.connection is not None else None
        if connection is not None and connection.abandon(turn.id) and turn.stream is not None:
            turn.stream.is_discarding = True
        if turn.id in self.waiting:
            self.waiting.remove(turn.id)

    # ── The client leaves ────────────────────────────────────────────────────────────────────

    def _client_left(self, event: ClientLeft, now: float) -> None:
        turn = self.turns.get(event.turn)
        if turn is not None:
            turn.faults.append(event.fault.value)
            is_unsent = turn.connection is None
            phase = Phase.SENT if turn.phase is Phase.ADMITTED and not is_unsent else turn.phase
            facts = frozenset({Condition.BUFFER_FULL})
            self._apply(turn, verdict(event.fault, phase, facts), "client left", now)

    def _abandon(self, turn: Turn, now: float) -> None:
        """Nobody waits for it: closing the socket is the only cancel that upstream knows."""
        connection = self.pool.get(turn.connection) if turn.connection is not None else None
        if connection is None:
            return
        if connection.in_flight == 1:
            self._say(AbortConnection(connection.id))
            self._gone(connection)
            return

    # ── Probes ───────────────────────────────────────────────────────────────────────────────

    def _probe(self, connection: Connection, now: float) -> None:
        """Prove the road before a turn is trusted to it."""
        connection.probing_since = now
        self._say(SendPing(connection.id))
        self._alarm(now + self.options.probe_wait_s, "probe", connection.id)

    def _ponged(self, event: PongReceived, now: float) -> None:
        connection = self.pool.get(event.connection)
        if connection is not None:
            connection.received_at = now
            connection.probing_since = None

    def _probe_chains(self, key: PoolKey, now: float) -> None:
        """Find out, off every turn's path, whether unknown ids are refused."""
        belief = self.beliefs.of(key)
        if belief.chains is not Chains.UNPROVEN or now < belief.chains_probe_at:
            return
        is_full = len(self.pool.connections) >= self.options.pool.max_total
        if is_full or not any(c.is_open for c in self.pool.of_key(key)):
            return
        belief.chains = Chains.PROBING
        self._open(key, SessionName(b""), now, is_chain_probe=True)

    def _chains_probed(self, event: ProbeAnswered, now: float) -> None:
        connection = self.pool.get(event.connection)
        if connection is None:
            return
        self._close(connection)
        if event.looks_up_ids is None:
            self._chains_untold(connection.key, now)
            return
        belief = self.beliefs.of(connection.key)
        belief.chains = Chains.PROVEN if event.looks_up_ids else Chains.REFUTED
        self._say(Note(f"chains.{belief.chains.name.lower()}", connection=connection.id))

    def _chains_untold(self, key: PoolKey, now: float) -> None:
        belief = self.beliefs.of(key)
        if belief.chains is Chains.PROBING:
            belief.chains = Chains.UNPROVEN
            belief.chains_probe_at = now + PROBE_AGAIN_S

    # ── Time ─────────────────────────────────────────────────────────────────────────────────

    def _alarm(self, at: float, kind: str, id_: TurnId | ConnectionId) -> None:
        self._numbered_alarm += 1
        heapq.heappush(self._alarms, _Alarm(at, self._numbered_alarm, kind, id_))

    def _tick(self, now: float) -> None:
        while self._alarms and self._alarms[0].at <= now:
            alarm = heapq.heappop(self._alarms)
            match alarm.kind:
                case "events":
                    self._check_events(TurnId(str(alarm.id)), now)
                case "probe":
                    self._probe_timed_out(alarm.id, now)
                case "chain_probe":
                    self._chains_probed(ProbeAnswered(_connection(alarm.id), None), now)
                case "drain":
                    self._drain_timed_out(now)
                case _:
                    pass  # "wait" and "upkeep": looked at after every event

    def _watch(self, turn: Turn, now: float) -> None:
        """Set the next look at a running turn's deadlines; 0 means none."""
        is_started = turn.stream is not None and turn.stream.is_started
        limit = (
            self.options.event_idle_timeout_s if is_started else self.options.first_event_timeout_s
        )
        if limit:
            since = turn.stream.last_event_at if turn.stream and is_started else now
            self._alarm(since + limit, "events", turn.id)

    def _check_events(self, id_: TurnId, now: float) -> None:
        """No first event, or silence between events, for too long (F06, F07)."""
        turn = self.turns.get(id_)
        if turn is None or turn.stream is None or turn.connection is None:
            return
        stream = turn.stream
        if stream.is_started:
            is_late = now - stream.last_event_at >= self.options.event_idle_timeout_s > 0
            fault = Fault.IDLE_TIMEOUT
        else:
            since = turn.sent_at if turn.sent_at is not None else now
            is_late = now - since >= self.options.first_event_timeout_s > 0
            fault = Fault.FIRST_EVENT_TIMEOUT
        if not is_late:
            self._watch(turn, now)
            return
        self._time_out(turn, fault, now)

    def _time_out(self, turn: Turn, fault: Fault, now: float) -> None:
        connection = self.pool.get(turn.connection) if turn.connection is not None else None
        turn.faults.append(fault.value)
        if connection is not None:
            connection.retire()
        self._apply(turn, verdict(fault, turn.phase), "upstream was silent", now)

    def _probe_timed_out(self, id_: TurnId | ConnectionId, now: float) -> None:
        connection = self.pool.get(_connection(id_))
        if connection is None or connection.probing_since is None:
            return
        if now - connection.probing_since < self.options.probe_wait_s:
            return
        connection.probing_since = None
        connection.retire()
        if connection.is_idle:
            self._say(AbortConnection(connection.id))
            self._gone(connection)

    def _drain_timed_out(self, now: float) -> None:
        for turn in list(self.turns.values()):
            turn.faults.append(Fault.DRAINING.value)
            found = verdict(
                Fault.DRAINING, turn.phase, frozenset({Condition.DEADLINE_PASSED})
            )
            self._apply(turn, found, "wsproxy is shutting down", now)

    def _slept(self) -> None:
        for connection in self.pool.connections:
            connection.received_at = float("-inf")  # the road must be proven again

    def _upkeep(self, now: float) -> None:
        self._next_upkeep = now + UPKEEP_S
        self._alarm(self._next_upkeep, "upkeep", TurnId(""))
        for connection in self.pool.expired(now):
            self._close(connection)
        for connection in self.pool.connections:
            if connection.is_open and now >= connection.retire_at:
                connection.retire()
        self.history.expire(now)

    def _say(self, command: Command) -> None:
        self._out.append(command)


def _connection(id_: TurnId | ConnectionId) -> ConnectionId:
    assert isinstance(id_, int)
    return id_


def _is_about_lanes(error: UpstreamError) -> bool:
    """Whether upstream does not know `stream_id` at all."""
    return error.status < 500 and (
        error.code == errors.INVALID_STREAM_ID
        or error.param == "stream_id"
        or "stream_id" in error.message
    )


def _open_calls(outputs: Sequence[Item]) -> tuple[Pairing, ...]:
    """Calls of a response that its own output does not answer."""
    answered = {item.answer for item in outputs if item.answer is not None}
    return tuple(i.call for i in outputs if i.call is not None and i.call not in answered)
