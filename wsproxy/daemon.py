"""The composition root: settings in, a running proxy out. start → ready → drain → stopped."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from wsproxy.config import (
    Settings,
    read_token,
    split_address,
    trace_folder,
)
from wsproxy.core.accounts import Tracer
from wsproxy.core.commands import Note
from wsproxy.core.conversation.fields import FieldReader
from wsproxy.core.conversation.history import History
from wsproxy.core.conversation.identity import HeaderClasses, Identities, Patterns
from wsproxy.core.multiplex.beliefs import Chains
from wsproxy.core.multiplex.connection import ConnectionLimits, Lanes
from wsproxy.core.multiplex.pool import PoolLimits
from wsproxy.core.multiplex.readers import ReaderLimits
from wsproxy.core.multiplex.relay import TurnLimits
from wsproxy.core.multiplex.snapshot import snapshot
from wsproxy.core.multiplexer import Multiplexer, Options
from wsproxy.downstream import app as downstream
from wsproxy.downstream.coding import BodyLimits
from wsproxy.downstream.guard import Guard
from wsproxy.downstream.listening import Address
from wsproxy.downstream.models import ModelCache, ModelCounters
from wsproxy.downstream.ops import Ops
from wsproxy.downstream.room import Room
from wsproxy.downstream.server import ConnectionLimits as DownstreamLimits
from wsproxy.downstream.turns import Turns
from wsproxy.driver import Driver, DriverOptions
from wsproxy.logs import get_logger
from wsproxy.metrics.exposed import Numbers
from wsproxy.metrics.report import ModelAnswers, Remembered, Report, Saved
from wsproxy.metrics.tally import Tally
from wsproxy.reading import ReadingLimits
from wsproxy.trace.folder import Limits
from wsproxy.trace.recorder import Recorder
from wsproxy.trace.spans import Spans
from wsproxy.upstream.dialer import Dialer
from wsproxy.upstream.proxy import choose_proxy
from wsproxy.upstream.rest import HttpsClient
from wsproxy.upstream.tls import client_context

#: The one upstream whose habits are known (contract §3); all others are asked.
KNOWN_HOST: Final = "api.openai.com"
#: Where the kernel tells no dead path (behind a proxy it sees only the way there), silence does.
DEAD_AFTER_SILENCE_S: Final = 60.0
#: How long those who were cut may take to read what they were told.
LAST_WORDS_S: Final = 1.0
#: The core's own deadline lies behind ours, which counts what is cut.
_CORE_DEADLINE_LAG_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Upstream:
    """The upstream URL, taken apart."""

    origin: str
    base: str
    websocket_url: str
    is_known: bool

    @classmethod
    def of(cls, url: str) -> Upstream:
        """`url` as the settings hold it: http or https, no trailing slash."""
        parts = urlsplit(url)
        websocket = {"http": "ws", "https": "wss"}[parts.scheme]
        base = parts.path.rstrip("/")
        return cls(
            origin=f"{parts.scheme}://{parts.netloc}",
            base=base,
            websocket_url=f"{websocket}://{parts.netloc}{base}/responses",
            is_known=parts.hostname == KNOWN_HOST,
        )


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
    ) -> None:
        self.settings = settings
        self.room = Room(settings.request_bodies_total_bytes)
        self.driver = driver
        self.rest = rest
        self.recorder = recorder
        self.spans = spans
        self.front: downstream.Front | None = None
        self.is_draining = False
        self.tally = tally
        self._started_at = time.monotonic()

    @property
    def base_url(self) -> str:
        """What an agent is pointed at."""
        assert self.front is not None
        base = Upstream.of(self.settings.upstream).base
        return f"http://{self.front.addresses[0]}{base}"

    @property
    def accepted_count(self) -> int:
        """Connections that agents have opened so far."""
        return self.front.accepted_count if self.front is not None else 0

    def report(self, core: Multiplexer, models: ModelCounters) -> Report:
        """What `/_wsproxy/pools` and `/_wsproxy/metrics` show of this moment."""
        now = time.monotonic()
        return Report(
            version=version("wsproxy"),
            pid=os.getpid(),
            up_s=round(time.monotonic() - self._started_at, 3),
            upstream=self.settings.upstream,
            addresses=[str(one) for one in self.front.addresses] if self.front else [],
            is_draining=self.is_draining,
            downstream_connections=self.front.connection_count if self.front else 0,
            downstream_accepted=self.accepted_count,
            downstream_refused=self.front.refused_count if self.front else 0,
            request_body_bytes=self.room.held_bytes,
            pool=snapshot(core.pool.connections, core.turns.values(), core.beliefs, now),
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
    remembered: dict[str, Any] = {
        "max_conversations": settings.history_conversations,
        "max_bytes": settings.history_bytes,
        "max_age_s": settings.history_age_s,
        "continues_without_reasoning": settings.omitted_reasoning == "continue",
    }
    history = History(**remembered)
    dialer = Dialer(
        dial_timeout_s=settings.dial_timeout_s,
        is_deflate_offered=settings.compression == "deflate",
        ca_file=settings.upstream_ca_file,
        proxy=settings.upstream_proxy,
        max_message_bytes=settings.max_message_bytes,
        user_timeout_s=settings.tcp_user_timeout_s,
    )
    rest = HttpsClient(
        upstream.origin,
        proxy=choose_proxy(upstream.origin, settings.upstream_proxy, os.environ),
        tls=client_context(settings.upstream_ca_file),
    )
    models = ModelCache(
        rest=rest,
        pool_key=lambda headers: identities.read(upstream.websocket_url, headers).pool_key,
        fresh_s=settings.models_fresh_s,
        stale_if_error_s=settings.models_stale_s,
        max_entry_bytes=settings.models_max_bytes,
    )
    multiplexer = Multiplexer(core_options(settings, upstream), history)
    tally = Tally()
    numbers = Numbers(lambda: daemon.report(multiplexer, models.counters))
    tracers: list[Tracer] = [tally, numbers.turns]
    recorder = recorder_of(settings) if settings.trace == "on" else None
    if recorder is not None:
        tracers.append(recorder)
    spans = spans_of(settings) if settings.otlp_endpoint else None
    if spans is not None:
        tracers.append(spans)
    driver = Driver(
        driver_options(settings, upstream),
        multiplexer,
        identities,
        FieldReader(settings.changeable_fields),
        dialer,
        _log_note,
        models.invalidate,
        tracers=tracers,
        doors=recorder.doors(multiplexer, remembered) if recorder is not None else None,
        clock=time.monotonic,
    )
    daemon = Daemon(settings, rest, driver, tally, recorder, spans)
    limits = BodyLimits(max_bytes=settings.max_body_bytes)
    turns = Turns(driver, rest, limits, daemon.room)
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


def recorder_of(settings: Settings) -> Recorder:
    """What `wsproxy trace` reads; a disk that refuses is told once and stops no turn."""
    folder = trace_folder(settings)
    return Recorder(
        folder,
        lambda event, fields: get_logger().warning(event, path=str(folder), **fields),
        upstream=settings.upstream,
        has_bodies=settings.trace_bodies,
        limits=Limits(min_free_bytes=settings.trace_min_free_bytes),
    )


def spans_of(settings: Settings) -> Spans:
    """What a collector is told; one that refuses is named once and stops no turn."""
    address = urlsplit(settings.otlp_endpoint).netloc
    return Spans(
        settings.otlp_endpoint,
        lambda event, fields: get_logger().warning(event, address=address, **fields),
        upstream=settings.upstream,
    )


def header_classes(settings: Settings) -> HeaderClasses:
    """The operator's lists of header names."""
    return HeaderClasses(
        identity=Patterns(settings.identity_headers),
        session=settings.session_headers,
        per_request=Patterns(settings.per_request_headers),
        hop_by_hop=Patterns(settings.hop_by_hop_headers),
    )


