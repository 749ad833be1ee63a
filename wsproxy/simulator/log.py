"""What happened at the simulated service, as a list of small records that tests can count."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeVar

Headers = Sequence[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Opened:
    """A TCP connection said what it is; `headers` are those of the upgrade or first request."""

    at: float
    connection: int
    via: str  # "ws" | "http"
    target: str
    headers: Headers

    @property
    def authorization(self) -> str:
        """The credential it came with, "" if none."""
        found = [value for name, value in self.headers if name.lower() == b"authorization"]
        return found[0].decode("latin-1") if found else ""


@dataclass(frozen=True, slots=True)
class Closed:
    """A connection ended; `code` is the close code where there was one, else 1006."""

    at: float
    connection: int
    via: str
    code: int
    by: str  # "us" | "peer"


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """One plain HTTP request, `size` bytes of body as they came."""

    at: float
    connection: int
    method: str
    target: str
    size: int
    headers: Headers


@dataclass(frozen=True, slots=True)
class Create:
    """One turn arrived. `items` counts what was in `input`; `size` is the bytes of its JSON,
    `wire_size` those that came over TCP for it (compressed, with frame headers or without head)."""

    at: float
    connection: int
    via: str
    lane: str
    size: int
    wire_size: int
    items: int
    previous_response_id: str | None
    canary: str


@dataclass(frozen=True, slots=True)
class Run:
    """The model ran. `digest` tells equal conversations from different ones."""

    at: float
    connection: int
    via: str
    lane: str
    response_id: str
    canary: str
    digest: str
    context_items: int
    cached_tokens: int


@dataclass(frozen=True, slots=True)
class Ended:
    """A run ended: completed, incomplete, failed, error, or abandoned (nobody was left to hear)."""

    at: float
    connection: int
    lane: str
    response_id: str
    outcome: str


@dataclass(frozen=True, slots=True)
class Refused:
    """A turn was refused, before it ran or in the middle."""

    at: float
    connection: int
    via: str
    lane: str
    status: int
    code: str | None
    message: str
    canary: str


@dataclass(frozen=True, slots=True)
class Faulted:
    """A fault on order was performed."""

    at: float
    connection: int
    where: str
    what: str
    canary: str


Record = Opened | Closed | HttpRequest | Create | Run | Ended | Refused | Faulted
R = TypeVar("R", Opened, Closed, HttpRequest, Create, Run, Ended, Refused, Faulted)


class Log(list[Record]):
    """All records in order; the oldest half goes when there are more than `limit`."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit

    def note(self, record: Record) -> None:
        """Add one record."""
        if len(self) >= self._limit:
            del self[: self._limit // 2]
        self.append(record)

    def of(self, kind: type[R]) -> list[R]:
        """The records of one kind."""
        return [record for record in self if isinstance(record, kind)]

    def websockets(self) -> list[Opened]:
        """Every WebSocket that was opened."""
        return [record for record in self.of(Opened) if record.via == "ws"]

    def creates(self, via: str | None = None) -> list[Create]:
        """Every turn that arrived, over one transport or both."""
        return [record for record in self.of(Create) if via in {None, record.via}]

    def bytes_up(self, via: str | None = None) -> int:
        """Bytes on the wire of all frames and bodies that carried turns."""
        return sum(record.wire_size for record in self.creates(via))

    def runs(self) -> Counter[tuple[str, str]]:
        """How often the model ran for each (canary, digest)."""
        return Counter((record.canary, record.digest) for record in self.of(Run))

    def as_json(self) -> list[dict[str, Any]]:
        """Every record as JSON values, credentials replaced by eight hex digits."""
        return [dict(_shown(record)) for record in self]


def _shown(record: Record) -> Iterator[tuple[str, Any]]:
    yield "record", type(record).__name__
    values = asdict(record)
    for field in fields(record):
        value = values[field.name]
        yield field.name, _masked(value) if field.name == "headers" else value


def _masked(headers: Headers) -> list[list[str]]:
    secret = {b"authorization", b"api-key", b"cookie"}
    return [
        [
            name.decode("latin-1"),
            hashlib.sha256(value).hexdigest()[:8]
            if name.lower() in secret
            else value.decode("latin-1"),
        ]
        for name, value in headers
    ]
