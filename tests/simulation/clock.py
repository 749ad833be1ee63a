"""Virtual time: an event loop whose clock jumps to the next timer when nothing is ready.

No socket, no thread, no sleep; an hour of waiting costs what its timers cost.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

#: Where the clock starts: not 0, so that a time that was never set is seen as one.
EPOCH_S: Final = 1000.0


class StalledError(Exception):
    """Somebody waits, no timer is set and nothing is ready: it would wait for ever."""


class VirtualLoop(asyncio.BaseEventLoop):
    """Run it, and close it, in the ordinary way."""

    def __init__(self) -> None:
        super().__init__()
        self.now = EPOCH_S
        self._selector = _Jump(self)

    def time(self) -> float:
        """Virtual seconds."""
        return self.now

    # What `BaseEventLoop` asks of its subclasses.

    def _process_events(self, event_list: list[Any]) -> None:
        """No file descriptor was asked about."""

    def _write_to_self(self) -> None:
        """Nobody sleeps in a selector."""


class _Jump:
    """Stands where the selector would: waiting moves the clock."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> list[Any]:
        if timeout is None:
            raise StalledError("nothing can ever happen again")
        self._loop.now += timeout
        return []


def new_loop() -> VirtualLoop:
    """A fresh loop at `EPOCH_S`."""
    return VirtualLoop()