def core_options(settings: Settings, upstream: Upstream) -> Options:
    """What the core needs of the settings."""
    lanes = {"on": Lanes.ON, "off": Lanes.OFF}.get(settings.lanes)
    chains = {"on": Chains.PROVEN, "off": Chains.REFUTED}.get(settings.continuation)
    return Options(
        lanes=lanes or (Lanes.ON if upstream.is_known else Lanes.UNKNOWN),
        chains=chains or (Chains.PROVEN if upstream.is_known else Chains.UNPROVEN),
        chains_by_id=settings.stored_chains == "chain",
        connection=ConnectionLimits(
            max_in_flight=settings.max_in_flight_per_connection,
            max_lanes=settings.max_lanes_per_connection,
            max_age_s=settings.connection_max_age_s,
            last_turn_end_s=settings.connection_last_turn_end_s,
            probe_after_s=settings.probe_after_s,
        ),
        pool=PoolLimits(
            max_per_key_with_lanes=settings.max_connections_per_key_with_lanes,
            max_per_key_without_lanes=settings.max_connections_per_key_without_lanes,
            max_total=settings.max_connections,
            idle_s=settings.connection_idle_s,
            spare_idle_s=settings.connection_spare_idle_s,
            max_warm_idle=settings.max_warm_idle_connections,
            key_idle_s=settings.key_idle_s,
        ),
        turn=TurnLimits(max_events=settings.max_turn_events, max_bytes=settings.max_turn_bytes),
        max_turns=settings.max_turns,
        max_frame_bytes=settings.max_frame_bytes,
        queue_wait_s=settings.queue_wait_s,
        handshake_wait_s=settings.handshake_wait_s,
        discovery_wait_s=settings.lane_discovery_wait_s,
        probe_wait_s=settings.probe_wait_s,
        first_event_timeout_s=settings.first_event_timeout_s,
        event_idle_timeout_s=settings.event_idle_timeout_s,
        ping_busy_s=settings.ping_busy_s,
        ping_idle_s=settings.ping_idle_s,
        dead_after_silence_s=0.0 if tells_dead_paths(settings, upstream) else DEAD_AFTER_SILENCE_S,
        no_websocket_key_s=settings.no_websocket_key_s,
        no_websocket_url_s=settings.no_websocket_url_s,
    )


