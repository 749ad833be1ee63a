"""What has been learned of an upstream, per pool key, and for how long it is believed.

Each belief has a way back (contract §3, §4) but one: an upstream that lost a context once gets no
delta from this process again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from lru import LRU

from wsproxy.core.conversation.identity import Hints
from wsproxy.core.ids import PoolKey, SessionName
from wsproxy.core.multiplex.connection import Lanes
from wsproxy.core.multiplex.recovery import Fault

#: Pool keys remembered (LRU); a forgotten one is learned anew.
REMEMBERED_KEYS: Final = 1024
#: Sessions whose longest turn is remembered (LRU).
REMEMBERED_SESSIONS: Final = 4096
#: After a chain probe that told nothing (lost, timed out).
PROBE_AGAIN_S: Final = 60.0
#: After a chain probe that told that ids are not looked up: upstreams are upgraded.
REFUTED_FOR_S: Final = 3600.0
#: Warm parents not found, in a row, before the upstream counts as one that forgets.
WARM_REFUSALS: Final = 2
#: Refusals in a row of stored chains before they are left alone, and for how long (§5.9).
STORED_REFUSALS: Final = 2
STORED_OFF_S: Final = 3600.0
#: The breaker (faults.md §7): a pause after each failed dial, and 5 s to 60 s from the fifth on.
PAUSE_S: Final = 1.0
BREAKER_FAILURES: Final = 5
BREAKER_S: Final = 5.0
BREAKER_MAX_S: Final = 60.0
#: A pause is up to this much longer, so that many keys do not dial at the same moment.
PAUSE_JITTER: Final = 0.2


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
class Doubt:
    """No WebSocket is to be had until then, because of this fault."""

    fault: Fault
    until: float


@dataclass(slots=True)
class Belief:
    """What is believed for one pool key."""

    lanes: Lanes
    chains: Chains
    hints: Hints
    chains_probe_at: float = 0.0
    names_parents: bool = False  # deltas were answered with the parent's id
    doubt: Doubt | None = None
    dial_failures: int = 0
    warm_refusals: int = 0
    stored_refusals: int = 0
    stored_off_until: float = 0.0
    longest_turn_s: float = 0.0  # of all its sessions

    @property
    def no_websocket_until(self) -> float:
        """Until when no dial is made in the name of this key."""
        return self.doubt.until if self.doubt is not None else 0.0


class Beliefs:
    """Beliefs by pool key, and those about the upstream itself."""

    def __init__(
        self, *, lanes: Lanes, chains: Chains, no_websocket_key_s: float, no_websocket_url_s: float
    ) -> None:
        self._lanes = lanes
        self._chains = chains
        self._key_s = no_websocket_key_s
        self._url_s = no_websocket_url_s
        self._by_key: LRU[PoolKey, Belief] = LRU(REMEMBERED_KEYS)
        self._longest: LRU[tuple[PoolKey, SessionName], float] = LRU(REMEMBERED_SESSIONS)
        self._has_lost_context = False
        self.url_doubt: Doubt | None = None

    def of(self, key: PoolKey) -> Belief:
        """The belief for a key; what is configured where nothing was learned yet."""
        belief = self._by_key.get(key)
        if belief is None:
            belief = self._by_key[key] = Belief(self._lanes, self._chains, Hints())
        return belief

    # ── Is there a WebSocket at all? ─────────────────────────────────────────────────────────

    def doubt(self, key: PoolKey) -> Doubt | None:
        """What speaks against a WebSocket, if the last thing heard was a refusal.

        When its time has passed it still stands until a dial succeeds, but a dial may be made.
        """
        doubts = [doubt for doubt in (self.url_doubt, self.of(key).doubt) if doubt is not None]
        return max(doubts, key=lambda doubt: doubt.until, default=None)

    @property
    def url_no_websocket_until(self) -> float:
        """Until when no dial is made at all."""
        return self.url_doubt.until if self.url_doubt is not None else 0.0

    def refused(
        self, key: PoolKey, fault: Fault, retry_after_s: float | None, now: float, jitter: float
    ) -> None:
        """A dial (or a whole connection, by 1008) was refused: remember for whom, and how long.

        That we had no descriptor left says nothing of upstream, and is not remembered.
        """
        if fault is Fault.OUT_OF_DESCRIPTORS:
            return
        belief = self.of(key)
        belief.dial_failures += 1
        if fault in _OF_URL:
            self.url_doubt = Doubt(fault, now + self._url_s)
        elif fault in _OF_KEY:
            belief.doubt = Doubt(fault, now + (retry_after_s or self._key_s))
        else:
            pause_s = retry_after_s or _pause_s(belief.dial_failures) * (1 + PAUSE_JITTER * jitter)
            belief.doubt = Doubt(fault, now + pause_s)

    def opened(self, key: PoolKey) -> None:
        """A dial succeeded: every doubt about WebSockets is gone."""
        belief = self.of(key)
        belief.dial_failures = 0
        belief.doubt = self.url_doubt = None

    # ── Are there lanes? ─────────────────────────────────────────────────────────────────────

    @property
    def finds_out_lanes(self) -> bool:
        """Whether what was learned of lanes may be wrong, and is then learned anew."""
        return self._lanes is Lanes.UNKNOWN

    def lanes_learned(self, key: PoolKey, lanes: Lanes) -> None:
        """Remember it for the next connections, unless the operator (or the host) said it."""
        if self.finds_out_lanes:
            self.of(key).lanes = lanes

    # ── Are chains kept? ─────────────────────────────────────────────────────────────────────

    @property
    def finds_out_chains(self) -> bool:
        """Whether nobody vouches for them: neither the host's name nor the operator."""
        return self._chains is Chains.UNPROVEN

    def chains(self, key: PoolKey) -> Chains:
        """Whether deltas may be sent; UNPROVEN: a probe is due or coming."""
        return Chains.REFUTED if self._has_lost_context else self.of(key).chains

    def chains_told(self, key: PoolKey) -> tuple[tuple[str, str], ...]:
        """Why no delta may be sent, for `Why.about`; nothing while it is being found out."""
        if self._chains is Chains.REFUTED:
            return (("chains", "off"),)
        return (("chains", "refuted"),) if self.chains(key) is Chains.REFUTED else ()

    def is_chain_probe_due(self, key: PoolKey, now: float) -> bool:
        """Whether to ask, or to ask again."""
        if self._chains is not Chains.UNPROVEN or self._has_lost_context:
            return False
        belief = self.of(key)
        return belief.chains is not Chains.PROVEN and now >= belief.chains_probe_at

    def chains_asked(self, key: PoolKey, now: float) -> None:
        """A probe is on its way; one whose connection is closed under it (a machine that slept)
        brings nothing, and is sent again."""
        belief = self.of(key)
        belief.chains, belief.chains_probe_at = Chains.PROBING, now + PROBE_AGAIN_S

    def chains_probed(self, key: PoolKey, looks_up_ids: bool | None, now: float) -> Chains:
        """What a probe told; None: nothing in time. Returns what is believed now."""
        belief = self.of(key)
        if looks_up_ids is None:
            belief.chains, again_s = Chains.UNPROVEN, PROBE_AGAIN_S
        elif looks_up_ids:
            belief.chains, again_s = Chains.PROVEN, 0.0
        else:
            belief.chains, again_s = Chains.REFUTED, REFUTED_FOR_S
        belief.chains_probe_at = now + again_s
        return belief.chains

    def context_lost(self) -> None:
        """The tripwire: deltas are off for this upstream, whatever was believed (contract §3)."""
        self._has_lost_context = True

    def warm_refused(self, key: PoolKey, now: float) -> None:
        """A parent that had to be warm was not found; twice in a row says that the upstream looks
        ids up and forgets all the same. Where chains were known beforehand they stay so."""
        belief = self.of(key)
        belief.warm_refusals += 1
        if belief.warm_refusals >= WARM_REFUSALS and self._chains is Chains.UNPROVEN:
            belief.warm_refusals = 0
            self.chains_probed(key, False, now)

    def warm_accepted(self, key: PoolKey) -> None:
        """A warm parent was found."""
        self.of(key).warm_refusals = 0

    def stored_refused(self, key: PoolKey, now: float) -> None:
        """A stored chain was refused; twice in a row says zero retention (contract §5.9)."""
        belief = self.of(key)
        belief.stored_refusals += 1
        if belief.stored_refusals >= STORED_REFUSALS:
            belief.stored_refusals = 0
            belief.stored_off_until = now + STORED_OFF_S

    def stored_accepted(self, key: PoolKey) -> None:
        """A stored chain was found."""
        self.of(key).stored_refusals = 0

    # ── How long do turns take? ──────────────────────────────────────────────────────────────

    def longest_turn_s(self, key: PoolKey, session: SessionName) -> float:
        """The longest turn of a session so far, in seconds."""
        return self._longest.get((key, session)) or 0.0

    def turn_took(self, key: PoolKey, session: SessionName, seconds: float) -> None:
        """A turn of this session has ended."""
        belief = self.of(key)
        belief.longest_turn_s = max(belief.longest_turn_s, seconds)
        if seconds > self.longest_turn_s(key, session):
            self._longest[key, session] = seconds

    def shown(self) -> Mapping[PoolKey, Belief]:
        """For the console."""
        return dict(self._by_key.items())


def _pause_s(failures: int) -> float:
    if failures < BREAKER_FAILURES:
        return PAUSE_S
    return min(BREAKER_S * 2.0 ** (failures - BREAKER_FAILURES), BREAKER_MAX_S)
