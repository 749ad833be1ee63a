"""The HTTP side of the API: routes, `POST /responses` as SSE and as JSON, stored responses.

Formats: protocol.md §9.1 (SSE), §9.2 (JSON), §9.3 (errors and headers), §9.4 (models).
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from typing import Any, Final
from urllib.parse import parse_qs, unquote

from wsproxy.simulator.errors import ApiError, unknown_parameter
from wsproxy.simulator.faults import Fault, FaultError, fault_from_json
from wsproxy.simulator.frames import flat_error, sse
from wsproxy.simulator.http import Exchange
from wsproxy.simulator.log import HttpRequest
from wsproxy.simulator.noise import METADATA_HEADERS
from wsproxy.simulator.outputs import Event
from wsproxy.simulator.request import FRAME_ONLY, parse_object
from wsproxy.simulator.store import Stored
from wsproxy.simulator.turns import Caller, Turn, Turns
from wsproxy.simulator.wire import GoneError

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
        self._count = 0
        self._background: dict[str, asyncio.Task[None]] = {}

    async def handle(self, exchange: Exchange, connection: int) -> None:
        """Answer one request."""
        try:
            await self._route(exchange, connection)
        except ApiError as error:
            exchange.refuse(error, self._headers())
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
        tasks = list(self._background.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _route(self, exchange: Exchange, connection: int) -> None:
        if exchange.path.startswith("/_simulator/"):
            await self._control(exchange)
            return
        prefix = self._rules.base.rstrip("/") + "/"
        if not exchange.path.startswith(prefix):
            raise _no_route(exchange)
        owner = self.owner(exchange)
        head, _, tail = exchange.path[len(prefix) :].partition("/")
        match head:
            case "models" if exchange.method == "GET":
                self._models(exchange, unquote(tail))
            case "responses" if tail:
                await self._stored(exchange, owner, tail)
            case "responses" if exchange.method == "POST":
                await self._create(exchange, owner, connection)
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
                raise _no_route(exchange)

    def owner(self, exchange: Exchange) -> str:
        """Whose call it is. Raises `ApiError` 401."""
        token = bearer(exchange.headers)
        if not token and self._rules.require_key:
            raise missing_key()
        return token

    def _headers(self) -> list[tuple[str, str]]:
        self._count += 1
        number = hashlib.sha256(str(self._count).encode()).hexdigest()[:32]
        headers = [
            ("x-request-id", f"req_{number}"),
            ("openai-organization", "org-simulated"),
            ("openai-processing-ms", str(5 + self._count % 20)),
            ("openai-version", "2020-10-01"),
            ("x-ratelimit-limit-requests", "500"),
            ("x-ratelimit-remaining-requests", "499"),
            ("x-ratelimit-reset-requests", "120ms"),
            ("x-ratelimit-limit-tokens", "500000"),
            ("x-ratelimit-remaining-tokens", "499000"),
            ("x-ratelimit-reset-tokens", "1ms"),
        ]
        if self._rules.noise:
            headers += METADATA_HEADERS.items()
        return headers

    # -- turns ---------------------------------------------------------------------------------

    async def _create(self, exchange: Exchange, owner: str, connection: int) -> None:
        raw = await exchange.body()
        cache = self._turns.http_cache(owner)
        caller = Caller(owner, connection, "http", lambda _: None, cache)
        await self._turns.arrival(exchange.received_bytes)
        fields = parse_object(raw)
        self._turns.note_create(fields, len(raw), exchange.received_bytes, caller)
        try:
            await self._answer(exchange, fields, len(raw), caller)
        except ApiError as error:
            self._turns.note_refusal(fields, caller, error)
            raise

    async def _answer(
        self, exchange: Exchange, fields: dict[str, Any], size: int, caller: Caller
    ) -> None:
        for name in FRAME_ONLY:
            if name in fields:
                raise unknown_parameter(name)
        turn = self._turns.prepare(fields, size, caller)
        if turn.request.background:
            self._begin_background(exchange, turn)
        elif turn.request.stream:
            await self._stream(exchange, turn)
        else:
            await self._whole(exchange, turn)

    async def _stream(self, exchange: Exchange, turn: Turn) -> None:
        outlet = _SseOutlet(self, exchange)
        try:
            await self._turns.tell(turn, outlet)
        except ApiError as error:
            if not outlet.has_started:
                raise
            self._turns.note_refusal(dict(turn.request.fields), turn.caller, error)
            event = {**flat_error(error), "sequence_number": outlet.number}
            await exchange.write(sse(event, self._rules))
        exchange.end()

    async def _whole(self, exchange: Exchange, turn: Turn) -> None:
        outlet = _JsonOutlet(exchange)
        await self._turns.tell(turn, outlet)
        exchange.answer_json(200, _document(turn), self._headers())

    def _begin_background(self, exchange: Exchange, turn: Turn) -> None:
        queued = {**turn.shown, "status": "queued"}
        stored = Stored(queued, list(turn.request.items))
        self._turns.store.put(turn.caller.owner, stored)
        task = asyncio.get_running_loop().create_task(self._finish_in_background(turn))
        name = turn.reply.response_id
        self._background[name] = task
        task.add_done_callback(lambda _: self._background.pop(name, None))
        exchange.answer_json(200, queued, self._headers())

    async def _finish_in_background(self, turn: Turn) -> None:
        try:
            await self._turns.tell(turn, _NoOutlet())
        except ApiError as error:
            failure = {"code": error.code or "server_error", "message": error.message}
            failed = {**turn.shown, "status": "failed", "error": failure}
            self._turns.store.put(turn.caller.owner, Stored(failed, list(turn.request.items)))

    # -- stored responses ----------------------------------------------------------------------

    async def _stored(self, exchange: Exchange, owner: str, tail: str) -> None:
        response_id, _, what = tail.partition("/")
        stored = self._turns.store.get(owner, unquote(response_id))
        if stored is None:
            raise ApiError(f"Response with id '{response_id}' not found.", status=404)
        match exchange.method, what:
            case "GET", "":
                await self._show(exchange, stored)
            case "GET", "input_items":
                exchange.answer_json(200, _item_list(stored), self._headers())
            case "DELETE", "":
                self._turns.store.delete(owner, response_id)
                gone = {"id": response_id, "object": "response", "deleted": True}
                exchange.answer_json(200, gone, self._headers())
            case "POST", "cancel":
                self._cancel(exchange, stored)
            case _:
                raise _no_route(exchange)

    async def _show(self, exchange: Exchange, stored: Stored) -> None:
        query = parse_qs(exchange.query)
        if query.get("stream") != ["true"]:
            exchange.answer_json(200, stored.response, self._headers())
            return
        after = int(query.get("starting_after", ["-1"])[0])
        exchange.start(200, [_SSE, *self._headers()])
        for number, event in enumerate(stored.replay()):
            if number > after:
                await exchange.write(sse({**event, "sequence_number": number}, self._rules))
        exchange.end()

    def _cancel(self, exchange: Exchange, stored: Stored) -> None:
        if not stored.response["background"]:
            raise ApiError("Cannot cancel a synchronous response.")
        task = self._background.get(stored.response["id"])
        if task is not None:
            task.cancel()
            stored.response = {**stored.response, "status": "cancelled"}
        exchange.answer_json(200, stored.response, self._headers())

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
        headers = [("etag", etag), *self._headers()]
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
            raise _no_route(exchange)
        exchange.answer_json(int(code), {"status": int(code)}, self._headers())

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
                raise _no_route(exchange)

    def stream_headers(self) -> list[tuple[str, str]]:
        """The head of an SSE answer."""
        return [_SSE, *self._headers()]

    def encode(self, event: Event) -> bytes:
        """One event of an SSE answer."""
        return sse(event, self._rules)


class _SseOutlet:
    """Tells a turn as SSE; the head leaves with the first event."""

    def __init__(self, rest: Rest, exchange: Exchange) -> None:
        self._rest = rest
        self._exchange = exchange
        self.has_started = False
        self.number = 0

    async def send(self, event: Event) -> None:
        """Number the event and write it."""
        if not self.has_started:
            self.has_started = True
            self._exchange.start(200, self._rest.stream_headers())
        event["sequence_number"] = self.number
        self.number += 1
        await self._exchange.write(self._rest.encode(event))

    async def perform(self, fault: Fault) -> None:
        """Perform a fault on order."""
        await _perform(self._exchange, fault)


class _JsonOutlet:
    """Waits for the end; only notices a client that has left."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    async def send(self, event: Event) -> None:
        """Nothing is told before the end."""
        if self._exchange.is_gone:
            raise GoneError

    async def perform(self, fault: Fault) -> None:
        """Perform a fault on order."""
        await _perform(self._exchange, fault)


