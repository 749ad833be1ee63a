"""The composition root: settings in, a running proxy out. start → ready → drain → stopped."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from wsproxy.config import Loaded, Settings, SettingsError, read_token, split_address
from wsproxy.core.commands import Note
from wsproxy.core.conversation.fields import FieldReader
from wsproxy.core.conversation.history import History
from wsproxy.core.conversation.identity import HeaderClasses, Identities, Patterns
from wsproxy.core.multiplex.beliefs import Chains
from wsproxy.core.multiplex.connection import ConnectionLimits, Lanes
from wsproxy.core.multiplex.pool import PoolLimits
from wsproxy.core.multiplexer import Multiplexer, Options
from wsproxy.downstream import app as downstream
from wsproxy.downstream.coding import BodyLimits
from wsproxy.downstream.guard import Guard
from wsproxy.downstream.listening import Address, ListenError
from wsproxy.downstream.models import ModelCache
from wsproxy.downstream.ops import Ops
from wsproxy.downstream.server import ConnectionLimits as DownstreamLimits
from wsproxy.downstream.turns import Turns
from wsproxy.driver import Driver, DriverOptions
from wsproxy.logs import configure, get_logger
from wsproxy.upstream.dialer import Dialer
from wsproxy.upstream.proxy import choose_proxy
from wsproxy.upstream.rest import HttpsClient
from wsproxy.upstream.tls import client_context

#: The one upstream whose habits are known (contract §3); all others are asked.
KNOWN_HOST: Final = "api.openai.com"
#: How often a draining daemon looks whether its turns have ended.
_DRAIN_LOOK_S: Final = 0.05
#: Turns were cut (contract §9).
EXIT_CUT: Final = 75


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

    def __init__(self, settings: Settings, rest: HttpsClient, driver: Driver) -> None:
        self.settings = settings
        self.driver = driver
        self.rest = rest
        self.front: downstream.Front | None = None
        self.is_draining = False

    @property
    def base_url(self) -> str:
        """What an agent is pointed at."""
        assert self.front is not None
        base = Upstream.of(self.settings.upstream).base
        return f"http://{self.front.addresses[0]}{base}"

    async def drain(self, timeout_s: float) -> int:
        """Finish what can finish; how many turns had to be cut."""
        assert self.front is not None
        self.is_draining = True
        self.front.stop_listening()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while self.driver.running_count and loop.time() < deadline:
            await asyncio.sleep(_DRAIN_LOOK_S)
        cut = self.driver.running_count
        self.driver.drain(0.0)
        return cut

    async def close(self) -> None:
        """Close every socket."""
        self.driver.close()
        if self.front is not None:
            await self.front.close(patience_s=1.0)
        await self.rest.close()


def compose(settings: Settings) -> tuple[Daemon, downstream.App]:
    """Wire everything together; nothing is opened yet. Needs a running event loop."""
    upstream = Upstream.of(settings.upstream)
    identities = Identities(header_classes(settings), secrets.token_bytes(32))
    history = History(
        max_conversations=settings.history_conversations,
        max_bytes=settings.history_bytes,
        max_age_s=settings.history_age_s,
        continues_without_reasoning=settings.omitted_reasoning == "continue",
    )
    dialer = Dialer(
        dial_timeout_s=settings.dial_timeout_s,
        is_deflate_offered=settings.compression == "deflate",
        ca_file=settings.upstream_ca_file,
        proxy=settings.upstream_proxy,
        max_message_bytes=settings.max_message_bytes,
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
        max_entry_bytes=settings.models_max_bytes,
    )
    multiplexer = Multiplexer(core_options(settings, upstream), history)
    driver = Driver(
        driver_options(settings, upstream),
        multiplexer,
        identities,
        FieldReader(settings.changeable_fields),
        dialer,
        _log_note,
        models.invalidate,
    )
    daemon = Daemon(settings, rest, driver)
    turns = Turns(driver, rest, BodyLimits(max_bytes=settings.max_body_bytes))
    app = downstream.App(
        base=upstream.base,
        turn=turns.handle,
        rest=rest,
        models=models,
        ops=Ops(is_ready=lambda: not daemon.is_draining),
    )
    return daemon, app


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
        max_turns=settings.max_turns,
        max_frame_bytes=settings.max_frame_bytes,
        queue_wait_s=settings.queue_wait_s,
        handshake_wait_s=settings.handshake_wait_s,
        discovery_wait_s=settings.lane_discovery_wait_s,
        probe_wait_s=settings.probe_wait_s,
        first_event_timeout_s=settings.first_event_timeout_s,
        event_idle_timeout_s=settings.event_idle_timeout_s,
        no_websocket_key_s=settings.no_websocket_key_s,
        no_websocket_url_s=settings.no_websocket_url_s,
    )


def driver_options(settings: Settings, upstream: Upstream) -> DriverOptions:
    """What the driver needs of the settings."""
    return DriverOptions(
        websocket_url=upstream.websocket_url,
        is_websocket_used=settings.transport != "http",
        max_json_bytes=settings.max_turn_json_bytes,
        max_json_depth=settings.max_json_depth,
        max_items=settings.max_input_items,
        age_jitter_s=settings.connection_age_jitter_s,
        response_headers=settings.response_headers,
        forbids_ambiguous_retry=settings.ambiguous_retry == "forbid",
    )


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Daemon]:
    """A daemon inside this event loop, closed at the end (demo, tests). Raises `ListenError`."""
    daemon, app = compose(settings)
    try:
        await _open(daemon, app)
        yield daemon
    finally:
        await daemon.close()


async def _open(daemon: Daemon, app: downstream.App) -> None:
    settings = daemon.settings
    token = read_token(settings.token_file).reveal() if settings.token_file else None
    daemon.front = await downstream.start(
        app,
        listen=addresses(settings),
        guard=Guard(
            allowed_hosts=frozenset(settings.allowed_hosts),
            allowed_origins=frozenset(settings.allowed_origins),
            token=token,
        ),
        limits=DownstreamLimits(
            max_connections=settings.max_downstream_connections,
            head_timeout_s=settings.head_timeout_s,
            keepalive_timeout_s=settings.keepalive_s,
        ),
        is_remote_allowed=settings.allow_remote,
        report=lambda event, fields: get_logger().warning(event, **fields),
    )


def addresses(settings: Settings) -> list[Address]:
    """Where to listen; only the default's second address, IPv6, may be missing."""
    pairs = [split_address(text) for text in settings.listen]
    return [Address(host, port, is_optional=host == "::1") for host, port in pairs]


