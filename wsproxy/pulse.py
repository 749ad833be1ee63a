"""Whether the event loop keeps up (faults.md F47)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

_BEAT_S: Final = 0.25
#: A beat so late, most of it spent by ourselves, says that there is more to do than can be done.
STALL_S: Final = 1.0
#: New turns are refused for so long; `retry-after` says the same.
SHED_S: Final = 1.0


class Pulse:
    """Beats while somebody needs it; tells when a beat came far too late, and when that is over.

    A process that was stopped, or got no processor, has nothing to shed: only time that it used
    up itself counts.
    """

    def __init__(
        self, changed: Callable[[bool], None], cpu_s: Callable[[], float] = time.process_time
    ) -> None:
        self._changed = changed
        self._cpu_s = cpu_s
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._used_s = 0.0
        self._shed_until: float | None = None

    def start(self) -> None:
        """Beat from now on; once is enough."""
        if self._timer is None:
            self._next()

    def stop(self) -> None:
        """Nobody needs it; whatever was told is over."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._recover()

    def _next(self) -> None:
        loop = asyncio.get_running_loop()
        self._due, self._used_s = loop.time() + _BEAT_S, self._cpu_s()
        self._timer = loop.call_at(self._due, self._beat)

    def _beat(self) -> None:
        now = asyncio.get_running_loop().time()
        late_s, used_s = now - self._due, self._cpu_s() - self._used_s
        if late_s > STALL_S and used_s > late_s / 2:
            if self._shed_until is None:
                self._changed(True)
            self._shed_until = now + SHED_S
        elif self._shed_until is not None and now >= self._shed_until:
            self._recover()
        self._next()

    def _recover(self) -> None:
        if self._shed_until is not None:
            self._shed_until = None
            self._changed(False)
