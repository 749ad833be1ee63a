"""From one downstream request to what the core is asked: identity, items, fields, no text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from lru import LRU

from wsproxy.core.api.request import Request, UnfitError, parse
from wsproxy.core.commands import Note
from wsproxy.core.conversation.fields import FieldReader
from wsproxy.core.conversation.identity import Identities, Identity
from wsproxy.core.conversation.transcript import Transcript
from wsproxy.core.events import TurnArrived
from wsproxy.core.ids import PoolKey, SessionName, TurnId
from wsproxy.ports import Headers, Target

#: Pool keys whose upgrade headers and model are remembered (LRU), as many as the core's beliefs.
REMEMBERED_KEYS: Final = 1024

#: `POST /v1/responses HTTP/1.1` and the empty line; `: ` and the line end of each field.
_REQUEST_LINE_BYTES: Final = 32
_FIELD_BYTES: Final = 4


@dataclass(frozen=True, slots=True)
class Inbound:
    """One request to `<base>/responses`, read to its end. `body` is decoded.

    `let_go` is called when nobody will read it again, if that is before the turn's end.
    """

    headers: Headers = field(repr=False)
    query: str
    body: bytes = field(repr=False)
    let_go: Callable[[], None] = lambda: None

    @property
    def http_bytes(self) -> int:
        """What the client sent, a coding of the body not counted: request line, head and body."""
        fields = sum(len(name) + len(value) + _FIELD_BYTES for name, value in self.headers)
        return _REQUEST_LINE_BYTES + len(self.query) + fields + len(self.body)


@dataclass(frozen=True, slots=True)
class ReadingLimits:
    """What a body may be that is taken apart; any other goes over HTTPS (contract §4)."""

    max_json_bytes: int = 16 * 1024 * 1024
    max_json_depth: int = 64
    max_items: int = 20_000


class Reader:
    """Takes requests apart, and remembers of each pool key what its next dial needs."""

    def __init__(
        self,
        websocket_url: str,
        limits: ReadingLimits,
        identities: Identities,
        fields: FieldReader,
        note: Callable[[Note], None],
    ) -> None:
        self._url = websocket_url
        self._limits = limits
        self._identities = identities
        self._fields = fields
        self._note = note
        self._targets: LRU[PoolKey, Target] = LRU(REMEMBERED_KEYS)
        self._models: LRU[PoolKey, bytes] = LRU(REMEMBERED_KEYS)

    def target(self, key: PoolKey) -> Target | None:
        """Where, and as whom, this key's WebSockets are opened; None if it came too long ago."""
        return self._targets.get(key)

    def model(self, key: PoolKey) -> bytes:
        """The model it asked for last, as raw JSON."""
        return self._models.get(key, b'""')

    def identify(self, inbound: Inbound) -> Identity:
        """Whose request it is; headers that turn out to change per call are named in the log."""
        identity = self._identities.read(self._url + inbound.query, inbound.headers)
        for name in identity.new_volatile:
            self._note(Note("header.volatile", detail=name))
        return identity

    def read(
        self, turn: TurnId, inbound: Inbound, identity: Identity
    ) -> tuple[TurnArrived, Request]:
        """Raises `UnfitError` if the request is not for the WebSocket."""
        limits = self._limits
        _check_headers(inbound.headers)
        if len(inbound.body) > limits.max_json_bytes:
            raise UnfitError("too_large")
        if identity.is_volatile:
            raise UnfitError("volatile_header")
        self._targets[identity.pool_key] = Target(self._url + inbound.query, identity.headers)
        request = parse(inbound.body, max_depth=limits.max_json_depth, max_items=limits.max_items)
        key = identity.pool_key
        if (model := request.value("model")) is not None:
            self._models[key] = model
        event = TurnArrived(
            turn=turn,
            key=key,
            hint=identity.hint or self._hint(request),
            transcript=Transcript(request, max_depth=limits.max_json_depth),
            fields=self._fields.read(key, request),
            is_streaming=request.is_streaming,
            own_parent=request.own_parent,
            frame_bytes=len(inbound.body),
        )
        return event, request

    def _hint(self, request: Request) -> tuple[str, SessionName] | None:
        """A body's `prompt_cache_key` means a session where no header does (contract §3)."""
        cache_key = request.string("prompt_cache_key")
        if not cache_key:
            return None
        return "prompt_cache_key", self._identities.session("", cache_key.encode())


def _check_headers(headers: Headers) -> None:
    """What only HTTPS can carry (contract §3, §4). Raises `UnfitError`."""
    content_type = b""
    for name, value in headers:
        lowered = name.lower()
        if lowered == b"idempotency-key":
            raise UnfitError("idempotency_key")
        if lowered == b"content-type":
            content_type = value.partition(b";")[0].strip().lower()
    if content_type != b"application/json":
        raise UnfitError("content_type")
