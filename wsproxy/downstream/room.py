"""How much of request bodies we hold at one moment, all turns together (faults.md F47, §7).

Rules of this file
------------------
1. Counted is what came: the body as it was sent, and once more what a coding undone made of it.
   What the driver makes of it (its input, the frame, the frame compressed) has no more than its
   size each, and goes with it: docs/operations.md adds it up.
2. Bytes are counted before they are kept, and refused rather than kept beyond the limit.
3. A body leaves the account once: when nobody will read it again, at the latest with its turn.
"""

from __future__ import annotations

from types import TracebackType
from typing import Final

#: 70 bodies of 3.5 MB, below which 99 of 100 of a coding agent stay; each is held for the second
#: or two until its answer begins. With what is made of them they take up to 1 GiB.
REQUEST_BODIES_TOTAL_BYTES: Final = 268_435_456


class NoRoomError(Exception):
    """All bodies together would be over the limit."""


class Room:
    """The account of all bodies."""

    def __init__(self, total_bytes: int = REQUEST_BODIES_TOTAL_BYTES) -> None:
        self.total_bytes = total_bytes
        self.held_bytes = 0

    def __repr__(self) -> str:
        return f"<Room {self.held_bytes} of {self.total_bytes} bytes>"

    def has_room_for(self, size: int) -> bool:
        """Whether so many bytes more could be kept now."""
        return self.held_bytes + size <= self.total_bytes


class Share:
    """One body's part of a room, given back at the end of the `with` block, or before."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._size = 0

    def check(self, size: int) -> None:
        """Raises `NoRoomError` if so many bytes more would be too many; nothing is counted."""
        if not self._room.has_room_for(size):
            raise NoRoomError

    def take(self, size: int) -> None:
        """Count so many bytes more. Raises `NoRoomError`, and then counts none of them."""
        self.check(size)
        self._size += size
        self._room.held_bytes += size

    def give_back(self) -> None:
        """The bytes are let go of; once more does nothing."""
        self._room.held_bytes -= self._size
        self._size = 0

    def __enter__(self) -> Share:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.give_back()
