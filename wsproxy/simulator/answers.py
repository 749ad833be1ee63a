"""Turns over HTTP: the same reply as SSE, as one JSON document, or in the background.

Formats: protocol.md §9.1 (SSE), §9.2 (JSON), §9.3 (errors and headers).
"""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any, Final
from urllib.parse import parse_qs, unquote

from wsproxy.simulator.errors import ApiError, unknown_parameter
from wsproxy.simulator.faults import Fault
from wsproxy.simulator.frames import flat_error, sse
from wsproxy.simulator.http import Exchange
from wsproxy.simulator.noise import METADATA_HEADERS
from wsproxy.simulator.outputs import Event
from wsproxy.simulator.request import FRAME_ONLY, parse_object
from wsproxy.simulator.store import Stored
from wsproxy.simulator.turns import Caller, Outlet, Turn, Turns, items_as_done
from wsproxy.simulator.wire import GoneError

_LOOK_S: Final = 0.05  # between two looks whether the client is still there
_SSE: Final = ("content-type", "text/event-stream; charset=utf-8")


class Answers:
    """Answers everything at `<base>/responses`."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._rules = turns.rules
        self._count = 0
        self._background: dict[str, asyncio.Task[None]] = {}

    async def stop(self) -> None:
        """End background responses."""
        tasks = list(self._background.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def headers(self) -> list[tuple[str, str]]:
        """The headers of one answer of the API."""
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

    async def create(self, exchange: Exchange, owner: str, connection: int) -> None:
        """`POST /responses`. Raises `ApiError` where nothing was written yet."""
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
            await self._tell(turn, outlet, exchange)
        except ApiError as error:
            if not outlet.has_started:
                raise
            self._turns.note_refusal(dict(turn.request.fields), turn.caller, error)
            event = {**flat_error(error), "sequence_number": outlet.number}
            await exchange.write(sse(event, self._rules))
        exchange.end()

    async def _tell(self, turn: Turn, outlet: Outlet, exchange: Exchange) -> None:
        """Tell the turn, and end it when the client leaves while the model is silent."""
        task = asyncio.get_running_loop().create_task(self._turns.tell(turn, outlet))
        try:
            while not (await asyncio.wait({task}, timeout=_LOOK_S))[0]:
                if exchange.is_gone:
                    raise GoneError
            task.result()
        finally:
            task.cancel()

    async def _whole(self, exchange: Exchange, turn: Turn) -> None:
        outlet = _JsonOutlet(exchange)
        await self._tell(turn, outlet, exchange)
        exchange.answer_json(200, _document(turn), self.headers())

    def _begin_background(self, exchange: Exchange, turn: Turn) -> None:
        queued = {**turn.shown, "status": "queued"}
        stored = Stored(queued, list(turn.request.items))
        self._turns.store.put(turn.caller.owner, stored)
        task = asyncio.get_running_loop().create_task(self._finish_in_background(turn))
        name = turn.reply.response_id
        self._background[name] = task
        task.add_done_callback(lambda _: self._background.pop(name, None))
        exchange.answer_json(200, queued, self.headers())

    async def _finish_in_background(self, turn: Turn) -> None:
        try:
            await self._turns.tell(turn, _NoOutlet())
        except ApiError as error:
            failure = {"code": error.code or "server_error", "message": error.message}
            failed = {**turn.shown, "status": "failed", "error": failure}
            self._turns.store.put(turn.caller.owner, Stored(failed, list(turn.request.items)))

    # -- stored responses ----------------------------------------------------------------------

    async def stored(self, exchange: Exchange, owner: str, tail: str) -> None:
        """Anything at `/responses/{id}`. Raises `ApiError`."""
        response_id, _, what = tail.partition("/")
        stored = self._turns.store.get(owner, unquote(response_id))
        if stored is None:
            raise ApiError(f"Response with id '{response_id}' not found.", status=404)
        match exchange.method, what:
            case "GET", "":
                await self._show(exchange, stored)
            case "GET", "input_items":
                exchange.answer_json(200, _item_list(stored), self.headers())
            case "DELETE", "":
                self._turns.store.delete(owner, response_id)
                gone = {"id": response_id, "object": "response", "deleted": True}
                exchange.answer_json(200, gone, self.headers())
            case "POST", "cancel":
                self._cancel(exchange, stored)
            case _:
                raise no_route(exchange)

    async def _show(self, exchange: Exchange, stored: Stored) -> None:
        query = parse_qs(exchange.query)
        if query.get("stream") != ["true"]:
            exchange.answer_json(200, stored.response, self.headers())
            return
        after = int(query.get("starting_after", ["-1"])[0])
        exchange.start(200, [_SSE, *self.headers()])
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
        exchange.answer_json(200, stored.response, self.headers())

    def stream_headers(self) -> list[tuple[str, str]]:
        """The head of an SSE answer."""
        return [_SSE, *self.headers()]

    def encode(self, event: Event) -> bytes:
        """One event of an SSE answer."""
        return sse(event, self._rules)


class _SseOutlet:
    """Tells a turn as SSE; the head leaves with the first event."""

    def __init__(self, answers: Answers, exchange: Exchange) -> None:
        self._answers = answers
        self._exchange = exchange
        self.has_started = False
        self.number = 0

    async def send(self, event: Event) -> None:
        """Number the event and write it."""
        if not self.has_started:
            self.has_started = True
            self._exchange.start(200, self._answers.stream_headers())
        event["sequence_number"] = self.number
        self.number += 1
        await self._exchange.write(self._answers.encode(event))

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
    if not done["output"]:
        done = {**done, "output": items_as_done(turn.reply)}
    document: dict[str, Any] = {}
    for name, value in done.items():
        document[name] = value
        if name == "background":
            document["billing"] = {"payer": "developer"}
    return document


def no_route(exchange: Exchange) -> ApiError:
    """There is nothing at that method and path."""
    return ApiError(f"Invalid URL ({exchange.method} {exchange.path})", status=404)


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
