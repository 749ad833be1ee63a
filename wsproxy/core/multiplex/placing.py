"""Our queue: every waiting turn gets its place, oldest first, or waits on within its limits."""

from __future__ import annotations

from collections import Counter
from typing import Final, assert_never

from wsproxy.core.commands import SendPing, SendTurn
from wsproxy.core.conversation.plan import Continuation, Why
from wsproxy.core.ids import ConnectionId, LaneName, PoolKey
from wsproxy.core.multiplex.alarms import Kind
from wsproxy.core.multiplex.beliefs import Chains
from wsproxy.core.multiplex.board import Board
from wsproxy.core.multiplex.connection import Connection, Lanes, State
from wsproxy.core.multiplex.deadlines import Deadlines
from wsproxy.core.multiplex.pool import Ask, Hold, Need, Use
from wsproxy.core.multiplex.relay import Stream
from wsproxy.core.multiplex.turn import Turn

_Claims = Counter[ConnectionId]
#: Turns that are alike find the same connections, whatever they continue: pool key, longest turn
#: of the session, whether they wait for discovery.
_Alike = tuple[PoolKey, float, bool]


class Placing:
    """Asks the pool, and does what it says."""

    def __init__(self, board: Board, deadlines: Deadlines) -> None:
        self._board = board
        self._deadlines = deadlines

    def place_waiting(self, now: float) -> None:
        """Give every waiting turn its place, or let it wait on."""
        claims: _Claims = Counter()
        full: set[_Alike] = set()
        for id_ in list(self._board.waiting):
            turn = self._board.turns.get(id_)
            if turn is not None:
                self._place(turn, claims, full, now)

    def place_newcomer(self, turn: Turn, now: float) -> None:
        """Give the youngest turn its place; those before it wait on for what they wait for."""
        others = [self._board.turns[id_].waits_on for id_ in self._board.waiting if id_ != turn.id]
        claims: _Claims = Counter([on for on in others if on is not None])
        self._place(turn, claims, set(), now)

    def share(self, turn: Turn, now: float) -> bool:
        """Whether the turn could be sent at once on what is open, its own dial having failed."""
        ask = self._ask(turn, Counter(), float("inf"), now)
        found = self._board.pool.assign(ask, now)
        if isinstance(found, Use):
            self._send(turn, found, now)
        return isinstance(found, Use)

    def _place(self, turn: Turn, claims: _Claims, full: set[_Alike], now: float) -> None:
        if self._board.beliefs.chains(turn.key) is not Chains.PROVEN:
            _in_full(turn, Why("chains_unproven", self._board.beliefs.chains_told(turn.key)))
        found = self._found(turn, claims, full, now)
        if isinstance(found, Use):
            self._send(turn, found, now)
        else:
            self._hold(turn, found, claims, full, now)

    def _found(self, turn: Turn, claims: _Claims, full: set[_Alike], now: float) -> Use | Hold:
        """What the pool says, which is not asked twice for turns that are alike: nothing makes
        room while turns are placed."""
        longest_s = self._board.beliefs.longest_turn_s(turn.key, turn.session)
        alike = turn.key, longest_s, turn.waits_for_discovery
        if alike in full:
            return _NO_ROOM
        ask = self._ask(turn, claims, self._dial_from(turn, now), now)
        found = self._board.pool.assign(ask, now)
        if found == _NO_ROOM:
            full.add(alike)
        return found

    # ── Asking ───────────────────────────────────────────────────────────────────────────────

    def _ask(self, turn: Turn, claims: _Claims, dial_from: float, now: float) -> Ask:
        beliefs, options = self._board.beliefs, self._board.options
        return Ask(
            key=turn.key,
            session=turn.session,
            candidates=turn.continuation.candidates,
            chains_by_id=options.chains_by_id and now >= beliefs.of(turn.key).stored_off_until,
            own_parent_home=self._home_of(turn),
            waits_for_discovery=turn.waits_for_discovery,
            longest_turn_s=beliefs.longest_turn_s(turn.key, turn.session),
            dial_from=dial_from,
            claims=claims,
        )

    def _home_of(self, turn: Turn) -> tuple[ConnectionId, LaneName] | None:
        """Which lane made the response that the client itself named."""
        if turn.own_parent is None or turn.own_parent == b"null":
            return None
        named = turn.own_parent.strip(b'"').decode()
        return self._board.pool.owner(turn.key, named)

    def _dial_from(self, turn: Turn, now: float) -> float:
        doubt = self._board.beliefs.doubt(turn.key)
        if doubt is not None and now < doubt.until:
            return float("inf")
        return self._board.pace.dial_from(turn.key, now)

    # ── Holding ──────────────────────────────────────────────────────────────────────────────

    def _hold(self, turn: Turn, hold: Hold, claims: _Claims, full: set[_Alike], now: float) -> None:
        if self._is_hopeless(turn, hold):
            self._board.over_https(turn, "no_websocket")
            return
        on = self._acted(turn, hold, now)
        turn.needs(hold.need, on.id if on else None, now)
        expires_at = self._expires_at(turn, hold.need, on, now)
        if now >= expires_at:
            self._waited(turn, hold.need, claims, full, now)
            return
        if on is not None:
            claims[on.id] += 1
        wake_at = expires_at if hold.until is None else min(expires_at, hold.until)
        self._board.alarms.set(wake_at, Kind.WAIT, turn.id)

    def _is_hopeless(self, turn: Turn, hold: Hold) -> bool:
        """Whether no WebSocket can be had at all, however long the turn waits."""
        if turn.is_spent and hold.opens:
            return True
        is_doubted = self._board.beliefs.doubt(turn.key) is not None
        return hold.need is Need.ROOM and is_doubted and not self._board.pool.of_key(turn.key)

    def _acted(self, turn: Turn, hold: Hold, now: float) -> Connection | None:
        """Open, close, ping as the pool said; the connection that the turn waits for."""
        board = self._board
        for connection in hold.closes:
            board.close(connection)
        if hold.opens:
            return board.open(turn.key, turn.session, now)
        if hold.is_probe_due and hold.on is not None:
            hold.on.probing_since = now
            hold.on.pinged(now)
            board.say(SendPing(hold.on.id))
            wait_s = hold.on.probe_wait_s(board.options.probe_wait_s)
            board.alarms.set(now + wait_s, Kind.PROBE, hold.on.id)
        return hold.on

    def _expires_at(self, turn: Turn, need: Need, on: Connection | None, now: float) -> float:
        """Until when the turn waits for this, and not longer than for all of it together."""
        options = self._board.options
        at = turn.need_since + self._patience_s(need, on)
        is_new = turn.need_since == now
        if on is not None and on.state is State.DIALLING and is_new:
            # A handshake that was too slow for the turns before is not waited for again.
            at = at if now - on.dialled_at < options.handshake_wait_s else now
        return min(at, turn.queued_at + options.queued_s)

    def _patience_s(self, need: Need, on: Connection | None) -> float:
        options = self._board.options
        match need:
            case Need.DIAL:
                return options.handshake_wait_s
            case Need.DISCOVERY:
                return options.discovery_wait_s
            case Need.PROBE:
                assert on is not None
                # A little more than the probe itself, whose end finds the turn another place.
                return on.probe_wait_s(options.probe_wait_s) + options.queue_wait_s
            case Need.ROOM:
                return options.queue_wait_s
        assert_never(need)

    def _waited(
        self, turn: Turn, need: Need, claims: _Claims, full: set[_Alike], now: float
    ) -> None:
        """It waited in vain."""
        if need is Need.DISCOVERY:
            turn.waits_for_discovery = False  # so that it waits for it once
            self._place(turn, claims, full, now)
            return
        self._board.over_https(turn, "busy" if need is Need.ROOM else "no_websocket")

    # ── Sending ──────────────────────────────────────────────────────────────────────────────

    def _send(self, turn: Turn, use: Use, now: float) -> None:
        board, connection = self._board, use.connection
        if use.candidate is None and turn.frame_bytes > board.options.max_frame_bytes:
            board.over_https(turn, "too_large")
            return
        checkpoint = use.candidate.checkpoint if use.candidate else None
        parent = checkpoint.response_id if checkpoint else None
        # Only of an upstream that nobody vouches for more is asked than the contract says (§3).
        finds_out = board.beliefs.finds_out_chains
        is_same = checkpoint is not None and turn.fields == checkpoint.fields
        stream = Stream(
            turn.id,
            is_streaming=turn.is_streaming,
            parent=parent,
            restored=None if parent is None else b"null",  # ours only where the client named none
            expects_parent=finds_out and board.beliefs.of(turn.key).names_parents,
            floor_tokens=checkpoint.floor_tokens if checkpoint and finds_out and is_same else None,
            now=now,
        )
        turn.placed(use, stream)
        board.waiting.pop(turn.id, None)
        board.alarms.cancel(Kind.WAIT, turn.id)
        connection.preferred_by(turn.session)
        connection.take(turn.id, use.lane, now)
        is_default = connection.lanes_belief is not Lanes.ON
        board.relays[connection.id].add(use.lane, stream, is_default=is_default)
        board.say(
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
        self._deadlines.watch(turn.id, stream)
        self._deadlines.watch_road(connection, now)


#: As the pool says it.
_NO_ROOM: Final = Hold(Need.ROOM)


def _in_full(turn: Turn, why: Why) -> None:
    if turn.continuation.candidates:
        turn.continuation = Continuation((), why)
