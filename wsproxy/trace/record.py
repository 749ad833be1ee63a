"""What the journal holds: one JSON object a line, told apart by its first member, `kind`.

Rules of this file
------------------
1. No text of a user or of the model; names of sessions and identities are keyed digests.
2. A member that has its default is left out, and an unknown member is skipped: older and newer
   journals can be read.
3. Times are seconds since the turn was received; `at` is the wall clock of that moment.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec

#: Wall clock, in seconds of Unix; what no calendar can name (here: beyond the year 5138) is damage.
Moment = Annotated[float, msgspec.Meta(ge=0, le=1e11)]
#: A duration; a year and more is damage, and nothing can be reckoned with 1e308.
Seconds = Annotated[float, msgspec.Meta(ge=0, le=1e9)]


class Run(msgspec.Struct, frozen=True, tag_field="kind", tag="run", omit_defaults=True):
    """A daemon began to write. Numbers of conversations and connections count within a run."""

    run: str
    at: Moment
    version: str
    upstream: str
    pid: int


class Phases(msgspec.Struct, frozen=True, omit_defaults=True):
    """When a turn got how far, in seconds since it was received; None: never."""

    matched: Seconds | None = None  # the core knows what it continues
    placed: Seconds | None = None  # it has a connection and a lane; until then it was queued
    sent: Seconds | None = None  # the last byte of its frame has left us
    first_event: Seconds | None = None
    first_output: Seconds | None = None  # the first event that is not about the response itself
    done: Seconds | None = None


class TurnRecord(
    msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="turn", omit_defaults=True
):
    """One turn, written when it is over.

    `bytes_http` is what a plain HTTP request would have sent (head and body), `bytes_up` the
    WebSocket message before compression; both are equal where the turn went over HTTPS, and 0 where
    nothing of it could be sent.
    `about` names what the reason is about: the item's index and type, or the fields.
    """

    turn: str
    run: str
    at: Moment
    key: str
    session: str
    route: str
    outcome: str
    phases: Phases
    hint: str = ""
    conversation: int | None = None
    connection: int | None = None
    lane: str = ""
    reason: str = ""
    about: dict[str, str] = {}
    transport: str = "websocket"
    is_compressed: bool = False
    is_streaming: bool = False
    status: int | None = None
    code: str = ""
    model: str = ""
    items: int = 0
    items_sent: int = 0
    bytes_http: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    events: int = 0
    tokens_in: int | None = None
    tokens_cached: int | None = None
    tokens_out: int | None = None
    retries: int = 0
    faults: list[str] = []
    bodies: Bodies | None = None

    @property
    def bytes_saved(self) -> int:
        """Never counted below zero: a first frame is a little larger than its request."""
        return max(0, self.bytes_http - self.bytes_up)

    @property
    def took_s(self) -> float:
        """From its last byte in to its last byte out."""
        return self.phases.done or 0.0

    @property
    def is_continued(self) -> bool:
        """Whether only what is new was sent."""
        return self.route in ("delta", "fork")


class Bodies(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where the texts of a turn stand (`trace_bodies`): names of `Content` records."""

    headers: dict[str, str] = {}
    members: dict[str, str] = {}
    input: list[str] = []
    output: list[str] = []


class ConnectionRecord(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    tag_field="kind",
    tag="connection",
    omit_defaults=True,
):
    """A connection was opened, refused, retired, lost or closed.

    `took_s`: for `opened` and `refused` the handshake, else its age.
    """

    run: str
    at: Moment
    connection: int
    key: str
    change: str
    took_s: Seconds | None = None
    is_compressed: bool = False
    fault: str = ""
    status: int | None = None


class Content(msgspec.Struct, frozen=True, tag_field="kind", tag="content"):
    """A piece of a body, stored once in a file however often it is named."""

    name: str
    body: msgspec.Raw


class Core(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="core"):
    """What the core of a run was made with; with its doors it can be run again."""

    run: str
    options: dict[str, Any]
    history: dict[str, Any]


class Door(
    msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="door", omit_defaults=True
):
    """One event that the core took, and the commands it gave for it (`doors.py` says how).

    `number` counts from 1 without a gap; `now` is the core's clock; `heard` and `streams` say
    when bytes came in since the door before; `items` are those of a turn that were read for it.
    """

    run: str
    number: int
    now: float
    event: dict[str, Any]
    commands: list[dict[str, Any]] = []
    heard: list[tuple[int, float]] = []
    streams: list[tuple[str, float]] = []
    items: dict[str, dict[str, Any]] = {}


class Dropped(msgspec.Struct, frozen=True, tag_field="kind", tag="dropped"):
    """So many records before this line were lost: the queue was full or the disk refused."""

    at: Moment
    count: int


Record = Run | TurnRecord | ConnectionRecord | Content | Core | Door | Dropped

_ENCODER: Final = msgspec.json.Encoder()
_DECODER: Final[msgspec.json.Decoder[Record]] = msgspec.json.Decoder(Record)


def encode(record: Record) -> bytes:
    """One line, its line feed included."""
    return _ENCODER.encode(record) + b"\n"


def decode(line: bytes) -> Record:
    """Read one line. Raises `msgspec.DecodeError` (a `ValueError`) where it is damaged."""
    try:
        return _DECODER.decode(line)
    except RecursionError:
        raise msgspec.DecodeError("nested too deeply") from None


def whole(record: msgspec.Struct) -> dict[str, Any]:
    """Every member of a record, those with their default too: for programs that read one."""
    members = msgspec.structs.asdict(record)
    return {
        name: whole(value) if isinstance(value, msgspec.Struct) else value
        for name, value in members.items()
    }
