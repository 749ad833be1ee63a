"""One upstream WebSocket as the core sees it: its lanes, its age, whether it takes turns.

DIALLING ──opened──▶ OPEN ──retire──▶ RETIRED ──▶ CLOSED
    └───────────failed / lost / closed────────────▲
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from wsproxy.core.conversation.history import Checkpoint
from wsproxy.core.ids import ConnectionId, LaneName, PoolKey, SessionName, TurnId
from wsproxy.core.multiplex.lane import Lane

DEFAULT_LANE = LaneName("")
#: Sessions that prefer one connection, least recently used forgotten first.
MAX_SESSIONS: Final = 256
#: A probe may take so many times its usual wait where a pong was slow before (faults.md §7: 5 s
#: instead of 2 s).
SLOW_PONG_FACTOR: Final = 2.5


class State(Enum):
    """Where a connection is in its life."""

    DIALLING = auto()
    OPEN = auto()
    RETIRED = auto()  # finishes what runs, takes nothing new
    CLOSED = auto()


class Lanes(Enum):
    """What is believed of `stream_id` on this connection."""

    ON = auto()
    OFF = auto()
    UNKNOWN = auto()  # one turn alone in flight until its first event tells


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Limits of one connection; the guide's are 16, 32 and 60 minutes (protocol.md §5)."""

    max_in_flight: int = 16
    max_lanes: int = 32
    max_age_s: float = 3000.0
    last_turn_end_s: float = 3540.0
    max_life_s: float = 3600.0  # upstream's own; no turn lives longer than its connection
    probe_after_s: float = 25.0


