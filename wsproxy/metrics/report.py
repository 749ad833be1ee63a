"""The document at `/_wsproxy/pools`: written by the daemon, read by `wsproxy pools` and `top`.

Rules of this file
------------------
1. No secrets, no text of users: keys and sessions are 8 hex of keyed digests.
2. A member may be added; one that an older reader does not know is skipped.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from wsproxy.core.multiplex.snapshot import Snapshot


class ModelAnswers(msgspec.Struct, frozen=True):
    """How requests for the model list were answered (contract §8)."""

    hits: int = 0
    misses: int = 0
    revalidations: int = 0
    stale_served: int = 0


class Remembered(msgspec.Struct, frozen=True):
    """What is remembered of conversations."""

    conversations: int = 0
    bytes: int = 0


class Saved(msgspec.Struct, frozen=True):
    """Totals since the start; see `metrics.tally.Tally`."""

    turns: int = 0
    continued: int = 0
    over_https: int = 0
    refused: int = 0
    failed: int = 0
    abandoned: int = 0
    bytes_http: int = 0
    bytes_up: int = 0
    handshakes: int = 0


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """One daemon at one moment. Times are seconds.

    `downstream_connections` counts the one that asks, too; `downstream_accepted` those so far,
    `downstream_refused` those of them that were too many. `request_body_bytes`: held now.
    """

    version: str
    pid: int
    up_s: float
    upstream: str
    is_draining: bool
    downstream_connections: int
    downstream_accepted: int
    pool: Snapshot
    models: ModelAnswers
    history: Remembered
    saved: Saved
    addresses: Sequence[str] = ()
    downstream_refused: int = 0
    request_body_bytes: int = 0
    trace_dropped: int = 0
    spans_dropped: int = 0


def decode(document: bytes) -> Report:
    """Raises `msgspec.ValidationError` or `msgspec.DecodeError`, both `ValueError`s."""
    return msgspec.json.decode(document, type=Report)
