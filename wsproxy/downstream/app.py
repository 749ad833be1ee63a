"""Which request goes where, by its raw path; and the sockets it all arrives on.

Rules of this file
------------------
1. Only the raw path is compared: "/v1/%72esponses" and "/v1/./responses" are upstream's business.
2. A near miss of the turn's path is answered here, with the right base URL: upstream's 404 would
   not say it.
3. What is ours (`/_wsproxy`) never goes upstream; everything unknown does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from aiohttp import web

from wsproxy.downstream.answers import refusal
from wsproxy.downstream.coding import IDLE_TIMEOUT_S
from wsproxy.downstream.guard import URL_PREFIX, Guard
from wsproxy.downstream.listening import BACKLOG, Address, bind
from wsproxy.downstream.models import ModelCache
from wsproxy.downstream.ops import Ops, is_ops_path
from wsproxy.downstream.passthrough import STALL_TIMEOUT_S, pass_through
from wsproxy.downstream.server import ConnectionLimits, Report, Server
from wsproxy.downstream.tunnel import UpgradingRest, tunnel

DEFAULT_LISTEN: Final = (Address("127.0.0.1", 8787), Address("::1", 8787, is_optional=True))

TurnHandler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True, kw_only=True)
class App:
    """Routes one request. `base` is the path of the upstream URL, without a trailing slash."""

    base: str
    turn: TurnHandler
    rest: UpgradingRest
    models: ModelCache
    ops: Ops = field(default_factory=Ops)
    upload_idle_timeout_s: float = IDLE_TIMEOUT_S
    stall_timeout_s: float = STALL_TIMEOUT_S

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request that the guard let through."""
        path = request.raw_path.partition("?")[0]
        if is_ops_path(path):
            return self.ops.answer(request, path)
        if request.headers.get("Expect", "100-continue").lower() != "100-continue":
            return refusal(417, "expectation_failed", "Unknown Expect.", is_last=True)
        if path == f"{self.base}/responses":
            return await self._responses(request)
        if request.method == "POST" and self._is_near_miss(path):
            return self._wrong_base(request, path)
        if _asks_for_upgrade(request):
            return await tunnel(request, self.rest)
        if path == f"{self.base}/models" or path.startswith(f"{self.base}/models/"):
            return await self.models.handle(request)
        return await self._passed_through(request)

    async def _passed_through(self, request: web.BaseRequest) -> web.StreamResponse:
        return await pass_through(
            request,
            self.rest,
            idle_timeout_s=self.upload_idle_timeout_s,
            stall_timeout_s=self.stall_timeout_s,
        )

    async def _responses(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.method == "POST":
            assert isinstance(request, web.Request)
            return await self.turn(request)
        if request.method == "GET" and request.headers.get("Upgrade", "").lower() == "websocket":
            return _use_http()
        return await self._passed_through(request)

    def _is_near_miss(self, path: str) -> bool:
        segments, base = _segments(path), _segments(self.base)
        if not segments or segments.pop() != "responses":
            return False
        return segments in ([], ["v1"], base, base + base)

    def _wrong_base(self, request: web.BaseRequest, path: str) -> web.StreamResponse:
        host = request.headers.get("Host", "127.0.0.1:8787")
        is_base_right = _segments(path) == [*_segments(self.base), "responses"]
        return refusal(
            404,
            "wrong_base_url",
            f"Turns are served at {self.base}/responses; "
            f"{'drop the extra slash: the base URL is' if is_base_right else 'set the base URL to'}"
            f" http://{host}{request.get(URL_PREFIX, '')}{self.base}",
            is_last=True,
        )


def _segments(path: str) -> list[str]:
    return [segment for segment in path.split("/") if segment]


class Front:
    """The running downstream side."""

    def __init__(self, server: Server, listeners: Sequence[asyncio.Server]) -> None:
        self._server = server
        self._listeners = listeners
        self.addresses: Final = [
            Address(*sock.getsockname()[:2]) for each in listeners for sock in each.sockets
        ]

    @property
    def connection_count(self) -> int:
        """Open downstream connections."""
        return len(self._server.connections)

    @property
    def accepted_count(self) -> int:
        """Downstream connections so far."""
        return self._server.accepted_count

    @property
    def refused_count(self) -> int:
        """Of those, how many were too many."""
        return self._server.refused_count

    def guarded_by(self, guard: Guard) -> None:
        """Judge requests by another guard from now on."""
        self._server.guard = guard

    def stop_listening(self) -> None:
        """Take no new connection, close idle ones; answers now end their connection."""
        for listener in self._listeners:
            listener.close()
        self._server.drain()

    async def emptied(self) -> None:
        """After `stop_listening`: wait until every answer has left and every connection is gone."""
        await self._server.emptied()

    async def close(self, *, patience_s: float = 0.0) -> None:
        """Stop listening and end every connection, after `patience_s` by force."""
        self.stop_listening()
        await self._server.end(patience_s)


async def start(
    app: App,
    *,
    listen: Sequence[Address] = DEFAULT_LISTEN,
    guard: Guard | None = None,
    limits: ConnectionLimits | None = None,
    report: Report | None = None,
    is_remote_allowed: bool = False,
) -> Front:
    """Open the ports and serve. Raises `ListenError`, then nothing stays open."""
    guard = guard if guard is not None else Guard()
    sockets = await bind(listen, is_remote_allowed=is_remote_allowed and guard.token is not None)
    server = Server(
        app.handle, guard, limits or ConnectionLimits(), report or (lambda _event, _fields: None)
    )
    loop = asyncio.get_running_loop()
    listeners = [await loop.create_server(server, sock=sock, backlog=BACKLOG) for sock in sockets]
    return Front(server, listeners)


def _asks_for_upgrade(request: web.BaseRequest) -> bool:
    options = ",".join(request.headers.getall("Connection", [])).lower()
    return (
        request.version >= (1, 1)
        and "Upgrade" in request.headers
        and "upgrade" in (option.strip() for option in options.split(","))
        and not request.body_exists
    )


def _use_http() -> web.StreamResponse:
    return refusal(
        426,
        "websocket_not_served",
        "wsproxy speaks HTTP here and WebSocket upstream: POST to this path instead.",
        headers=[(b"Upgrade", b"HTTP/1.1")],
        is_last=True,
    )
