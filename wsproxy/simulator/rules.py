"""Every setting of the simulated service. The defaults are the strict rules of protocol.md §2-§6.

Durations are seconds, sizes bytes; a cost of 0 is free.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

#: Largest client message of the ChatGPT backend, measured (protocol.md §2.8).
MAX_MESSAGE_BYTES: Final = 16 * 1024 * 1024

Lanes = Literal["on", "ignored", "refused"]
Continuation = Literal["kept", "ignored_null", "ignored_echoed"]
ChainLoss = Literal["silent", "silent_null", "refused"]
LanePlace = Literal["last", "first", "middle"]
ErrorShape = Literal["a", "b", "c", "d", "e", "f", "g", "h"]


@dataclass(frozen=True, slots=True)
class Rules:
    """How this upstream behaves."""

    # Where it answers
    base: str = "/v1"
    require_key: bool = True  # no Bearer token → HTTP 401, also on the upgrade
    models: tuple[str, ...] = ("gpt-5.6", "gpt-5.6-sol", "gpt-6-astra", "sim")

    # Limits (protocol.md §5)
    max_in_flight: int = 16
    max_lanes: int = 32
    connection_life_s: float = 3600.0
    max_message_bytes: int = MAX_MESSAGE_BYTES

    # What is refused
    strict_fields: bool = True  # `stream` and `background` in a frame are a 400
    refuse_unknown_fields: bool = False
    check_pairing: bool = True  # tool calls and their outputs, duplicate ids
    verify_reasoning: bool = True  # blobs that are not ours, ids that are not stored

    # Transport
    deflate: bool = True  # permessage-deflate is accepted where offered
    ping_interval_s: float = 0.0  # 0 = the server never pings
    answer_pings: bool = True
    refuse_upgrade: int = 0  # HTTP status of every upgrade; 0 = accept
    retry_after_s: int = 0  # told with a refused upgrade
    hang_upgrade: bool = False  # the upgrade is never answered

    # Upstreams that are not OpenAI's
    lanes: Lanes = "on"
    continuation: Continuation = "kept"
    chain_turns: int = 0  # forget the chain after that many turns; 0 = never
    chain_loss: ChainLoss = "silent"
    sequence_per_connection: bool = False
    lane_place: LanePlace = "last"
    spaced_json: bool = False  # ", " and ": " between members
    error_shape: ErrorShape = "a"
    reencrypt_reasoning: bool = True  # the blob of `completed` differs from that of `done`
    empty_completed_output: bool = False
    noise: bool = False  # WebSocket-only frames before, in and after every response
    keepalive: bool = False  # numbered `keepalive` events, over HTTP as well

    # Costs of a real service
    handshake_s: float = 0.0  # TCP and TLS, once a connection, before its first answer
    round_trip_s: float = 0.0  # before the first byte of every answer
    uplink_bytes_per_s: float = 0.0  # 0 = a request takes no time to arrive
    prefill_s_per_token: float = 0.0  # for every context token that is not cached
    http_prompt_cache: bool = False  # does a plain HTTP call find its prompt in the cache?
    tokens_per_s: float = 0.0  # 0 = as fast as it can

    # Bounds of the memory of a long run
    kept_transcripts: int = 10_000
    kept_responses: int = 10_000
    kept_records: int = 1_000_000
