"""All connections of one upstream, and which of them a turn gets.

Rules of this file
------------------
1. `assign` changes nothing: it returns where a turn may run, or what to open and close for it.
2. Membership in the list is the state: a connection leaves it when it is closed.
3. A turn waits here, never upstream: what upstream queues is already ambiguous (contract §3).
4. A connection serves one pool key, ever.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
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
    """What a turn wants of the pool."""

    key: PoolKey
    session: SessionName
    candidates: tuple[Candidate, ...]
    chains_by_id: bool
    own_parent_home: tuple[ConnectionId, LaneName] | None = None
    waits_for_discovery: bool = True


@dataclass(frozen=True, slots=True)
class Use:
    """Run it here. `candidate` is what is continued, None for a full send."""

    connection: Connection
    lane: LaneName
    route: Route
    candidate: Candidate | None


class Need(Enum):
    """Why nothing can run yet."""

    DIAL = auto()  # a connection is being opened for it
    DISCOVERY = auto()  # another turn is finding out about lanes
    PROBE = auto()  # its connection was silent for long and is being pinged
    ROOM = auto()  # every connection is full and none may be opened


@dataclass(frozen=True, slots=True)
class Hold:
    """Keep it in our queue. `opens` asks for one more connection, `closes` makes room for it."""

    need: Need
    opens: bool = False
    closes: tuple[Connection, ...] = ()
    probes: Connection | None = None


class Pool:
    """The connections, and nothing else that changes."""

    def __init__(self, limits: PoolLimits) -> None:
        self.limits = limits
        self.connections: list[Connection] = []

    def __repr__(self) -> str:
        return f"<Pool {self.connections!r}>"

    def get(self, id_: ConnectionId) -> Connection | None:
        """The connection of that id, if it is not closed."""
        return next((c for c in self.connections if c.id == id_), None)

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

    def assign(self, ask: Ask, now: float, longest_turn_s: float = 0.0) -> Use | Hold:
        """Where the turn runs.

        1. where what it continues is warm; 2. on its session's connection; 3. on a further one,
        opened for it; 4. on the key's least loaded one; 5. nowhere yet.
        """
        open_ = [c for c in self.of_key(ask.key) if not c.is_too_old(now, longest_turn_s)]
        warm = self._where_warm(ask, open_, now)
        if warm is not None:
            return warm
        preferred = [c for c in open_ if ask.session in c.sessions]
        return (
            self._on_one_of(preferred, ask, now)
            or self._wait(preferred, ask)
            or self._further(ask, now)
            or self._on_one_of(sorted(open_, key=lambda c: c.in_flight), ask, now)
            or Hold(Need.ROOM)
        )

    def _where_warm(
        self, ask: Ask, open_: Sequence[Connection], now: float
    ) -> Use | Hold | None:
        by_id = {c.id: c for c in open_}
        if ask.own_parent_home is not None:
            return self._on_own_parent(ask.own_parent_home, by_id)
        for candidate in ask.candidates:
            connection = by_id.get(candidate.checkpoint.home[0])
            if connection is None or not is_warm(connection, candidate.checkpoint):
                continue
            if connection.is_open and connection.needs_probe(now):
                return Hold(Need.PROBE, probes=connection)
            if connection.probing_since is not None:
                return Hold(Need.PROBE)
            lane = connection.lanes[candidate.checkpoint.home[1]]
            if lane.is_idle and connection.has_room():
                return Use(connection, lane.name, Route.DELTA, candidate)
            fork = self._fork_lane(connection)
            if fork is not None:
                return Use(connection, fork, Route.FORK, candidate)
        return None

    def _on_own_parent(
        self, home: tuple[ConnectionId, LaneName], by_id: dict[ConnectionId, Connection]
    ) -> Use | None:
        """The client named its parent itself: on the lane that owns it, if that is free."""
        connection = by_id.get(home[0])
        if connection is None or not connection.has_room():
            return None
        lane = connection.lanes.get(home[1])
        name = home[1] if lane is not None and lane.is_idle else connection.free_lane()
        return None if name is None else Use(connection, name, Route.FULL, None)

    def _fork_lane(self, connection: Connection) -> LaneName | None:
        if connection.lanes_belief is not Lanes.ON or not connection.has_room():
            return None
        return connection.free_lane()

    def _on_one_of(
        self, connections: Iterable[Connection], ask: Ask, now: float
    ) -> Use | Hold | None:
        for connection in connections:
            if not connection.has_room():
                continue
            if connection.needs_probe(now):
                return Hold(Need.PROBE, probes=connection)
            lane = connection.free_lane()
            assert lane is not None
            chained = next((c for c in ask.candidates if c.checkpoint.is_stored), None)
            if chained is not None and ask.chains_by_id:
                return Use(connection, lane, Route.DELTA, chained)
            return Use(connection, lane, Route.FULL, None)
        return None

    def _wait(self, preferred: Sequence[Connection], ask: Ask) -> Hold | None:
        """Whether the session's own connection will soon have room."""
        for connection in preferred:
            if connection.state is State.DIALLING:
                return Hold(Need.DIAL)
            if connection.probing_since is not None:
                return Hold(Need.PROBE)
            if connection.lanes_belief is Lanes.UNKNOWN and ask.waits_for_discovery:
                return Hold(Need.DISCOVERY)
        return None

    def _further(self, ask: Ask, now: float) -> Hold | None:
        """Open one more, making room for it if need be."""
        own = self.of_key(ask.key)
        closes: list[Connection] = []
        if len(own) >= self._max_per_key(own):
            victim = _least_recently_used(own)
            if victim is None:
                return None
            closes.append(victim)
        if len(self.connections) - len(closes) >= self.limits.max_total:
            victim = _least_recently_used([c for c in own if c not in closes])
            victim = victim or self._from_idle_keys(now)
            if victim is None:
                return None
            closes.append(victim)
        return Hold(Need.DIAL, opens=True, closes=tuple(closes))

    def _max_per_key(self, own: Sequence[Connection]) -> int:
        if any(c.lanes_belief is Lanes.ON for c in own):
            return self.limits.max_per_key_with_lanes
        return self.limits.max_per_key_without_lanes

    def _from_idle_keys(self, now: float) -> Connection | None:
        """A connection of a key that has not been used for a while (contract §7)."""
        idle = [c for c in self.connections if c.is_idle and c.is_open]
        victim = min(idle, key=lambda c: c.idle_since, default=None)
        if victim is None or now - victim.idle_since < self.limits.key_idle_s:
            return None
        return victim

    # ── Upkeep ───────────────────────────────────────────────────────────────────────────────

    def expired(self, now: float) -> list[Connection]:
        """Idle connections to close: too long idle, beyond the few kept warm, or retired."""
        idle = [c for c in self.connections if c.is_idle and c.state is not State.DIALLING]
        idle.sort(key=lambda c: c.idle_since, reverse=True)
        return [
            c
            for rank, c in enumerate(idle)
            if c.state is State.RETIRED
            or now - c.idle_since >= self.limits.idle_s
            or (rank >= self.limits.max_warm_idle and now - c.idle_since >= self.limits.spare_idle_s)
        ]


def is_warm(connection: Connection, checkpoint: Checkpoint) -> bool:
    """Whether the checkpoint is still the latest response of its lane."""
    lane = connection.lanes.get(checkpoint.home[1])
    return connection.is_open and lane is not None and lane.warm is checkpoint


def _least_recently_used(connections: Sequence[Connection]) -> Connection | None:
    idle = [c for c in connections if c.is_idle and c.is_open and c.probing_since is None]
    return min(idle, key=lambda c: c.idle_since, default=None)
