"""Every setting of the simulated service. The defaults are the strict rules of protocol.md §2-§6.

Durations are seconds, sizes bytes; a cost of 0 is free.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal, TypeVar

#: Largest client message of the ChatGPT backend, measured (protocol.md §2.8).
MAX_MESSAGE_BYTES: Final = 16 * 1024 * 1024

Lanes = Literal["on", "ignored", "refused"]
Continuation = Literal["kept", "ignored_null", "ignored_echoed"]
ChainLoss = Literal["silent", "silent_null", "refused"]
LanePlace = Literal["last", "first", "middle"]
ErrorShape = Literal["a", "b", "c", "d", "e", "f", "g", "h"]


T = TypeVar("T")


def rule(default: T, help_: str) -> T:
    """A field of `Rules` that explains itself: the text is the flag's help."""
    made: T = field(default=default, metadata={"help": help_})
    return made


@dataclass(frozen=True, slots=True)
class Rules:
    """How this upstream behaves."""

    # Where it answers
    base: str = rule("/v1", "Path before /responses, /models and the rest.")
    require_key: bool = rule(True, "Answer 401 where no Bearer token comes, also to the upgrade.")
    models: tuple[str, ...] = rule(
        ("gpt-5.6", "gpt-5.6-sol", "gpt-6-astra", "sim"), "Models that /models lists."
    )

    # Limits (protocol.md §5)
    max_in_flight: int = rule(16, "Responses in flight on one connection; further ones are queued.")
    max_lanes: int = rule(32, "Distinct stream_ids in one connection's life.")
    connection_life_s: float = rule(
        3600.0, "Seconds after which a connection has reached its limit."
    )
    max_message_bytes: int = rule(
        MAX_MESSAGE_BYTES,
        "Largest client message; above it close 1009 (as a live backend was measured to do).",
    )

    # What is refused
    strict_fields: bool = rule(True, "`stream` and `background` in a frame are a 400.")
    refuse_unknown_fields: bool = rule(False, "A field that the API does not have is a 400.")
    check_pairing: bool = rule(
        True, "Tool calls and their outputs must pair; duplicate ids are refused."
    )
    verify_reasoning: bool = rule(
        True, "Refuse blobs that are not ours and ids that are not stored."
    )

    # Transport
    deflate: bool = rule(True, "Accept permessage-deflate where it is offered.")
    ping_interval_s: float = rule(0.0, "Seconds between the server's pings; 0: none.")
    answer_pings: bool = rule(True, "Answer the client's pings.")
    refuse_upgrade: int = rule(0, "HTTP status of every upgrade; 0: accept.")
    retry_after_s: int = rule(
        0, "Seconds told in `retry-after` with a refused upgrade; 0: not told."
    )
    hang_upgrade: bool = rule(False, "Never answer an upgrade.")

    # Upstreams that are not OpenAI's
    lanes: Lanes = rule("on", "What becomes of `stream_id`.")
    continuation: Continuation = rule(
        "kept", "What becomes of `previous_response_id`; how it is echoed where ignored."
    )
    chain_turns: int = rule(0, "Forget a chain after that many turns; 0: never.")
    chain_loss: ChainLoss = rule("silent", "How a forgotten chain shows.")
    sequence_per_connection: bool = rule(False, "Number events per connection, not per response.")
    lane_place: LanePlace = rule("last", "Where `stream_id` stands in an event.")
    spaced_json: bool = rule(False, "Write `, ` and `: ` between members.")
    error_shape: ErrorShape = rule(
        "a", "Shape of error frames: a as documented, b to h as others were seen to spell them."
    )
    reencrypt_reasoning: bool = rule(True, "The blob of `completed` differs from that of `done`.")
    empty_completed_output: bool = rule(False, "`output` is empty in `response.completed`.")
    noise: bool = rule(False, "WebSocket-only frames before, in and after every response.")
    keepalive: bool = rule(False, "Numbered `keepalive` events, over HTTP as well.")

    # Costs of a real service
    handshake_s: float = rule(
        0.0, "Seconds of TCP and TLS, once a connection, before its first answer."
    )
    round_trip_s: float = rule(0.0, "Seconds before the first byte of every answer.")
    uplink_bytes_per_s: float = rule(0.0, "Speed at which requests arrive; 0: at once.")
    prefill_s_per_token: float = rule(0.0, "Seconds for each context token that is not cached.")
    http_prompt_cache: bool = rule(
        False, "Whether a plain HTTP call finds its prompt in the cache."
    )
    tokens_per_s: float = rule(0.0, "Pace of the output; 0: as fast as it can.")

    # Bounds of the memory of a long run
    kept_transcripts: int = rule(10_000, "Transcripts kept.")
    kept_responses: int = rule(10_000, "Stored responses kept.")
    kept_records: int = rule(1_000_000, "Records of the log kept.")
