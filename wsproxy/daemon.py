"""The composition root: settings in, a running proxy out. start → ready → drain → stopped."""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from typing import Final
from urllib.parse import urlsplit

import msgspec

from wsproxy.config import Settings, command_for, shown_url, trace_folder
from wsproxy.core.commands import Note
from wsproxy.core.conversation.fields import FieldReader
from wsproxy.core.conversation.history import History
from wsproxy.core.conversation.identity import Identities
from wsproxy.core.multiplex.snapshot import snapshot
from wsproxy.core.multiplexer import Multiplexer
from wsproxy.downstream import app as downstream
from wsproxy.downstream.coding import BodyLimits
from wsproxy.downstream.models import ModelCache, ModelCounters
from wsproxy.downstream.ops import Ops
from wsproxy.downstream.room import Room
from wsproxy.downstream.turns import Turns
from wsproxy.driver import Driver
from wsproxy.logs import get_logger
from wsproxy.metrics.exposed import Numbers
from wsproxy.metrics.report import ModelAnswers, Remembered, Report, Saved
from wsproxy.metrics.tally import Tally
from wsproxy.options import (
    Upstream,
    addresses,
    core_options,
    downstream_limits,
    driver_options,
    guard_of,
    header_classes,
    history_options,
)
from wsproxy.trace.folder import Limits
from wsproxy.trace.journal import FolderFile, Journal
from wsproxy.trace.keyed import open_keyed
from wsproxy.trace.recorder import Recorder
from wsproxy.trace.spans import Spans
from wsproxy.upstream.dialer import Dialer
from wsproxy.upstream.proxy import choose_proxy
from wsproxy.upstream.rest import HttpsClient
from wsproxy.upstream.tls import client_context

#: How long those who were cut may take to read what they were told.
LAST_WORDS_S: Final = 1.0
#: The core's own deadline lies behind ours, which counts what is cut.
_CORE_DEADLINE_LAG_S: Final = 60.0


