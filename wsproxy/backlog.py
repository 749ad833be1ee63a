"""What clients have not taken yet, looked at while there is any (faults.md F39, F47).

Who is cut for it is decided by `core/multiplex/readers.py`; here are the buffers and the timer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from wsproxy.core.ids import TurnId
from wsproxy.core.multiplex.readers import ReaderLimits, Readers
from wsproxy.core.multiplex.recovery import Fault
from wsproxy.ports import Sink

#: Looks within one `stall_s`, so that a cut comes at most a quarter of it late.
_LOOKS_A_STALL: Final = 4
_LONGEST_PAUSE_S: Final = 1.0

#: Of a write no larger, all of which is still ours, nobody needs to know before the next look.
_SMALL_BYTES: Final = 64 * 1024

#: Called for a client that is to be cut, with the fault that says why.
Cut = Callable[[TurnId, Sink, Fault], None]


class Backlog:
    """The answers whose client is behind, until it has caught up or is cut.

    A finished answer stays in it: the bytes are still ours.
    """

    def __init__(self, limits: ReaderLimits, cut: Cut) -> None:
        self._readers = Readers(limits)
        self._cut = cut
        self._behind: dict[TurnId, Sink] = {}
        self._fresh: dict[TurnId, Sink] = {}
        self._pause_s = min(_LONGEST_PAUSE_S, limits.stall_s / _LOOKS_A_STALL)
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._behind)

    @property
    def buffered_bytes(self) -> int:
        """What all clients together have not taken, as of the last look."""
        return self._readers.buffered_bytes

    def wrote(self, turn: TurnId, sink: Sink, size: int) -> None:
        """Bytes were written to a client; nothing else happens while it keeps up."""
        buffered = sink.buffered_bytes()
        if turn not in self._behind:
            if not buffered:
                return
            self._look_soon()
            if buffered <= min(size, _SMALL_BYTES):
                # uvloop writes at the end of its round: whether it stays is seen at the next look.
                self._fresh[turn] = sink
                return
            self._behind[turn] = sink
        now = asyncio.get_running_loop().time()
        self._readers.saw(turn, sink.taken_bytes(), buffered, now)
        self._cut_largest()

    def close(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look_soon(self) -> None:
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._pause_s, self._look)

    def _look(self) -> None:
        self._timer = None
        now = asyncio.get_running_loop().time()
        fresh, self._fresh = self._fresh, {}
        for turn, sink in (fresh | self._behind).items():
            buffered = sink.buffered_bytes()
            if buffered:
                self._behind[turn] = sink
                self._readers.saw(turn, sink.taken_bytes(), buffered, now)
            elif turn in self._behind:
                self._forget(turn)
        for turn in self._readers.stalled(now):
            self._give_up(turn, Fault.CLIENT_SLOW)
        self._cut_largest()
        if self._behind:
            self._look_soon()

    def _cut_largest(self) -> None:
        while (turn := self._readers.largest()) is not None:
            self._give_up(turn, Fault.OVERLOADED)

    def _give_up(self, turn: TurnId, fault: Fault) -> None:
        sink = self._behind[turn]
        self._forget(turn)
        self._cut(turn, sink, fault)

    def _forget(self, turn: TurnId) -> None:
        self._readers.caught_up(turn)
        del self._behind[turn]
