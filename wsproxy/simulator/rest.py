"""The HTTP side of the API: routes, keys, models (protocol.md §9.4), things to pass through."""

from __future__ import annotations

import asyncio
import hashlib
import json
from typing import Any, Final
from urllib.parse import parse_qs, unquote

from wsproxy.simulator.answers import Answers, no_route
from wsproxy.simulator.errors import ApiError
from wsproxy.simulator.faults import Fault, FaultError, fault_from_json
from wsproxy.simulator.http import Exchange
from wsproxy.simulator.log import HttpRequest
from wsproxy.simulator.turns import Turns

_SSE: Final = ("content-type", "text/event-stream; charset=utf-8")
_MODELS_CREATED: Final = 1_686_935_002
_TICK_S: Final = 0.02  # between two events of the unrelated SSE
_BLOCK: Final = bytes(range(256)) * 256


def bearer(headers: Any) -> str:
    """The Bearer token among raw headers, "" if there is none."""
    for name, value in headers:
        if name.lower() == b"authorization":
            scheme, _, token = value.decode("latin-1").partition(" ")
            if scheme.lower() == "bearer":
                return str(token.strip())
    return ""


class Rest:
    """Answers every plain HTTP request."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._rules = turns.rules
        self._answers = Answers(turns)

    async def handle(self, exchange: Exchange, connection: int) -> None:
        """Answer one request."""
        try:
            await self._route(exchange, connection)
        except ApiError as error:
            exchange.refuse(error, self._answers.headers())
        finally:
            size = exchange.received_bytes
            note = HttpRequest(
                self._turns.now(),
                connection,
                exchange.method,
                exchange.target,
                size,
                exchange.headers,
            )
            self._turns.log.note(note)

    async def stop(self) -> None:
        """End background responses."""
        await self._answers.stop()

    async def _route(self, exchange: Exchange, connection: int) -> None:
        if exchange.path.startswith("/_simulator/"):
            await self._control(exchange)
            return
        prefix = self._rules.base.rstrip("/") + "/"
        if not exchange.path.startswith(prefix):
            raise no_route(exchange)
        owner = self.owner(exchange)
        head, _, tail = exchange.path[len(prefix) :].partition("/")
        if head == "responses" and not tail and exchange.method == "POST":
            await self._answers.create(exchange, owner, connection)
            return
        await self._turns.arrival(0)
        match head:
            case "models" if exchange.method == "GET":
                self._models(exchange, unquote(tail))
            case "responses" if tail:
                await self._answers.stored(exchange, owner, tail)
            case "echo":
                await self._echo(exchange, tail)
            case "files":
                await self._echo(exchange, "")
            case "sse" if tail == "ticks":
                await self._ticks(exchange)
            case "bytes":
                await self._bytes(exchange)
            case "status":
                self._status(exchange, tail)
            case _:
                raise no_route(exchange)

    def owner(self, exchange: Exchange) -> str:
        """Whose call it is. Raises `ApiError` 401."""
        token = bearer(exchange.headers)
        if not token and self._rules.require_key:
            raise missing_key()
        return token

    # -- models --------------------------------------------------------------------------------

    def _models(self, exchange: Exchange, wanted: str) -> None:
        models = [_model(name) for name in self._rules.models]
        value: object = {"object": "list", "data": models}
        if wanted:
            if wanted not in self._rules.models:
                raise ApiError(
                    f"The model '{wanted}' does not exist", status=404, code="model_not_found"
                )
            value = _model(wanted)
        etag = f'"{hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]}"'
        headers = [("etag", etag), *self._answers.headers()]
        known = {each.strip() for each in exchange.header("if-none-match").split(",")}
        if known & {etag, "*"}:
            exchange.answer(304, b"", headers)
        else:
            exchange.answer_json(200, value, headers)

    # -- things to pass through ----------------------------------------------------------------

    async def _echo(self, exchange: Exchange, tail: str) -> None:
        headers = [("x-echo-method", exchange.method), ("x-echo-target", exchange.target)]
        if tail == "headers":
            shown = [[n.decode("latin-1"), v.decode("latin-1")] for n, v in exchange.headers]
            exchange.answer_json(200, shown, headers)
            return
        kind = exchange.header("content-type") or "application/octet-stream"
        headers.append(("content-type", kind))
        if coding := exchange.header("content-encoding"):
            headers.append(("content-encoding", coding))
        if exchange.method == "HEAD":
            exchange.answer(200, b"", headers)
            return
        exchange.start(200, headers)
        async for part in exchange.chunks():
            await exchange.write(part)
        exchange.end()

    async def _ticks(self, exchange: Exchange) -> None:
        exchange.start(200, [("content-type", "text/event-stream")])
        for number in range(_number(exchange, "n", 3)):
            await exchange.write(b"id: %d\ndata: tick %d\n\n" % (number, number))
            await asyncio.sleep(_TICK_S)
        exchange.end()

    async def _bytes(self, exchange: Exchange) -> None:
        left = _number(exchange, "n", 1024)
        exchange.start(
            200, [("content-type", "application/octet-stream"), ("content-length", str(left))]
        )
        while left > 0:
            await exchange.write(_BLOCK[: min(left, len(_BLOCK))])
            left -= len(_BLOCK)
        exchange.end()

    def _status(self, exchange: Exchange, code: str) -> None:
        if not code.isdecimal() or not 200 <= int(code) <= 599:
            raise no_route(exchange)
        exchange.answer_json(int(code), {"status": int(code)}, self._answers.headers())

    # -- control -------------------------------------------------------------------------------

    async def _control(self, exchange: Exchange) -> None:
        match exchange.method, exchange.path:
            case "GET", "/_simulator/log":
                exchange.answer_json(200, self._turns.log.as_json())
            case "DELETE", "/_simulator/log":
                self._turns.log.clear()
                exchange.answer_json(200, {"cleared": True})
            case "POST", "/_simulator/faults":
                ordered = _read_orders(await exchange.body())
                self._turns.faults.order(*ordered)
                exchange.answer_json(200, {"open": len(self._turns.faults)})
            case "DELETE", "/_simulator/faults":
                self._turns.faults.clear()
                exchange.answer_json(200, {"open": 0})
            case _:
                raise no_route(exchange)


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": _MODELS_CREATED, "owned_by": "openai"}


def _number(exchange: Exchange, name: str, default: int) -> int:
    text = parse_qs(exchange.query).get(name, [str(default)])[0]
    if not text.isdecimal():
        raise ApiError(f"'{name}' is not a number", param=name)
    return int(text)


def _read_orders(raw: bytes) -> list[Fault]:
    try:
        orders = json.loads(raw)
        return [fault_from_json(order) for order in orders]
    except (ValueError, TypeError, FaultError) as error:
        raise ApiError(f"Bad orders: {error}") from None


def missing_key() -> ApiError:
    """No Bearer token at all."""
    return ApiError(
        "You didn't provide an API key. You need to provide your API key in an Authorization "
        "header using Bearer auth (i.e. Authorization: Bearer YOUR_KEY).",
        status=401,
    )
