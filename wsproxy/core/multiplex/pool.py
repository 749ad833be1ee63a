"""All connections of one upstream, and which of them a turn gets.

Rules of this file
------------------
1. `assign` changes nothing: it returns where a turn may run, or what to open and close for it.
2. Membership in the list is the state: a connection leaves it when it is closed.
3. A turn waits here, never upstream: what upstream queues is already ambiguous (contract §3).
4. A connection serves one pool key, ever.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

from wsproxy.core.conversation.history import Checkpoint
from wsproxy.core.conversation.plan import Candidate, Route
from wsproxy.core.ids import ConnectionId, LaneName, PoolKey, SessionName
from wsproxy.core.multiplex.connection import Connection, Lanes, State


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """How many connections there may be, and how long idle ones are kept."""

    max_per_key_with_lanes: int = 8
    max_per_key_without_lanes: int = 16
    max_total: int = 64
    idle_s: float = 900.0
    spare_idle_s: float = 120.0
    max_warm_idle: int = 8
    key_idle_s: float = 300.0


@dataclass(frozen=True, slots=True)
class Ask:
    """What a turn wants of the pool.

    `dial_from`: from when on a dial is allowed. `claims`: how many turns already wait for each
    connection. `longest_turn_s`: of its session, so far.
    """

    key: PoolKey
    session: SessionName
    candidates: tuple[Candidate, ...] = ()
    chains_by_id: bool = True
    own_parent_home: tuple[ConnectionId, LaneName] | None = None
    waits_for_discovery: bool = True
    longest_turn_s: float = 0.0
    dial_from: float = 0.0
    claims: Mapping[ConnectionId, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Use:
    """Run it here. `candidate` is what is continued, None for a full send; `is_by_id`: it is not
    warm here, upstream must have stored it."""

    connection: Connection
    lane: LaneName
    route: Route
    candidate: Candidate | None = None
    is_by_id: bool = False


class Need(Enum):
    """Why nothing can run yet."""

    DIAL = auto()  # a connection is being opened for it, or will be when the pace allows
    DISCOVERY = auto()  # another turn is finding out about lanes
    PROBE = auto()  # its connection was silent for long and is being pinged
    ROOM = auto()  # every connection is full and none may be opened


@dataclass(frozen=True, slots=True)
class Hold:
    """Keep it in our queue.

    `on`: the connection it waits for (to be pinged now if `is_probe_due`). `opens`: dial one more
    for it, after closing `closes`. `until`: ask again then.
    """

    need: Need
    on: Connection | None = None
    opens: bool = False
    closes: tuple[Connection, ...] = ()
    is_probe_due: bool = False
    until: float | None = None


class Pool:
    """The connections, and nothing else that changes."""

    def __init__(self, limits: PoolLimits) -> None:
        self.limits = limits
        self.connections: list[Connection] = []
        self._by_id: dict[ConnectionId, Connection] = {}  # asked once a read

    def __repr__(self) -> str:
        return f"<Pool {self.connections!r}>"

    def get(self, id_: ConnectionId) -> Connection | None:
        """The connection of that id, if it is not closed."""
        return self._by_id.get(id_)

    def add(self, connection: Connection) -> None:
        """It is being dialled."""
        self.connections.append(connection)
        self._by_id[connection.id] = connection

    def remove(self, connection: Connection) -> None:
        """It is closed."""
        self.connections.remove(connection)
        del self._by_id[connection.id]

    def of_key(self, key: PoolKey) -> list[Connection]:
        """Connections that turns of this key may use, chain probes left out."""
        return [c for c in self.connections if c.key == key and not c.is_chain_probe]

    def owner(self, key: PoolKey, response_id: str) -> tuple[ConnectionId, LaneName] | None:
        """The lane whose latest response this is."""
        return next(
            (
                (connection.id, lane.name)
                for connection in self.of_key(key)
                for lane in connection.lanes.values()
                if lane.response_id == response_id
            ),
            None,
        )

    # ── Assignment ───────────────────────────────────────────────────────────────────────────

    def assign(self, ask: Ask, now: float) -> Use | Hold:
        """Where the turn runs.

        1. where what it continues is warm; 2. on its session's connection; 3. on a further one,
        opened for it; 4. on the key's least loaded one; 5. nowhere yet.
        """
        young = [c for c in self.of_key(ask.key) if not c.is_too_old(now, ask.longest_turn_s)]
        preferred = [c for c in young if ask.session in c.sessions]
        return (
            self._where_warm(ask, young, now)
            or self._on_one_of(preferred, ask, now)
            or self._wait(preferred, ask)
            or self._further(ask, now)
            or self._on_one_of(sorted(young, key=lambda c: c.in_flight), ask, now)
            or self._wait(young, ask)
            or self._later(ask, now)
            or Hold(Need.ROOM)
        )

    def _where_warm(self, ask: Ask, young: Sequence[Connection], now: float) -> Use | Hold | None:
        by_id = {c.id: c for c in young}
        if ask.own_parent_home is not None:
            return self._on_own_parent(ask.own_parent_home, by_id, now)
        for candidate in ask.candidates:
            id_, home = candidate.checkpoint.home
            connection = by_id.get(id_)
            if connection is None or not is_warm(connection, candidate.checkpoint):
                continue
            if connection.has_room():
                lane = _home_or_free(connection, home)
                route = Route.DELTA if lane == home else Route.FORK
                return _proven(Use(connection, lane, route, candidate), now)
        return None

    def _on_own_parent(
        self,
        home: tuple[ConnectionId, LaneName],
        by_id: Mapping[ConnectionId, Connection],
        now: float,
    ) -> Use | Hold | None:
        """The client named its parent itself: on the lane that owns it, if that is free."""
        connection = by_id.get(home[0])
        if connection is None or not connection.has_room():
            return None
        return _proven(Use(connection, _home_or_free(connection, home[1]), Route.FULL), now)

    def _on_one_of(
        self, connections: Iterable[Connection], ask: Ask, now: float
    ) -> Use | Hold | None:
        for connection in connections:
            if not connection.has_room():
                continue
            lane = _free_lane(connection)
            stored = next((c for c in ask.candidates if c.checkpoint.is_stored), None)
            if stored is not None and ask.chains_by_id:
                return _proven(Use(connection, lane, Route.DELTA, stored, is_by_id=True), now)
            return _proven(Use(connection, lane, Route.FULL), now)
        return None

    def _wait(self, connections: Sequence[Connection], ask: Ask) -> Hold | None:
        """Whether one of them will soon have room for this turn as well."""
        for connection in connections:
            claims = ask.claims.get(connection.id, 0)
            finds_out = connection.lanes_belief is Lanes.UNKNOWN and ask.waits_for_discovery
            if connection.state is State.DIALLING and (finds_out or claims < connection.capacity):
                return Hold(Need.DIAL, on=connection)
            if connection.is_open and finds_out:
                return Hold(Need.DISCOVERY, on=connection)
        return None

    def _later(self, ask: Ask, now: float) -> Hold | None:
        """Whether a dial is only a matter of pace: it was not made now, though there is room."""
        if ask.dial_from == float("inf") or self._room_for(ask.key, now) is None:
            return None
        return Hold(Need.DIAL, until=ask.dial_from)

    def _further(self, ask: Ask, now: float) -> Hold | None:
        """Open one more, making room for it if need be."""
        if now < ask.dial_from:
            return None
        closes = self._room_for(ask.key, now)
        return None if closes is None else Hold(Need.DIAL, opens=True, closes=closes)

    # ── Room ─────────────────────────────────────────────────────────────────────────────────

    def has_room_for(self, key: PoolKey) -> bool:
        """Whether one more connection may be opened without closing any."""
        own = self.of_key(key)
        return len(own) < self._max_per_key(own) and len(self.connections) < self.limits.max_total

    def _room_for(self, key: PoolKey, now: float) -> tuple[Connection, ...] | None:
        """What has to be closed before one more is opened; None if nothing can be."""
        own = self.of_key(key)
        if len(own) >= self._max_per_key(own):
            victim = _least_recently_used(own)
        elif len(self.connections) >= self.limits.max_total:
            # A key that is not used any more gives first (contract §7).
            victim = self._of_unused_key(key, now) or _least_recently_used(own)
        else:
            return ()
        return None if victim is None else (victim,)

    def _max_per_key(self, own: Sequence[Connection]) -> int:
        if any(c.lanes_belief is Lanes.ON for c in own):
            return self.limits.max_per_key_with_lanes
        return self.limits.max_per_key_without_lanes

    def _of_unused_key(self, asking: PoolKey, now: float) -> Connection | None:
        used_at = {asking: now}
        for c in self.connections:
            last = c.idle_since if c.is_idle and c.state is not State.DIALLING else now
            used_at[c.key] = max(last, used_at.get(c.key, last))
        unused = {key for key, at in used_at.items() if now - at >= self.limits.key_idle_s}
        return _least_recently_used([c for c in self.connections if c.key in unused])

    # ── Upkeep ───────────────────────────────────────────────────────────────────────────────

    def expired(self, now: float) -> list[Connection]:
        """Idle connections to close: too long idle, or beyond the few that are kept warm."""
        idle = [c for c in self.connections if c.is_idle and c.is_open and not c.is_chain_probe]
        idle.sort(key=lambda c: c.idle_since, reverse=True)
        return [
            c
            for rank, c in enumerate(idle)
            if now - c.idle_since >= self.limits.idle_s
            or (
                rank >= self.limits.max_warm_idle and now - c.idle_since >= self.limits.spare_idle_s
            )
        ]

    def ageing(
        self, now: float, ahead_s: float, due_at: Callable[[Connection], float]
    ) -> list[Connection]:
        """Connections in recent use whose age ends within `ahead_s`, and that no other replaces."""
        alive = {c.id for c in self.connections}
        return [
            c
            for c in self.connections
            if c.is_open
            and not c.is_chain_probe
            and c.successor not in alive
            and due_at(c) - ahead_s <= now
            and (not c.is_idle or now - c.idle_since < self.limits.spare_idle_s)
        ]


def is_warm(connection: Connection, checkpoint: Checkpoint) -> bool:
    """Whether the checkpoint is still the latest response of its lane."""
    lane = connection.lanes.get(checkpoint.home[1])
    return connection.is_open and lane is not None and lane.warm is checkpoint


def _home_or_free(connection: Connection, home: LaneName) -> LaneName:
    """The lane that its parent is on; where that is busy, another of a connection with room."""
    return home if connection.lanes[home].is_idle else _free_lane(connection)


def _free_lane(connection: Connection) -> LaneName:
    lane = connection.free_lane()
    assert lane is not None, repr(connection)  # `has_room` said so
    return lane


def _proven(use: Use, now: float) -> Use | Hold:
    """Use it, unless its road must be proven first."""
    connection = use.connection
    if connection.probing_since is not None:
        return Hold(Need.PROBE, on=connection)
    if connection.needs_probe(now):
        return Hold(Need.PROBE, on=connection, is_probe_due=True)
    return use


def _least_recently_used(connections: Sequence[Connection]) -> Connection | None:
    """The one to close; a connection that is being proven or finds something out is in use."""
    idle = [
        c
        for c in connections
        if c.is_idle and c.is_open and c.probing_since is None and not c.is_chain_probe
    ]
    return min(idle, key=lambda c: c.idle_since, default=None)
