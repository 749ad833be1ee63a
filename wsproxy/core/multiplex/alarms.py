"""When something must be looked at again, at the latest.

Rules of this file
------------------
1. One alarm a kind and id: setting it again moves it.
2. What is cancelled or moved stays in the heap until it comes up, or until half of it is stale.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from enum import Enum, auto
from typing import Final

from wsproxy.core.ids import ConnectionId, TurnId

#: Stale entries that are not worth a clearing-up.
_FEW_STALE: Final = 64


class Kind(Enum):
    """What the alarm is about."""

    WAIT = auto()  # a turn in our queue (TurnId)
    EVENTS = auto()  # a turn that runs upstream (TurnId)
    PROBE = auto()  # a road to be proven (ConnectionId)
    PING = auto()  # the next keepalive (ConnectionId)
    CHAIN_PROBE = auto()  # the answer of a chain probe (ConnectionId)
    UPKEEP = auto()
    DRAIN = auto()


Id = TurnId | ConnectionId | None
_Name = tuple[Kind, Id]


class Alarms:
    """A heap of points in time."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, _Name]] = []
        self._set: dict[_Name, int] = {}
        self._numbered = 0

    def __len__(self) -> int:
        return len(self._set)

    def set(self, at: float, kind: Kind, id_: Id = None) -> None:
        """Ring at `at`, and no longer when it was to ring before."""
        self._numbered += 1
        self._set[kind, id_] = self._numbered
        heapq.heappush(self._heap, (at, self._numbered, (kind, id_)))
        if len(self._heap) > 2 * len(self._set) + _FEW_STALE:
            self._heap = [entry for entry in self._heap if self._is_current(entry)]
            heapq.heapify(self._heap)

    def is_set(self, kind: Kind, id_: Id = None) -> bool:
        """Whether it will ring."""
        return (kind, id_) in self._set

    def cancel(self, kind: Kind, id_: Id = None) -> None:
        """Do not ring; no alarm of that name is no error."""
        self._set.pop((kind, id_), None)

    def next_at(self) -> float | None:
        """When the next one rings."""
        while self._heap and not self._is_current(self._heap[0]):
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def due(self, now: float) -> Iterator[_Name]:
        """Those that ring now, each once; more may be set meanwhile."""
        while (at := self.next_at()) is not None and at <= now:
            _, _, name = heapq.heappop(self._heap)
            del self._set[name]
            yield name

    def _is_current(self, entry: tuple[float, int, _Name]) -> bool:
        return self._set.get(entry[2]) == entry[1]
