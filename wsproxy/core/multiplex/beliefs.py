"""What has been learned of an upstream, per pool key, and for how long it is believed.

Nothing here is permanent: each belief has a way back (contract §3, §4).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from lru import LRU

from wsproxy.core.ids import PoolKey
from wsproxy.core.multiplex.connection import Lanes
from wsproxy.core.multiplex.recovery import Fault

#: Pool keys remembered (LRU); a forgotten one is learned anew.
REMEMBERED_KEYS: Final = 1024
#: After a probe that told nothing (lost, timed out) or a refuted belief.
PROBE_AGAIN_S: Final = 60.0
#: Refusals in a row of stored chains before they are left alone, and for how long (§5.9).
STORED_REFUSALS: Final = 2
STORED_OFF_S: Final = 3600.0


class Chains(Enum):
    """Whether upstream looks up `previous_response_id` at all."""

    PROVEN = auto()
    REFUTED = auto()
    UNPROVEN = auto()
    PROBING = auto()


#: How long "no WebSocket" is believed, and of whom: per key, or per upstream URL.
_OF_KEY: Final = frozenset(
    {Fault.UPGRADE_UNAUTHORIZED, Fault.UPGRADE_RATE_LIMITED, Fault.CLOSED_POLICY}
)
_OF_URL: Final = frozenset({Fault.UPGRADE_UNSUPPORTED})


@dataclass(slots=True)
class Belief:
    """What is believed for one pool key."""

    lanes: Lanes
    chains: Chains
    chains_probe_at: float = 0.0
    no_websocket_until: float = 0.0
    dial_failures: int = 0
    stored_refusals: int = 0
    stored_off_until: float = 0.0
    longest_turn_s: float = 0.0


class Beliefs:
    """Beliefs by pool key, and the one about the upstream URL itself."""

    def __init__(
        self, *, lanes: Lanes, chains: Chains, no_websocket_key_s: float, no_websocket_url_s: float
    ) -> None:
        self._first = (lanes, chains)
        self._key_s = no_websocket_key_s
        self._url_s = no_websocket_url_s
        self._by_key: LRU[PoolKey, Belief] = LRU(REMEMBERED_KEYS)
        self.url_no_websocket_until = 0.0

    def of(self, key: PoolKey) -> Belief:
        """The belief for a key; what is configured where nothing was learned yet."""
        belief = self._by_key.get(key)
        if belief is None:
            belief = self._by_key[key] = Belief(*self._first)
        return belief

    def has_websocket(self, key: PoolKey, now: float) -> bool:
        """Whether a WebSocket may be had, as far as is known."""
        return now >= max(self.of(key).no_websocket_until, self.url_no_websocket_until)

    def is_doubted(self, key: PoolKey) -> bool:
        """Whether the last thing heard of a WebSocket for this key was a refusal."""
        return self.of(key).no_websocket_until > 0 or self.url_no_websocket_until > 0

    def refused(self, key: PoolKey, fault: Fault, retry_after_s: float | None, now: float) -> None:
        """A dial (or a whole connection, by 1008) was refused: remember for whom, and how long.

        What is neither policy nor absence (unreachable, 5xx) backs off from 1 s to 60 s.
        """
        belief = self.of(key)
        belief.dial_failures += 1
        if fault in _OF_URL:
            self.url_no_websocket_until = now + self._url_s
        elif fault in _OF_KEY:
            belief.no_websocket_until = now + (retry_after_s or self._key_s)
        else:
            backoff = min(2.0 ** (belief.dial_failures - 1), 60.0)
            belief.no_websocket_until = now + (retry_after_s or backoff)

    def opened(self, key: PoolKey) -> None:
        """A dial succeeded: every doubt about WebSockets is gone."""
        belief = self.of(key)
        belief.dial_failures = 0
        belief.no_websocket_until = 0.0
        self.url_no_websocket_until = 0.0

    def stored_refused(self, key: PoolKey, now: float) -> None:
        """A stored chain was refused; twice in a row says zero retention (contract §5.9)."""
        belief = self.of(key)
        belief.stored_refusals += 1
        if belief.stored_refusals >= STORED_REFUSALS:
            belief.stored_refusals = 0
            belief.stored_off_until = now + STORED_OFF_S

    def shown(self) -> Mapping[PoolKey, Belief]:
        """For the console."""
        return dict(self._by_key.items())
