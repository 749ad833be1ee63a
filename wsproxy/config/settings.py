"""Every setting of wsproxy: one line each for name, default, kind, meaning and reason.

This is the only place where a setting is declared. Flags, environment variables, the TOML file,
`config/wsproxy.toml` and `docs/settings.md` all follow from it. The unit is in the name.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final, TypeVar

from wsproxy.config.addresses import Addresses, CollectorUrl, ProxyUrl, UpstreamUrl
from wsproxy.config.kinds import (
    Bytes,
    Choice,
    Count,
    FilePath,
    HeaderNames,
    Kind,
    Seconds,
    Switch,
    Words,
)

T = TypeVar("T")

KIB: Final = 1024
MIB: Final = 1024 * KIB
GIB: Final = 1024 * MIB
MINUTE: Final = 60.0
HOUR: Final = 60 * MINUTE
DAY: Final = 24 * HOUR


@dataclass(frozen=True, slots=True)
class Setting:
    """What is known of one setting besides its value.

    `heading` opens a group in the generated pages; `flag` is the option of `wsproxy serve` that
    sets it, "" where only `--set NAME=VALUE` does.
    """

    name: str
    default: Any
    kind: Kind[Any]
    help: str
    reason: str
    flag: str
    heading: str

    @property
    def variable(self) -> str:
        """Its environment variable."""
        return f"WSPROXY_{self.name.upper()}"


def setting(
    default: T, kind: Kind[Any], help: str, reason: str = "", *, flag: str = "", heading: str = ""
) -> T:
    """Declare one setting as a dataclass field that carries its description."""
    about = {"kind": kind, "help": help, "reason": reason, "flag": flag, "heading": heading}
    return field(default=default, metadata=about)


@dataclass(frozen=True, slots=True)
class Settings:
    """The effective settings of one daemon. Build it with `load`, or by hand in tests."""

    listen: tuple[str, ...] = setting(
        ("127.0.0.1:8787", "[::1]:8787"),
        Addresses(),
        "Addresses that agents connect to. Port 0 takes a free one.",
        "Loopback only; a missing IPv6 is no error while another address can be had.",
        flag="--listen",
        heading="Where it listens and where it goes",
    )
    upstream: str = setting(
        "https://api.openai.com/v1",
        UpstreamUrl(),
        "Base URL of the API; one upstream a daemon.",
        "The local path is the same as the path of this URL.",
        flag="--upstream",
    )
    upstream_proxy: str = setting(
        "env",
        ProxyUrl(),
        'HTTP proxy on the way upstream: "env" obeys HTTPS_PROXY and NO_PROXY, "none" ignores '
        "them, a URL overrides them.",
        "As the rest of the ecosystem does; named in the log at start, since it diverts keys.",
    )
    upstream_ca_file: Path | None = setting(
        None,
        FilePath("a PEM file of certificate authorities"),
        "Certificate authorities to trust instead of the system's.",
        "For companies that inspect TLS. There is no switch that turns verification off.",
    )
    allow_plain_upstream: bool = setting(
        False,
        Switch(),
        "Allow an http:// upstream that is not on this machine.",
        "API keys would cross the network in plain text.",
    )
    transport: str = setting(
        "auto",
        Choice("auto", "http"),
        '"auto" uses the WebSocket where it can be had, "http" never does.',
        flag="--transport",
        heading="What it makes of a turn",
    )
    lanes: str = setting(
        "auto",
        Choice("auto", "on", "off"),
        "Several turns at once on one connection (`stream_id`).",
        "auto: known for api.openai.com, discovered with the first turn elsewhere.",
        flag="--lanes",
    )
    continuation: str = setting(
        "auto",
        Choice("auto", "on", "off"),
        "Send only what is new, with `previous_response_id`.",
        "auto: known for api.openai.com, proven by a probe elsewhere before the first delta.",
        flag="--continuation",
    )
    compression: str = setting(
        "deflate",
        Choice("deflate", "off"),
        "Offer permessage-deflate with context takeover to upstream.",
        "A repeated frame shrinks about 50 × while its previous copy is within 32 KiB.",
        flag="--compression",
    )
    omitted_reasoning: str = setting(
        "full",
        Choice("full", "continue"),
        "What to do when a client leaves out a reasoning item that upstream gave.",
        "full: upstream sees what the client's own call would show it. continue: it sees more.",
    )
    stored_chains: str = setting(
        "chain",
        Choice("chain", "full"),
        "Where `store` is not false: chain by id on any connection of the key, or send in full.",
        "Stored responses outlive their connection; `full` keeps input_items as a direct call's.",
    )
    ambiguous_retry: str = setting(
        "default",
        Choice("default", "forbid"),
        "forbid adds `x-should-retry: false` to an answer whose outcome upstream is unknown.",
        "default: the client behaves as after a dropped direct connection, and may pay twice.",
    )
    changeable_fields: tuple[str, ...] = setting(
        (
            "client_metadata",
            "metadata",
            "max_output_tokens",
            "max_tool_calls",
            "parallel_tool_calls",
            "tool_choice",
            "temperature",
            "top_p",
            "top_logprobs",
            "service_tier",
            "stream",
            "stream_options",
            "prompt_cache_key",
            "prompt_cache_options",
            "prompt_cache_retention",
        ),
        Words(),
        "Members of the body that may differ from turn to turn of one conversation.",
        "They change nothing of the context. Any other difference sends the turn in full.",
    )
    session_headers: tuple[str, ...] = setting(
        (
            "session-id",
            "session_id",
            "x-session-id",
            "x-session-affinity",
            "thread-id",
            "conversation_id",
        ),
        HeaderNames(),
        "Headers that choose the preferred connection, the first one present.",
        "Affinity only: they never say what continues what.",
        heading="Headers",
    )
    identity_headers: tuple[str, ...] = setting(
        (
            "authorization",
            "api-key",
            "openai-organization",
            "openai-project",
            "openai-beta",
            "chatgpt-account-id",
        ),
        HeaderNames(),
        "Headers that make two callers different: in the pool key and on the upgrade.",
        "Every header not named in another class counts as one of these; naming it here only "
        "keeps it from being reported as unknown.",
    )
    per_request_headers: tuple[str, ...] = setting(
        (
            "x-client-request-id",
            "x-stainless-*",
            "traceparent",
            "tracestate",
            "x-codex-turn-metadata",
            "x-codex-window-id",
            "x-codex-parent-thread-id",
            "x-codex-routing-hint",
            "x-openai-subagent",
            "user-agent",
            "originator",
            "accept*",
            "content-*",
            "sec-fetch-*",
            "cache-control",
            "pragma",
            "if-*",
            "range",
            "idempotency-key",
        ),
        HeaderNames(),
        "Headers that the WebSocket does not carry turn by turn.",
        "They are left out there, and kept where a turn goes over HTTPS.",
    )
    hop_by_hop_headers: tuple[str, ...] = setting(
        (
            "connection",
            "keep-alive",
            "proxy-authenticate",
            "proxy-authorization",
            "proxy-connection",
            "te",
            "trailer",
            "transfer-encoding",
            "upgrade",
            "expect",
            "host",
            "http2-settings",
            "sec-websocket-*",
        ),
        HeaderNames(),
        "Headers that belong to one connection and are never forwarded.",
        "RFC 9110 §7.6.1, besides what the `Connection` header itself names.",
    )
    response_headers: tuple[str, ...] = setting(
        (
            "x-codex-*",
            "x-models-etag",
            "openai-model",
            "x-reasoning-included",
            "retry-after",
            "x-ratelimit-*",
        ),
        HeaderNames(),
        "Headers from the 101 and from metadata frames that a client may see.",
        "Those that clients read; nothing else crosses, and values are checked.",
    )
    allow_remote: bool = setting(
        False,
        Switch(),
        "Allow listening beyond this machine; needs `token_file` and `allowed_hosts` too.",
        "Whoever reaches the port can spend on the keys that pass it.",
        flag="--allow-remote",
        heading="Who may come in",
    )
    token_file: Path | None = setting(
        None,
        FilePath("a file that holds the token"),
        "File with the token that remote agents put in their base URL: http://HOST:8787/t/TOKEN/v1",
        "An unmodified agent has one Authorization header, and that is upstream's.",
        flag="--token-file",
    )
    allowed_hosts: tuple[str, ...] = setting(
        (),
        Words(),
        "Further values of the Host header to answer to, as `name` or `name:port`.",
        "Against DNS rebinding only 127.0.0.1, localhost and [::1] are answered otherwise; "
        "all else, this machine's own addresses too, is told 403 host_not_allowed.",
    )
    allowed_origins: tuple[str, ...] = setting(
        (),
        Words(),
        "Web origins whose pages may call, such as http://localhost:3000",
        "A page in a browser is refused otherwise.",
    )
    max_downstream_connections: int = setting(
        512,
        Count(1, 65_535),
        "Connections from agents at one time.",
        "Several times what mini-redis (250) and pgbouncer (100) allow.",
        heading="Limits downstream",
    )
    max_turns: int = setting(
        256,
        Count(1, 65_535),
        "Turns in flight in all; above it 503.",
        "16 connections of 16 turns.",
    )
    max_body_bytes: int = setting(
        64 * MIB,
        Bytes(KIB, 1024 * MIB),
        "Largest body of a turn; above it 413.",
        "Room for images in base64; 99 of 100 bodies of a coding agent stay below 3.5 MB.",
    )
    request_bodies_total_bytes: int = setting(
        256 * MIB,
        Bytes(KIB, 1024 * 1024 * MIB),
        "Bytes of all turns' bodies held together until their answers begin; above it 503.",
        "70 of 3.5 MB at the same moment; each costs up to 4 times its size for a second or two.",
    )
    max_turn_json_bytes: int = setting(
        16 * MIB,
        Bytes(KIB, 1024 * MIB),
        "Largest body that is parsed; above it the turn goes over HTTPS as it is.",
        "Upstream refuses larger frames.",
    )
    max_json_depth: int = setting(
        64,
        Count(8, 500),
        "Deepest nesting of a body that is parsed; deeper ones go over HTTPS as they are.",
        "A parser that recurses fails at about 1,000.",
    )
    max_input_items: int = setting(
        20_000,
        Count(1, 10_000_000),
        "Most input items of a turn that is matched; above it the turn goes over HTTPS.",
        "Bounds the work of one turn on the event loop.",
    )
    head_timeout_s: float = setting(
        10.0,
        Seconds(0.1, HOUR),
        "A request's head must be complete by then.",
        "Against clients that send it a byte at a time; hyper allows 30 s.",
    )
    keepalive_s: float = setting(
        75.0,
        Seconds(0, HOUR),
        "An idle connection from an agent is closed after this.",
        "As nginx does.",
    )
    max_connections: int = setting(
        64,
        Count(1, 10_000),
        "Upstream WebSockets in all.",
        "At the limit turns share, then go over HTTPS.",
        heading="Connections upstream",
    )
    max_connections_per_key_with_lanes: int = setting(
        8,
        Count(1, 10_000),
        "Upstream WebSockets of one identity, where lanes work.",
        "8 × 16 turns at once.",
    )
    max_connections_per_key_without_lanes: int = setting(
        16,
        Count(1, 10_000),
        "Upstream WebSockets of one identity, where one turn at a time is all they carry.",
        "16 turns at once; the rest goes over HTTPS.",
    )
    max_in_flight_per_connection: int = setting(
        16,
        Count(1, 16),
        "Turns in flight on one connection.",
        "Upstream's own limit.",
    )
    max_lanes_per_connection: int = setting(
        32,
        Count(1, 32),
        "Lane names used in one connection's life; they are reused when idle.",
        "Upstream's own limit.",
    )
    max_frame_bytes: int = setting(
        31 * MIB // 2,
        Bytes(KIB, 1024 * MIB),
        "Largest frame sent upstream; above it the turn goes over HTTPS.",
        "Half a MiB below the 16 MiB at which upstream closes with 1009.",
    )
    queue_wait_s: float = setting(
        0.25,
        Seconds(0, MINUTE),
        "How long a turn waits for room before it goes over HTTPS (`reason=busy`).",
        "HTTPS is what the client would have used without us.",
    )
    handshake_wait_s: float = setting(
        3.0,
        Seconds(0, MINUTE),
        "How long a turn waits for a handshake before it goes over HTTPS.",
        "The dial goes on for the next turn.",
    )
    dial_timeout_s: float = setting(
        15.0,
        Seconds(0.1, 10 * MINUTE),
        "TCP, TLS and upgrade together.",
        "Agents allow 5 to 15 s.",
    )
    lane_discovery_wait_s: float = setting(
        2.0,
        Seconds(0, MINUTE),
        "How long other turns wait while the first one finds out about lanes.",
        "Then they take connections of their own.",
    )
    connection_max_age_s: float = setting(
        50 * MINUTE,
        Seconds(1, DAY),
        "A connection takes no new turn after this, less its jitter.",
        "Upstream ends connections at 60 min.",
    )
    connection_age_jitter_s: float = setting(
        5 * MINUTE,
        Seconds(0, DAY),
        "Each connection's age limit is lower by a random part of this.",
        "Connections that were opened together are not renewed together.",
    )
    connection_last_turn_end_s: float = setting(
        59 * MINUTE,
        Seconds(1, DAY),
        "A turn must be expected to end before this age of its connection.",
        "Judged by the session's longest turn so far.",
    )
    connection_idle_s: float = setting(
        15 * MINUTE,
        Seconds(1, DAY),
        "An idle connection is closed after this.",
        "Warm lanes are worth keeping while somebody reads an answer.",
    )
    connection_spare_idle_s: float = setting(
        2 * MINUTE,
        Seconds(1, DAY),
        "An idle connection beyond `max_warm_idle_connections` is closed after this.",
    )
    max_warm_idle_connections: int = setting(
        8,
        Count(0, 10_000),
        "Idle connections that are kept for the whole of `connection_idle_s`.",
    )
    key_idle_s: float = setting(
        5 * MINUTE,
        Seconds(1, DAY),
        "An identity unused for this long loses its connections first.",
        "A renewed token is a new identity, and its old one will not come back.",
    )
    no_websocket_key_s: float = setting(
        MINUTE,
        Seconds(0, DAY),
        "No WebSocket is tried for an identity for this long after 401, 403, 429 or close 1008.",
        "`retry-after` wins where it was given; never permanent.",
    )
    no_websocket_url_s: float = setting(
        10 * MINUTE,
        Seconds(0, DAY),
        "No WebSocket is tried for an upstream URL for this long after 404, 405, 426 or 501.",
        "Such a server has none; it is tried again behind the turns' backs.",
    )
    ping_busy_s: float = setting(
        10.0,
        Seconds(0.1, HOUR),
        "Ping interval while a turn is in flight.",
        "With `tcp_user_timeout_s` it bounds how long a dead path goes unseen: 30 s.",
        heading="Is it still alive?",
    )
    ping_idle_s: float = setting(
        20.0,
        Seconds(0.1, HOUR),
        "Ping interval of an idle connection.",
        "Keeps middleboxes from forgetting it.",
    )
    tcp_user_timeout_s: float = setting(
        20.0,
        Seconds(1, HOUR),
        "A connection whose sent bytes stay unacknowledged for this long is dead.",
        "Tells a dead path from a model that thinks; a plain socket saw nothing in 40 s.",
    )
    probe_after_s: float = setting(
        25.0,
        Seconds(0, HOUR),
        "Ping before a turn where nothing at all was received for this long.",
        "Idle pings make that rare; a turn is never sent into a connection that may be dead.",
    )
    probe_wait_s: float = setting(
        2.0,
        Seconds(0.1, MINUTE),
        "How long that ping may take to be answered.",
    )
    first_event_timeout_s: float = setting(
        10 * MINUTE,
        Seconds(0, DAY),
        "Longest wait for a turn's first event; 0 = none.",
        "The SDKs read for 600 s; an earlier end would make them run the turn twice.",
    )
    event_idle_timeout_s: float = setting(
        15 * MINUTE,
        Seconds(0, DAY),
        "Longest silence between two events of a turn; 0 = none.",
        "Reasoning can be silent for minutes; dead paths are found otherwise.",
    )
    max_message_bytes: int = setting(
        32 * MIB,
        Bytes(KIB, 1024 * MIB),
        "Largest message from upstream, inflated.",
        "`response.completed` repeats everything.",
        heading="Memory",
    )
    max_turn_events: int = setting(
        2_000_000,
        Count(1_000, 1_000_000_000),
        "Most events of one turn.",
        "Against an upstream that never ends.",
    )
    max_turn_bytes: int = setting(
        256 * MIB,
        Bytes(MIB, 1024 * 1024 * MIB),
        "Most bytes of one turn's events.",
        "Against an upstream that never ends.",
    )
    relay_buffer_bytes: int = setting(
        8 * MIB,
        Bytes(KIB, 1024 * MIB),
        "Bytes that may wait for one slow client behind the message being written.",
        "Lanes have no flow control of their own: pausing one would stall its 15 siblings.",
    )
    relay_stall_s: float = setting(
        MINUTE,
        Seconds(0.1, HOUR),
        "A client above `relay_buffer_bytes` that takes nothing for this long is cut.",
    )
    relay_buffers_total_bytes: int = setting(
        256 * MIB,
        Bytes(KIB, 1024 * 1024 * MIB),
        "Bytes that may wait for all clients together; above it the slowest is cut.",
    )
    history_conversations: int = setting(
        10_000,
        Count(1, 10_000_000),
        "Conversations remembered, least recently used forgotten first.",
        "Digests only, no text.",
    )
    history_age_s: float = setting(
        DAY,
        Seconds(1, 365 * DAY),
        "A conversation unused for this long is forgotten.",
    )
    history_bytes: int = setting(
        200_000_000,
        Bytes(MIB, 1024 * 1024 * MIB),
        "Memory of all conversations together.",
    )
    models_fresh_s: float = setting(
        5 * MINUTE,
        Seconds(0, DAY),
        "How long an answer of `GET …/models` is used without asking upstream.",
        "Some agents ask at every turn.",
        heading="Model cache",
    )
    models_stale_s: float = setting(
        DAY,
        Seconds(0, 365 * DAY),
        "How long it may be used while upstream cannot be reached.",
    )
    models_max_bytes: int = setting(
        2 * MIB,
        Bytes(0, 1024 * MIB),
        "Largest answer that is kept.",
    )
    drain_timeout_s: float = setting(
        120.0,
        Seconds(0, DAY),
        "How long turns may go on after SIGTERM.",
        "Give the supervisor 150 s (`TimeoutStopSec`, `stop_grace_period`).",
        flag="--drain-timeout",
        heading="Stopping",
    )
    drain_timeout_tty_s: float = setting(
        5.0,
        Seconds(0, DAY),
        "How long turns may go on after Ctrl-C at a terminal; a second one ends them.",
        "Somebody waits at the prompt.",
    )
    trace: str = setting(
        "on",
        Choice("on", "off"),
        "Record events and commands of each session, without bodies.",
        "What `wsproxy trace` reads.",
        heading="Traces and logs",
    )
    trace_dir: Path | None = setting(
        None,
        FilePath("a folder"),
        "Folder of the traces; default: `traces` in the state folder.",
        "Made with mode 0700, files with 0600.",
    )
    trace_bodies: bool = setting(
        False,
        Switch(),
        "Record bodies too.",
        "They hold whole conversations: no text at rest unless asked.",
    )
    trace_min_free_bytes: int = setting(
        GIB,
        Bytes(0, 1024 * GIB),
        "Traces are written while the disk has at least this much free.",
        "A journal must not be what fills the disk. They take 1 GiB themselves at most.",
    )
    otlp_endpoint: str = setting(
        "",
        CollectorUrl(),
        "OTLP/HTTP traces endpoint that gets a span of each finished turn, such as "
        "http://127.0.0.1:4318/v1/traces; empty: none.",
        "GenAI conventions, figures and ids only. With or without `trace`.",
    )
    log_level: str = setting(
        "info",
        Choice("debug", "info", "warning", "error"),
        "Least severe log lines that are written.",
        flag="--log-level",
    )
    log_format: str = setting(
        "auto",
        Choice("auto", "json", "text"),
        "JSON lines, or text for people; auto: text at a terminal.",
        flag="--log-format",
    )


def describe() -> Iterator[Setting]:
    """Every setting in the order of its declaration."""
    for declared in fields(Settings):
        yield Setting(name=declared.name, default=declared.default, **declared.metadata)


SETTINGS: Final = {about.name: about for about in describe()}