class _NoOutlet:
    """Nobody listens to a background response."""

    async def send(self, event: Event) -> None:
        """Nothing is told."""
        await asyncio.sleep(0)

    async def perform(self, fault: Fault) -> None:
        """There is no transport to break."""


async def _perform(exchange: Exchange, fault: Fault) -> None:
    wire = exchange.wire
    match fault.what:
        case "reset":
            await wire.reset()
        case "eof" | "close" | "connection_error":
            wire.close()
        case "freeze":
            wire.freeze()
            await asyncio.get_running_loop().create_future()
        case "silence":
            await wire.wait_peer()
        case _:
            return
    raise GoneError


def _document(turn: Turn) -> dict[str, Any]:
    """The Response object of a JSON answer: `billing` comes after `background`."""
    done = turn.done
    if not done["output"] and turn.reply.status != "failed":
        done = {**done, "output": [draft.item for draft in turn.reply.drafts]}
    document: dict[str, Any] = {}
    for name, value in done.items():
        document[name] = value
        if name == "background":
            document["billing"] = {"payer": "developer"}
    return document


def _item_list(stored: Stored) -> dict[str, Any]:
    items = [
        item if "id" in item else {"id": f"in_{number}", **item}
        for number, item in enumerate(stored.input_items)
    ]
    ids = [item["id"] for item in items] or [None]
    return {
        "object": "list",
        "data": items[::-1],
        "first_id": ids[-1],
        "last_id": ids[0],
        "has_more": False,
    }


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


def _no_route(exchange: Exchange) -> ApiError:
    return ApiError(f"Invalid URL ({exchange.method} {exchange.path})", status=404)
