"""Spans of finished turns to a collector, while the daemon runs (setting `otlp_endpoint`).

Rules of this file
------------------
1. A span is what `wsproxy trace export --format otlp` makes of the turn: figures and ids, no text.
   OTLP/HTTP takes JSON, so nothing beyond the standard library sends it.
2. Queue, bounds, thread and rest after a failure are the journal's: `put` never blocks a turn, what
   does not fit is dropped and counted, a collector that refuses costs one log line.
3. Names of identities and sessions are digests under a key of this process, never kept.
"""

from __future__ import annotations

import asyncio
import errno
import secrets
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Final

from wsproxy.core.accounts import ConnectionChange, TurnAccount
from wsproxy.trace.export.otlp import document, send, span
from wsproxy.trace.journal import Journal, Report
from wsproxy.trace.keyed import KEY_BYTES, Keyed
from wsproxy.trace.reader import TraceError
from wsproxy.trace.record import Content, Record, TurnRecord, decode
from wsproxy.trace.recorder import turn_record, wall_clock

#: One request a second is enough for whoever looks at a dashboard.
GATHER_S: Final = 1.0
#: How long the last spans may take at the end; then they are lost.
FLUSH_S: Final = 5.0


class Spans:
    """Implements `core.accounts.Tracer`: each finished turn is one entry in the queue."""

    def __init__(
        self,
        url: str,
        report: Report,
        *,
        upstream: str = "",
        gather_s: float = GATHER_S,
        flush_s: float = FLUSH_S,
    ) -> None:
        """`url`: the collector's traces endpoint. Call `start`, and `close` at the end."""
        self._flush_s = flush_s
        self._keyed = Keyed(secrets.token_bytes(KEY_BYTES))
        self._run = secrets.token_hex(4)
        self._queue = Journal(Collector(url, upstream), report, name="spans", gather_s=gather_s)

    def __repr__(self) -> str:
        return f"<Spans {self._queue.written} sent, {self._queue.dropped} dropped>"

    def start(self) -> None:
        """Begin to send."""
        self._queue.start()

    async def close(self) -> None:
        """Send what is queued, for `flush_s` at most."""
        await asyncio.get_running_loop().run_in_executor(None, self._queue.close, self._flush_s)

    @property
    def dropped(self) -> int:
        """Spans lost since the start: the queue was full, or the collector refused."""
        return self._queue.dropped

    # ── core.accounts.Tracer ─────────────────────────────────────────────────────────────────

    def turn_ended(self, account: TurnAccount) -> None:
        """See `core.accounts.Tracer`."""
        kept = replace(account, request=None, headers=(), outputs=())  # others may keep texts
        self._queue.put(partial(self._turn, kept, wall_clock(kept)), len(kept.terminal))

    def connection_changed(self, change: ConnectionChange) -> None:
        """See `core.accounts.Tracer`; a span is a turn."""

    # ── The sender's thread ──────────────────────────────────────────────────────────────────

    def _turn(self, account: TurnAccount, at: float) -> Sequence[Record]:
        return [turn_record(account, at, self._keyed, self._run)]


class Collector:
    """A `journal.File` that posts turns where they are collected."""

    def __init__(self, url: str, upstream: str) -> None:
        self._url = url
        self._upstream = upstream

    def open(self) -> None:
        """See `File`. Each request has a connection of its own."""

    def append(self, lines: Sequence[bytes], contents: Sequence[Content]) -> None:
        """See `File`."""
        records = map(decode, lines)
        spans = [span(turn, self._upstream) for turn in records if isinstance(turn, TurnRecord)]
        if not spans:
            return
        try:
            send(document(spans), self._url)
        except TraceError as error:
            raise ConnectionError(errno.EIO, error.problem) from None

    def sync(self) -> None:
        """See `File`. What was posted was taken."""

    def close(self) -> None:
        """See `File`."""