class Connection:
    """State changes only in the methods under the banner *Transitions*."""

    __slots__ = (
        "dialled_at",
        "has_ponged",
        "id",
        "idle_since",
        "in_flight",
        "is_chain_probe",
        "key",
        "lanes",
        "lanes_belief",
        "limits",
        "opened_at",
        "pinged_at",
        "probing_since",
        "received_at",
        "retire_at",
        "sessions",
        "slowest_pong_s",
        "state",
        "successor",
    )

    def __init__(
        self,
        id_: ConnectionId,
        key: PoolKey,
        session: SessionName,
        now: float,
        *,
        limits: ConnectionLimits,
        belief: Lanes,
        is_chain_probe: bool = False,
    ) -> None:
        self.id = id_
        self.key = key
        self.sessions = {session: None}  # in the order of their last use
        self.state = State.DIALLING
        self.limits = limits
        self.lanes_belief = belief
        self.lanes: dict[LaneName, Lane] = {}
        self.in_flight = 0  # turns that upstream works on for us; abandoned ones hold a slot too
        self.is_chain_probe = is_chain_probe
        self.dialled_at = now
        self.opened_at = now
        self.retire_at = now + limits.max_age_s
        self.received_at = now
        self.idle_since = now
        self.pinged_at: float | None = None  # of a ping that has not been answered
        self.has_ponged = False
        self.slowest_pong_s = 0.0
        self.probing_since: float | None = None
        self.successor: ConnectionId | None = None

    def __repr__(self) -> str:
        return (
            f"<Connection {self.id} {self.state.name.lower()}"
            f" lanes={self.lanes_belief.name.lower()}"
            f" in_flight={self.in_flight} names={len(self.lanes)}>"
        )

    # ── Predicates ───────────────────────────────────────────────────────────────────────────

    @property
    def is_open(self) -> bool:
        """Whether it takes turns at all."""
        return self.state is State.OPEN

    @property
    def is_idle(self) -> bool:
        """Whether closing it would cut nothing."""
        return self.in_flight == 0

    @property
    def is_live(self) -> bool:
        """Whether somebody waits for a turn that runs on it."""
        return any(lane.is_live for lane in self.lanes.values())

    @property
    def capacity(self) -> int:
        """How many turns may be in flight on it at once."""
        return self.limits.max_in_flight if self.lanes_belief is Lanes.ON else 1

    def has_room(self) -> bool:
        """Whether one more turn could start on it now, its road proven or not."""
        return self.is_open and self.in_flight < self.capacity and self.free_lane() is not None

    def needs_probe(self, now: float) -> bool:
        """Whether nothing at all was heard for so long that the road must be proven first."""
        return now - self.received_at > self.limits.probe_after_s

    def due_at(self, longest_turn_s: float) -> float:
        """From when on a turn might not end before the connection's last minute."""
        return min(self.retire_at, self.opened_at + self.limits.last_turn_end_s - longest_turn_s)

    def is_too_old(self, now: float, longest_turn_s: float) -> bool:
        """Whether it takes no new turn. A fresh one always does: no other would be better."""
        return now > self.opened_at and now >= self.due_at(longest_turn_s)

    def is_dead(self, now: float, after_silence_s: float) -> bool:
        """Whether its silence alone says so (`Options.dead_after_silence_s`)."""
        is_missing = self.has_ponged and self.pinged_at is not None
        return is_missing and 0 < after_silence_s <= now - self.received_at

    def probe_wait_s(self, usual_s: float) -> float:
        """How long a pong may take before the road counts as broken."""
        is_slow = self.slowest_pong_s > usual_s / 2
        return usual_s * SLOW_PONG_FACTOR if is_slow else usual_s

    def free_lane(self) -> LaneName | None:
        """A lane for a turn that continues nothing here: a new name, else the one longest idle.

        Names are never given back by upstream (32 in a connection's life), so an idle lane's
        checkpoint goes cold when its name is used again.
        """
        if self.lanes_belief is Lanes.OFF:
            lane = self.lanes.get(DEFAULT_LANE)
            return DEFAULT_LANE if lane is None or lane.is_idle else None
        cold = [lane for lane in self.lanes.values() if lane.is_idle and lane.warm is None]
        if cold:
            return min(cold, key=lambda lane: lane.used_at).name
        if len(self.lanes) < self.limits.max_lanes:
            return LaneName(f"l{len(self.lanes) + 1:02d}")
        idle = [lane for lane in self.lanes.values() if lane.is_idle]
        return min(idle, key=lambda lane: lane.used_at).name if idle else None

    def running(self) -> Iterator[TurnId]:
        """Turns in flight on it, abandoned ones included."""
        return (lane.turn for lane in self.lanes.values() if lane.turn is not None)

    # ── Transitions ──────────────────────────────────────────────────────────────────────────

    def opened(self, now: float, jitter_s: float) -> None:
        """The upgrade was accepted; `jitter_s` keeps many connections from ageing at once."""
        assert self.state is State.DIALLING, repr(self)
        self.state = State.OPEN
        self.opened_at = self.received_at = self.idle_since = now
        # Where ages are set to seconds (tests, rehearsals) the jitter must not eat them up.
        self.retire_at = now + self.limits.max_age_s - min(jitter_s, self.limits.max_age_s / 2)

    def retire(self) -> None:
        """Take no new turn; what is warm here can no longer be continued here."""
        assert self.state is not State.DIALLING, repr(self)
        if self.state is State.OPEN:
            self.state = State.RETIRED

    def closed(self) -> None:
        """It is gone, with everything upstream remembered on it."""
        self.state = State.CLOSED

    def preferred_by(self, session: SessionName) -> None:
        """Turns of this session come here first from now on."""
        self.sessions.pop(session, None)
        self.sessions[session] = None
        if len(self.sessions) > MAX_SESSIONS:
            del self.sessions[next(iter(self.sessions))]

    def take(self, turn: TurnId, lane_name: LaneName, now: float) -> Lane:
        """A turn starts on a lane."""
        assert self.is_open, repr(self)
        assert self.in_flight < self.capacity, repr(self)
        lane = self.lanes.get(lane_name)
        if lane is None:
            lane = self.lanes[lane_name] = Lane(lane_name, now)
        lane.take(turn, now)
        self.in_flight += 1
        return lane

    def settle(
        self, turn: TurnId, warm: Checkpoint | None, response_id: str | None, now: float
    ) -> None:
        """A turn has ended on it; its lane is warm with the checkpoint, or cold."""
        lane = self._lane_of(turn)
        if lane is not None:
            lane.settle(warm, response_id, now)
            self.in_flight -= 1
        if self.is_idle:
            self.idle_since = now

    def abandon(self, turn: TurnId) -> bool:
        """Nobody waits for this turn any more; it holds its slot until upstream ends it.

        Whether it was running here at all.
        """
        lane = self._lane_of(turn)
        if lane is not None:
            lane.abandon()
        return lane is not None

    def become_laneless(self) -> None:
        """Upstream does not echo `stream_id`: the lane found out on is the default lane."""
        assert self.lanes_belief is Lanes.UNKNOWN, repr(self)
        assert len(self.lanes) <= 1, repr(self)
        self.lanes_belief = Lanes.OFF
        for lane in list(self.lanes.values()):
            del self.lanes[lane.name]
            lane.name = DEFAULT_LANE
            self.lanes[DEFAULT_LANE] = lane

    def pinged(self, now: float) -> None:
        """A ping was sent; the oldest unanswered one counts."""
        if self.pinged_at is None:
            self.pinged_at = now

    def ponged(self, now: float) -> None:
        """The road is proven."""
        self.received_at, self.has_ponged = now, True
        if self.pinged_at is not None:
            self.slowest_pong_s = max(self.slowest_pong_s, now - self.pinged_at)
        self.pinged_at = self.probing_since = None

    def slept(self, for_s: float) -> None:
        """The machine slept: upstream's clock went on, and the road must be proven again.

        What is still being dialled will be as old as its handshake.
        """
        if self.state is State.DIALLING:
            return
        self.opened_at -= for_s
        self.retire_at -= for_s
        self.received_at = float("-inf")

    def _lane_of(self, turn: TurnId) -> Lane | None:
        return next((lane for lane in self.lanes.values() if lane.turn == turn), None)
