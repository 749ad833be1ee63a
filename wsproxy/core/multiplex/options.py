"""What the operator chose, as far as the core is concerned (docs/settings.md)."""

from __future__ import annotations

from dataclasses import dataclass, field

from wsproxy.core.multiplex.beliefs import Chains
from wsproxy.core.multiplex.connection import ConnectionLimits, Lanes
from wsproxy.core.multiplex.pool import PoolLimits
from wsproxy.core.multiplex.relay import TurnLimits


@dataclass(frozen=True, slots=True)
class Options:
    """Lanes.UNKNOWN and Chains.UNPROVEN stand for *auto*: found out, and found out again."""

    lanes: Lanes = Lanes.UNKNOWN
    chains: Chains = Chains.UNPROVEN
    chains_by_id: bool = True
    connection: ConnectionLimits = field(default_factory=ConnectionLimits)
    pool: PoolLimits = field(default_factory=PoolLimits)
    turn: TurnLimits = field(default_factory=TurnLimits)
    max_turns: int = 256
    max_frame_bytes: int = 16_252_928
    queue_wait_s: float = 0.25
    handshake_wait_s: float = 3.0
    discovery_wait_s: float = 2.0
    probe_wait_s: float = 2.0
    chain_probe_wait_s: float = 10.0
    first_event_timeout_s: float = 600.0
    event_idle_timeout_s: float = 900.0
    no_websocket_key_s: float = 60.0
    no_websocket_url_s: float = 600.0
    ping_busy_s: float = 10.0
    ping_idle_s: float = 20.0
    #: A connection that had answered pings and then says nothing at all for this long is dead.
    #: 0: the kernel tells (TCP_USER_TIMEOUT); a thinking model must not be judged by its pongs.
    dead_after_silence_s: float = 0.0

    @property
    def queued_s(self) -> float:
        """The longest that a turn may be in our queue, whatever it waits for one by one."""
        return 2 * self.handshake_wait_s + self.discovery_wait_s + 3 * self.probe_wait_s
