"""Anything that is not a turn: streamed to upstream and back, untouched.

Rules of this file
------------------
1. Nothing is kept: a part goes on as it comes, and is waited for as the other side takes it.
2. What breaks off upstream breaks off downstream, never with a clean end.
3. A client that leaves takes its upstream request with it (the handler is cancelled).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Final

from aiohttp import web

from wsproxy.core.accounts import NOT_SENT
from wsproxy.downstream.answers import TRY_AGAIN, ClientLeftError, RawAnswer, cut, refusal
from wsproxy.downstream.coding import IDLE_TIMEOUT_S, BodyError, body_chunks
from wsproxy.ports import Headers, Rest, RestError, RestResponse

STALL_TIMEOUT_S: Final = 300.0  # a client that takes nothing of a download; nginx says 60 s
_UNWIND_TIMEOUT_S: Final = 1.0


async def pass_through(
    request: web.BaseRequest,
    rest: Rest,
    *,
    idle_timeout_s: float = IDLE_TIMEOUT_S,
    stall_timeout_s: float = STALL_TIMEOUT_S,
) -> web.StreamResponse:
    """Relay one request and its answer; `idle_timeout_s` bounds the upload's silence."""
    upload = Upload(request, idle_timeout_s) if request.can_read_body else None
    try:
        response = await rest.send(request.method, request.raw_path, request.raw_headers, upload)
    except RestError as error:
        return _refused(error, upload)
    try:
        return await relay(request, response, stall_timeout_s=stall_timeout_s)
    finally:
        response.close()
        if upload is not None:
            await upload.unwind()


async def relay(
    request: web.BaseRequest,
    response: RestResponse,
    *,
    beside: Headers = (),
    stall_timeout_s: float = STALL_TIMEOUT_S,
    heard: Callable[[int], None] = lambda _size: None,
) -> RawAnswer:
    """Write an upstream answer to the client as it comes, with the headers `beside` upstream's.

    One that was cut has not `is_ended`. `heard` is told the size of each part that came. The
    caller closes `response`.
    """
    headers = [*response.headers, *beside]
    answer = RawAnswer(response.status, headers, reason=response.reason)
    await answer.prepare(request)
    try:
        async for chunk in response.chunks():
            heard(len(chunk))
            async with asyncio.timeout(stall_timeout_s):
                await answer.write(chunk)
        await answer.write_eof()
    except (RestError, ClientLeftError, TimeoutError, ValueError):
        await cut(request, is_framed=answer.is_framed)
    return answer


def upstream_refusal(error: RestError, *, headers: Headers = ()) -> RawAnswer:
    """The answer for a request that got none from upstream."""
    outcome = "not_sent" if error.code in NOT_SENT else "unknown"
    fields = [*headers, *TRY_AGAIN] if error.status == 503 else headers
    return refusal(error.status, error.code, str(error), headers=fields, outcome=outcome)


class Upload:
    """The client's body as an iterator that remembers why it failed."""

    def __init__(self, request: web.BaseRequest, idle_timeout_s: float) -> None:
        self._chunks = body_chunks(request, idle_timeout_s=idle_timeout_s)
        self._is_at_rest = asyncio.Event()
        self._is_at_rest.set()
        self.failure: BodyError | None = None

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        self._is_at_rest.clear()
        try:
            return await anext(self._chunks)
        except BodyError as error:
            self.failure = error
            raise
        finally:
            self._is_at_rest.set()

    async def unwind(self) -> None:
        """Wait until nobody reads any more, so that aiohttp can discard what is left."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_UNWIND_TIMEOUT_S):
                await self._is_at_rest.wait()


def _refused(error: RestError, upload: Upload | None) -> RawAnswer:
    if upload is not None and upload.failure is not None:
        return upload.failure.answer()
    return upstream_refusal(error)
