"""Names of things, each its own type so that they cannot be mixed up."""

from __future__ import annotations

from typing import NewType

TurnId = NewType("TurnId", str)  # "t" + 12 hex, told to the client in x-wsproxy-turn
ConnectionId = NewType("ConnectionId", int)  # counts from 1 in one process
LaneName = NewType("LaneName", str)  # "l01" … "l32"; "" is the default lane (no stream_id)
PoolKey = NewType("PoolKey", bytes)  # HMAC-SHA256 over the identity, 32 bytes
SessionName = NewType("SessionName", bytes)  # keyed digest of a session hint, 16 bytes
Digest = NewType("Digest", bytes)  # SHA-256 cut to 16 bytes