def tells_dead_paths(settings: Settings, upstream: Upstream) -> bool:
    """Whether the kernel sees a dead path to upstream by itself (faults.md §7)."""
    proxy = choose_proxy(upstream.origin, settings.upstream_proxy, os.environ)
    return proxy is None and hasattr(socket, "TCP_USER_TIMEOUT")


def driver_options(settings: Settings, upstream: Upstream) -> DriverOptions:
    """What the driver needs of the settings."""
    return DriverOptions(
        websocket_url=upstream.websocket_url,
        is_websocket_used=settings.transport != "http",
        reading=ReadingLimits(
            max_json_bytes=settings.max_turn_json_bytes,
            max_json_depth=settings.max_json_depth,
            max_items=settings.max_input_items,
        ),
        age_jitter_s=settings.connection_age_jitter_s,
        response_headers=settings.response_headers,
        forbids_ambiguous_retry=settings.ambiguous_retry == "forbid",
        keeps_bodies=settings.trace == "on" and settings.trace_bodies,
        readers=ReaderLimits(
            per_turn_bytes=settings.relay_buffer_bytes,
            stall_s=settings.relay_stall_s,
            total_bytes=settings.relay_buffers_total_bytes,
        ),
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
        limits=DownstreamLimits(
            max_connections=settings.max_downstream_connections,
            head_timeout_s=settings.head_timeout_s,
            keepalive_timeout_s=settings.keepalive_s,
        ),
        is_remote_allowed=settings.allow_remote,
        report=lambda event, fields: get_logger().warning(event, **fields),
    )


def guard_of(settings: Settings) -> Guard:
    """Who may come in. Raises `SettingsError` where the token cannot be read."""
    token = read_token(settings.token_file).reveal() if settings.token_file else None
    return Guard(
        allowed_hosts=frozenset(settings.allowed_hosts),
        allowed_origins=frozenset(settings.allowed_origins),
        token=token,
    )


def addresses(settings: Settings) -> list[Address]:
    """Where to listen; only the default's second address, IPv6, may be missing."""
    pairs = [split_address(text) for text in settings.listen]
    return [Address(host, port, is_optional=host == "::1") for host, port in pairs]


# ── Around it ────────────────────────────────────────────────────────────────────────────────


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop where there is one: measured in docs/decisions/event-loop.md."""
    with suppress(ImportError):
        import uvloop

        return uvloop.new_event_loop
    return None


def _log_note(note: Note) -> None:
    fields = {
        "turn": note.turn,
        "connection": note.connection,
        "fault": note.fault,
        "detail": note.detail or None,
    }
    log = get_logger()
    tell = log.warning if note.is_warning else log.info
    tell(note.event, **{name: value for name, value in fields.items() if value is not None})
