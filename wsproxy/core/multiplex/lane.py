"""One `stream_id` on one connection: FIFO, at most one turn in flight, one warm checkpoint.

IDLE ──take──▶ BUSY ──settle──▶ IDLE
                └──abandon──▶ DRAINING ──settle──▶ IDLE (cold)
"""

from __future__ import annotations

from wsproxy.core.conversation.history import Checkpoint
from wsproxy.core.ids import LaneName, TurnId


class Lane:
    """The state is what it holds: a turn (BUSY), a turn nobody waits for (DRAINING), or none."""

    __slots__ = ("is_draining", "name", "response_id", "turn", "used_at", "warm")

    def __init__(self, name: LaneName, now: float) -> None:
        self.name = name
        self.turn: TurnId | None = None
        self.is_draining = False
        self.warm: Checkpoint | None = None
        self.response_id: str | None = None  # the latest, for clients that chain by themselves
        self.used_at = now

    def __repr__(self) -> str:
        state = "draining" if self.is_draining else "busy" if self.turn else "idle"
        return f"<Lane {self.name or 'default'} {state}{' warm' if self.warm else ''}>"

    @property
    def is_idle(self) -> bool:
        """Whether a turn may be sent on it now."""
        return self.turn is None

    @property
    def is_live(self) -> bool:
        """Whether it runs a turn that somebody waits for."""
        return self.turn is not None and not self.is_draining

    def take(self, turn: TurnId, now: float) -> None:
        """A turn is being sent. Its parent stays warm for forks until the turn ends."""
        assert self.turn is None, f"{self!r} already runs {self.turn}"
        self.turn, self.used_at = turn, now

    def abandon(self) -> None:
        """Nobody waits for the turn any more; the lane stays taken until its terminal event."""
        assert self.turn is not None, repr(self)
        self.is_draining = True

    def settle(self, warm: Checkpoint | None, response_id: str | None, now: float) -> None:
        """The turn has ended; anything but a committed checkpoint leaves the lane cold."""
        self.warm = None if self.is_draining else warm
        self.response_id = response_id
        self.turn, self.is_draining, self.used_at = None, False, now