class Daemon:
    """One running proxy. Build it with `running` or `serve`."""

    def __init__(
        self,
        settings: Settings,
        rest: HttpsClient,
        driver: Driver,
        tally: Tally,
        recorder: Recorder | None = None,
        spans: Spans | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`clock` is the driver's."""
        self.settings = settings
        self.room = Room(settings.request_bodies_total_bytes)
        self.driver = driver
        self.rest = rest
        self.recorder = recorder
        self.spans = spans
        self.front: downstream.Front | None = None
        self.is_draining = False
        self.tally = tally
        self._clock = clock
        self._started_at = clock()

    @property
    def base_url(self) -> str:
        """Where programs of this machine point an agent; people are told `greeting.base_url`."""
        assert self.front is not None
        base = Upstream.of(self.settings.upstream).base
        return f"http://{self.front.addresses[0]}{base}"

    @property
    def accepted_count(self) -> int:
        """Connections that agents have opened so far."""
        return self.front.accepted_count if self.front is not None else 0

    def report(self, core: Multiplexer, models: ModelCounters) -> Report:
        """What `/_wsproxy/pools` and `/_wsproxy/metrics` show of this moment."""
        now = self._clock()
        names = self.recorder.names if self.recorder is not None else None
        naming = names.short if names is not None else None  # so that traces tell the same ones
        return Report(
            version=version("wsproxy"),
            pid=os.getpid(),
            up_s=round(now - self._started_at, 3),
            upstream=shown_url(self.settings.upstream),
            addresses=[str(one) for one in self.front.addresses] if self.front else [],
            is_draining=self.is_draining,
            downstream_connections=self.front.connection_count if self.front else 0,
            downstream_accepted=self.accepted_count,
            downstream_refused=self.front.refused_count if self.front else 0,
            request_body_bytes=self.room.held_bytes,
            pool=snapshot(core.pool.connections, core.turns.values(), core.beliefs, now, naming),
            models=ModelAnswers(**asdict(models)),
            history=Remembered(len(core.history), core.history.size_bytes),
            saved=Saved(**asdict(self.tally)),
            trace_dropped=self.recorder.journal.dropped if self.recorder is not None else 0,
            spans_dropped=self.spans.dropped if self.spans is not None else 0,
        )

    async def drain(self, timeout_s: float) -> int:
        """Finish what can finish; how many answers had to be cut.

        An answer is finished when its last byte has left and its connection is gone, whichever
        way it came: a turn, one that went over HTTPS, or a request passed through.
        """
        assert self.front is not None
        self.is_draining = True
        self.driver.drain(timeout_s + _CORE_DEADLINE_LAG_S)
        self.front.stop_listening()
        if await self._has_emptied(timeout_s):
            return 0
        cut = self.front.connection_count
        self.driver.drain(0.0)
        await self._has_emptied(LAST_WORDS_S)
        return cut

    async def _has_emptied(self, timeout_s: float) -> bool:
        assert self.front is not None
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self.front.emptied()
                return True
        return False

    async def close(self) -> None:
        """Close every socket; see that the journal is on the disk, and spans at their collector."""
        self.driver.close()
        if self.front is not None:
            await self.front.close(patience_s=1.0)
        await self.rest.close()
        ending = [each.close() for each in (self.recorder, self.spans) if each is not None]
        await asyncio.gather(*ending)


def compose(settings: Settings) -> tuple[Daemon, downstream.App]:
    """Wire everything together; nothing is opened yet. Needs a running event loop."""
    upstream = Upstream.of(settings.upstream)
    identities = Identities(header_classes(settings), secrets.token_bytes(32))
    rest = https_client_of(settings, upstream)
    models = ModelCache(
        rest=rest,
        pool_key=lambda headers: identities.read(upstream.websocket_url, headers).pool_key,
        fresh_s=settings.models_fresh_s,
        stale_if_error_s=settings.models_stale_s,
        max_entry_bytes=settings.models_max_bytes,
    )
    remembered = history_options(settings)
    multiplexer = Multiplexer(core_options(settings, upstream), History(**remembered))
    tally = Tally()
    numbers = Numbers(lambda: daemon.report(multiplexer, models.counters))
    recorder = recorder_of(settings) if settings.trace == "on" else None
    spans = spans_of(settings) if settings.otlp_endpoint else None
    driver = Driver(
        driver_options(settings, upstream),
        multiplexer,
        identities,
        FieldReader(settings.changeable_fields),
        dialer_of(settings),
        log_note,
        models.invalidate,
        tracers=[each for each in (tally, numbers.turns, recorder, spans) if each is not None],
        doors=recorder.doors(multiplexer, remembered) if recorder is not None else None,
        clock=time.monotonic,
    )
    daemon = Daemon(settings, rest, driver, tally, recorder, spans)
    turns = Turns(driver, rest, BodyLimits(max_bytes=settings.max_body_bytes), daemon.room)
    app = downstream.App(
        base=upstream.base,
        turn=turns.handle,
        rest=rest,
        models=models,
        ops=Ops(
            is_ready=lambda: not daemon.is_draining,
            pools=lambda: msgspec.to_builtins(daemon.report(multiplexer, models.counters)),
            metrics=numbers.text,
        ),
    )
    return daemon, app


def dialer_of(settings: Settings) -> Dialer:
    """What opens WebSockets."""
    return Dialer(
        dial_timeout_s=settings.dial_timeout_s,
        is_deflate_offered=settings.compression == "deflate",
        ca_file=settings.upstream_ca_file,
        proxy=settings.upstream_proxy,
        max_message_bytes=settings.max_message_bytes,
        user_timeout_s=settings.tcp_user_timeout_s,
    )


def https_client_of(settings: Settings, upstream: Upstream) -> HttpsClient:
    """The other way to upstream."""
    return HttpsClient(
        upstream.origin,
        proxy=choose_proxy(upstream.origin, settings.upstream_proxy, os.environ),
        tls=client_context(settings.upstream_ca_file),
        hint=f"`{command_for('doctor', settings.upstream)}` tells why",
    )


def recorder_of(settings: Settings) -> Recorder:
    """What `wsproxy trace` reads; a disk that refuses is told once and stops no turn."""
    folder = trace_folder(settings)
    journal = Journal(
        FolderFile(folder, Limits(min_free_bytes=settings.trace_min_free_bytes)),
        lambda event, fields: get_logger().warning(event, path=str(folder), **fields),
    )
    return Recorder(
        journal,
        partial(open_keyed, folder),
        upstream=shown_url(settings.upstream),
        has_bodies=settings.trace_bodies,
    )


def spans_of(settings: Settings) -> Spans:
    """What a collector is told; one that refuses is named once and stops no turn."""
    address = urlsplit(settings.otlp_endpoint).netloc
    return Spans(
        settings.otlp_endpoint,
        lambda event, fields: get_logger().warning(event, address=address, **fields),
        upstream=shown_url(settings.upstream),
    )


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Daemon]:
    """A daemon inside this event loop, closed at the end (demo, tests). Raises `ListenError`."""
    daemon, app = compose(settings)
    try:
        await open_daemon(daemon, app)
        yield daemon
    finally:
        await daemon.close()


async def open_daemon(daemon: Daemon, app: downstream.App) -> None:
    """Open the ports. Raises `ListenError`."""
    settings = daemon.settings
    for each in (daemon.recorder, daemon.spans):
        if each is not None:
            each.start()
    daemon.front = await downstream.start(
        app,
        listen=addresses(settings),
        guard=guard_of(settings),
        limits=downstream_limits(settings),
        is_remote_allowed=settings.allow_remote,
        report=lambda event, fields: get_logger().warning(event, **fields),
    )


# ── Around it ────────────────────────────────────────────────────────────────────────────────


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop where there is one: measured in docs/decisions/event-loop.md."""
    with suppress(ImportError):
        import uvloop

        return uvloop.new_event_loop
    return None


def log_note(note: Note) -> None:
    """A note of the core's as a line of the log."""
    fields = {
        "turn": note.turn,
        "connection": note.connection,
        "fault": note.fault,
        "detail": note.detail or None,
    }
    log = get_logger()
    tell = log.warning if note.is_warning else log.info
    tell(note.event, **{name: value for name, value in fields.items() if value is not None})
