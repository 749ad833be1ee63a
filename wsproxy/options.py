"""The settings, as the parts of a proxy want them told. Nothing is opened, nothing is kept."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from wsproxy.config import Settings, read_token, split_address
from wsproxy.core.conversation.identity import HeaderClasses, Patterns
from wsproxy.core.multiplex.beliefs import Chains
from wsproxy.core.multiplex.connection import ConnectionLimits, Lanes
from wsproxy.core.multiplex.pool import PoolLimits
from wsproxy.core.multiplex.readers import ReaderLimits
from wsproxy.core.multiplex.relay import TurnLimits
from wsproxy.core.multiplexer import Options
from wsproxy.downstream.guard import Guard
from wsproxy.downstream.listening import Address
from wsproxy.downstream.server import ConnectionLimits as DownstreamLimits
from wsproxy.driver import DriverOptions
from wsproxy.reading import ReadingLimits
from wsproxy.upstream.proxy import choose_proxy

#: The one upstream whose habits are known (contract §3); all others are asked.
KNOWN_HOST: Final = "api.openai.com"
#: Where the kernel tells no dead path (behind a proxy it sees only the way there), silence does.
DEAD_AFTER_SILENCE_S: Final = 60.0


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


def header_classes(settings: Settings) -> HeaderClasses:
    """The operator's lists of header names."""
    return HeaderClasses(
        identity=Patterns(settings.identity_headers),
        session=settings.session_headers,
        per_request=Patterns(settings.per_request_headers),
        hop_by_hop=Patterns(settings.hop_by_hop_headers),
    )


def history_options(settings: Settings) -> dict[str, Any]:
    """What `History` is built with; a replay builds its own with the same."""
    return {
        "max_conversations": settings.history_conversations,
        "max_bytes": settings.history_bytes,
        "max_age_s": settings.history_age_s,
        "continues_without_reasoning": settings.omitted_reasoning == "continue",
    }


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


def downstream_limits(settings: Settings) -> DownstreamLimits:
    """What the listening side needs of the settings."""
    return DownstreamLimits(
        max_connections=settings.max_downstream_connections,
        head_timeout_s=settings.head_timeout_s,
        keepalive_timeout_s=settings.keepalive_s,
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
