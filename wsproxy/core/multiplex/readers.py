"""Clients that read slowly: whose answer is given up so that its siblings never stall (F39, F47).

No flow control exists per lane, so pausing the socket would stall up to 15 others. What a client
has not taken waits in its own buffer instead, and the client pays for it.
"""

from __future__ import annotations

from dataclasses import dataclass

from wsproxy.core.ids import TurnId


@dataclass(frozen=True, slots=True)
class ReaderLimits:
    """A client is cut with `per_turn_bytes` behind and nothing taken for `stall_s`; the one
    with most behind when all together have `total_bytes`."""

    per_turn_bytes: int = 8 * 1024 * 1024
    stall_s: float = 60.0
    total_bytes: int = 256 * 1024 * 1024


@dataclass(slots=True)
class _Reader:
    buffered: int
    taken: int
    taken_at: float


class Readers:
    """What each running turn's client has left in our buffers."""

    def __init__(self, limits: ReaderLimits) -> None:
        self._limits = limits
        self._readers: dict[TurnId, _Reader] = {}

    def __len__(self) -> int:
        return len(self._readers)

    @property
    def buffered_bytes(self) -> int:
        """What all clients together have not taken."""
        return sum(reader.buffered for reader in self._readers.values())

    def saw(self, turn: TurnId, taken: int, buffered: int, now: float) -> None:
        """A turn has bytes left in its buffer; `taken` grows whenever its client takes some."""
        reader = self._readers.get(turn)
        if reader is None:
            self._readers[turn] = _Reader(buffered, taken, now)
            return
        if taken > reader.taken:
            reader.taken, reader.taken_at = taken, now
        reader.buffered = buffered

    def caught_up(self, turn: TurnId) -> None:
        """The client has taken everything, or is gone."""
        self._readers.pop(turn, None)

    def stalled(self, now: float) -> list[TurnId]:
        """Whose client is to be cut: too much behind for too long."""
        return [
            turn
            for turn, reader in self._readers.items()
            if reader.buffered > self._limits.per_turn_bytes
            and now - reader.taken_at >= self._limits.stall_s
        ]

    def largest(self) -> TurnId | None:
        """Who is cut first when all buffers together are over their cap; None if they are not."""
        if self.buffered_bytes <= self._limits.total_bytes:
            return None
        return max(self._readers, key=lambda turn: self._readers[turn].buffered)
