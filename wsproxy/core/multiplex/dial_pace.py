"""How often a pool key may dial, so that no loss becomes a storm (faults.md §7).

Three bounds: a budget that turns pay into, a pace after mass loss, and a pause that upstream
asked for. What a refusal means for how long is a belief (`beliefs.py`), not a pace.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from lru import LRU

from wsproxy.core.ids import PoolKey

#: Dials a turn pays for, and dials a second that are free: 20 % of turns + 10/min.
DIALS_PER_TURN: Final = 0.2
DIALS_PER_S: Final = 10 / 60
#: As many connections as a key may have at all: a fresh key may open them at once.
BURST: Final = 16.0
#: So many connections of one key lost within so many seconds are a mass loss.
MASS_LOSS: Final = 2
MASS_LOSS_WINDOW_S: Final = 5.0
#: For so long after a mass loss a key dials at most twice a second.
PACED_FOR_S: Final = 10.0
PACED_EVERY_S: Final = 0.5
#: "Try again later" (close 1012, 1013) means this much later, up to twice it by jitter.
BACKOFF_S: Final = 0.5
#: Pool keys whose pace is remembered (LRU).
REMEMBERED_KEYS: Final = 1024


@dataclass(slots=True)
class _Pace:
    tokens: float
    counted_at: float
    lost: int = 0
    lost_at: float = float("-inf")
    paced_until: float = float("-inf")
    next_at: float = float("-inf")


class DialPace:
    """The pace of every pool key; `jitter` is a random number from 0 to 1 that an event brings."""

    def __init__(self, burst: float = BURST) -> None:
        self._burst = burst
        self._by_key: LRU[PoolKey, _Pace] = LRU(REMEMBERED_KEYS)

    def dial_from(self, key: PoolKey, now: float) -> float:
        """From when on the key may dial: now, or a little later."""
        pace = self._of(key, now)
        missing = max(0.0, 1 - pace.tokens)
        # A hair more than needed, or rounding would ask for one more wait of nothing.
        earned_at = now + missing / DIALS_PER_S + 1e-6 if missing else now
        return max(earned_at, pace.next_at)

    def admitted(self, key: PoolKey, now: float) -> None:
        """A turn pays its share."""
        pace = self._of(key, now)
        pace.tokens = min(self._burst, pace.tokens + DIALS_PER_TURN)

    def dialled(self, key: PoolKey, now: float) -> None:
        """One dial is spent."""
        pace = self._of(key, now)
        pace.tokens -= 1
        if now < pace.paced_until:
            pace.next_at = max(pace.next_at, now + PACED_EVERY_S)

    def lost(self, key: PoolKey, now: float, jitter: float) -> None:
        """A connection was lost without our doing."""
        pace = self._of(key, now)
        pace.lost = pace.lost + 1 if now - pace.lost_at <= MASS_LOSS_WINDOW_S else 1
        pace.lost_at = now
        if pace.lost >= MASS_LOSS:
            is_first = now >= pace.paced_until
            pace.paced_until = now + PACED_FOR_S
            if is_first:
                pace.next_at = max(pace.next_at, now + jitter * PACED_EVERY_S)

    def asked_to_wait(self, key: PoolKey, now: float, jitter: float) -> None:
        """Upstream restarts, or wants to be left alone for a moment."""
        pace = self._of(key, now)
        pace.next_at = max(pace.next_at, now + BACKOFF_S * (1 + jitter))

    def _of(self, key: PoolKey, now: float) -> _Pace:
        pace = self._by_key.get(key)
        if pace is None:
            pace = self._by_key[key] = _Pace(self._burst, now)
        pace.tokens = min(self._burst, pace.tokens + (now - pace.counted_at) * DIALS_PER_S)
        pace.counted_at = now
        return pace
