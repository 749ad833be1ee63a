"""One `response.create` at upstream, from its arrival to its last event."""

from __future__ import annotations

import asyncio
from collections import deque
from random import Random
from typing import TYPE_CHECKING, Any

from tests.simulation.plan import Strike
from wsproxy.simulator.errors import ApiError
from wsproxy.simulator.outputs import Event
from wsproxy.simulator.turns import Turn

if TYPE_CHECKING:
    from tests.simulation.service import Session


class Run:
    """What upstream has been asked, and how far it is with it."""

    def __init__(
        self, number: int, session: Session, lane: str, fields: dict[str, Any], dice: Random
    ) -> None:
        self.number = number
        self.session = session
        self.lane = lane
        self.fields = fields
        self.dice = dice
        metadata = fields.get("metadata")
        self.canary = str(metadata.get("canary", "")) if isinstance(metadata, dict) else ""
        self.turn: Turn | None = None
        self.error: ApiError | None = None  # said after response.created, by order
        self.events: list[Event] = []
        self.at = 0
        self.pauses: list[int] = []
        self.strikes: deque[Strike] = deque()
        self.inserted: dict[int, list[Event]] = {}
        self.gap = 0
        self.is_refused = False
        self.is_silent = False
        self.is_over = False
        self.timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<Run {self.number} {self.canary} on {self.session.id}/{self.lane or 'default'}>"

    @property
    def has_started(self) -> bool:
        """Whether anything of it was told."""
        return self.at > 0 or bool(self.inserted)

    def stop(self) -> None:
        """Nothing more is told."""
        self.is_over = True
        if self.timer is not None:
            self.timer.cancel()