# ── The process ──────────────────────────────────────────────────────────────────────────────


def serve(loaded: Loaded) -> int:
    """Run until SIGTERM or SIGINT; the exit code. Raises `SettingsError`, `ListenError`."""
    settings = loaded.settings
    configure(settings.log_level, settings.log_format)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        try:
            return runner.run(_serve(settings))
        except ListenError as error:
            raise SettingsError(str(error)) from None


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop where there is one: it halves the cost of every event (docs/decisions)."""
    with suppress(ImportError):
        import uvloop

        return uvloop.new_event_loop
    return None


async def _serve(settings: Settings) -> int:
    log = get_logger()
    daemon, app = compose(settings)
    stop: asyncio.Queue[int] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    for caught in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(caught, stop.put_nowait, int(caught))
    try:
        await _open(daemon, app)
        log.info("daemon.ready", base_url=daemon.base_url, upstream=settings.upstream)
        print(f"wsproxy: ready; base URL {daemon.base_url}", flush=True)
        number = await stop.get()
        log.info("daemon.draining", signal=signal.Signals(number).name)
        cut = await _drain(daemon, stop, _patience_s(settings, number))
        log.info("daemon.stopped", count=cut)
        return EXIT_CUT if cut else 0
    finally:
        await daemon.close()


def _patience_s(settings: Settings, number: int) -> float:
    is_ctrl_c = number == signal.SIGINT and sys.stdin is not None and sys.stdin.isatty()
    return settings.drain_timeout_tty_s if is_ctrl_c else settings.drain_timeout_s


async def _drain(daemon: Daemon, stop: asyncio.Queue[int], timeout_s: float) -> int:
    """Drain; a second signal means now."""
    draining = asyncio.ensure_future(daemon.drain(timeout_s))
    again = asyncio.ensure_future(stop.get())
    await asyncio.wait({draining, again}, return_when=asyncio.FIRST_COMPLETED)
    again.cancel()
    if draining.done():
        return draining.result()
    draining.cancel()
    return await daemon.drain(0.0)


def _log_note(note: Note) -> None:
    fields = {
        "turn": note.turn,
        "connection": note.connection,
        "fault": note.fault,
        "detail": note.detail or None,
    }
    get_logger().info(note.event, **{k: v for k, v in fields.items() if v is not None})
