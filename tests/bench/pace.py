"""When the light upstream says what: the same events a second, spread evenly or in step."""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

Framing = Callable[[str, bytes], bytes]
_CLOCK_MONOTONIC: Final = 1


@dataclass(slots=True)
class Waiting:
    """A stream that begins when all are there.

    In step: the events of all streams leave at the same instant, as a model server that decodes
    its sequences as one batch gives each of them a token a step. Otherwise they leave one by one,
    the same time apart, so that a reader hardly ever finds two together.
    """

    number: int
    rate: int
    is_in_step: bool
    events: Iterator[tuple[str, bytes]]
    framing: Framing
    write: Callable[[bytes], None]
    last: bytes


class Pace:
    """Says one event of one stream a tick (in step: of each stream) until nothing is left."""

    def __init__(self) -> None:
        self.sent: dict[int, list[int]] = {}
        self._waiting: list[Waiting] = []
        self._plan: list[tuple[Callable[[bytes], None], bytes, list[int]]] = []
        self._a_tick = 1
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._timer: int | None = None

    def join(self, waiting: Waiting, streams: int) -> None:
        """One more stream; the last one starts them all."""
        self._waiting.append(waiting)
        if len(self._waiting) == streams:
            together, self._waiting = self._waiting, []
            self._begin(together)

    def _begin(self, streams: Sequence[Waiting]) -> None:
        self.sent = {stream.number: [] for stream in streams}
        plan = []
        for turn in zip(*(stream.events for stream in streams), strict=True):
            for stream, event in zip(streams, turn, strict=True):
                # In the order of sending: a connection's deflate stream goes through all of them.
                framed = stream.framing(*event)
                if event[0] == "response.completed":
                    framed += stream.last
                plan.append((stream.write, framed, self.sent[stream.number]))
        plan.reverse()
        self._plan = plan
        self._a_tick = len(streams) if streams[0].is_in_step else 1
        self._tick_every(round(1e9 * self._a_tick / (streams[0].rate * len(streams))))

    def _tick_every(self, period_ns: int) -> None:
        # uvloop's own timers count in milliseconds; 20 streams need one event each 50 µs.
        timer = self._libc.timerfd_create(_CLOCK_MONOTONIC, os.O_NONBLOCK)
        spec = (ctypes.c_long * 4)(*divmod(period_ns, 10**9), *divmod(period_ns, 10**9))
        self._libc.timerfd_settime(timer, 0, spec, None)
        self._timer = timer
        asyncio.get_running_loop().add_reader(timer, self._tick)

    def _tick(self) -> None:
        assert self._timer is not None
        due = self._a_tick * int.from_bytes(os.read(self._timer, 8), sys.byteorder)
        plan = self._plan
        for _ in range(min(due, len(plan))):
            write, framed, sent = plan.pop()
            sent.append(time.monotonic_ns())
            write(framed)
        if not plan:
            asyncio.get_running_loop().remove_reader(self._timer)
            os.close(self._timer)
