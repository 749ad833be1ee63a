"""Checks of upstream itself: key, clock, upgrade, compression, round trip, lanes, chains.

Rules of this file
------------------
1. Nothing here makes a model run: the one question that is asked names a response that cannot
   exist and forbids generation.
2. The key is sent where the daemon would send it, and shown nowhere.
"""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

import msgspec

from wsproxy.config import Settings
from wsproxy.core.api.errors import has_lost_parent, upstream_error
from wsproxy.core.api.events import Kind, Received, receive
from wsproxy.core.api.spans import EventError
from wsproxy.core.ids import ConnectionId
from wsproxy.core.wire.websocket import Pong
from wsproxy.doctor.finding import Finding, fail, left_out, ok, warn
from wsproxy.doctor.line import Line, Lost, Opened, Refused
from wsproxy.logs import clean
from wsproxy.ports import Headers, Link, RestError, RestResponse, Target
from wsproxy.upstream.dialer import Dialer
from wsproxy.upstream.proxy import Proxy
from wsproxy.upstream.rest import HttpsClient
from wsproxy.upstream.tls import client_context

#: Checks that need an open WebSocket, which needs a key.
BEHIND_THE_UPGRADE: Final = ("compression", "round trip", "lanes", "chains")
_ANSWER_TIMEOUT_S: Final = 10.0
_PINGS: Final = 3
#: Traces and `retry-after` dates are off by as much; TLS fails at days.
_CLOCK_WARN_S: Final = 30.0
_SHOWN_CHARS: Final = 1024
_LANE: Final = "l01"
_MODEL: Final = "gpt-5.6"  # where the list cannot be read; the question is refused before it counts


def headers_of(key: str | None) -> Headers:
    """What an SDK would send."""
    return [(b"Authorization", f"Bearer {key}".encode())] if key else []


# ── Over HTTPS ───────────────────────────────────────────────────────────────────────────────


async def check_models(
    settings: Settings, proxy: Proxy | None, key: str | None
) -> tuple[list[Finding], str]:
    """Key and clock, by way of the model list; and a model's name."""
    origin, base = split_base(settings.upstream)
    rest = HttpsClient(
        origin,
        proxy=proxy,
        tls=client_context(settings.upstream_ca_file),
        idle_timeout_s=_ANSWER_TIMEOUT_S,
    )
    try:
        response = await rest.send("GET", f"{base}/models", headers_of(key), None)
        try:
            body = b"".join([chunk async for chunk in response.chunks()])
        finally:
            response.close()
    except RestError as error:
        failed = fail("key", str(error), "see the lines above")
        return [failed, left_out("clock", "no answer")], _MODEL
    finally:
        await rest.close()
    return [_key(response, key, base), _clock(response)], _a_model(body)


def _key(response: RestResponse, key: str | None, base: str) -> Finding:
    if key is None:
        return left_out("key", "OPENAI_API_KEY is not set: what needs a key is left out")
    match response.status:
        case 200:
            return ok("key", "accepted for GET models")
        case 401 | 403:
            advice = "check OPENAI_API_KEY, and its rights to list models"
            return fail("key", f"GET models was answered with {response.status}", advice)
        case 404 if not base:
            text = "GET models was answered with 404"
            return fail("key", text, "upstream has no path: should it end in /v1?")
        case status:
            return warn("key", f"GET models was answered with {status}", "ask upstream's operator")


def _clock(response: RestResponse) -> Finding:
    dates = [value for name, value in response.headers if name.lower() == b"date"]
    try:
        theirs = parsedate_to_datetime(dates[0].decode("ascii"))
    except (IndexError, ValueError):
        return left_out("clock", "upstream tells no date")
    ahead_s = (datetime.now(UTC) - theirs).total_seconds()
    if abs(ahead_s) > _CLOCK_WARN_S:
        side = "ahead of" if ahead_s > 0 else "behind"
        return warn("clock", f"{abs(ahead_s):.0f} s {side} upstream's", "set the clock (NTP)")
    return ok("clock", "the same as upstream's")


def _a_model(body: bytes) -> str:
    try:
        found = msgspec.json.decode(body)["data"][0]["id"]
    except (ValueError, KeyError, IndexError, TypeError):
        return _MODEL
    return found if isinstance(found, str) else _MODEL


# ── Over the WebSocket ───────────────────────────────────────────────────────────────────────


async def check_websocket(settings: Settings, key: str | None, model: str) -> list[Finding]:
    """The upgrade, and all that is behind it."""
    line = Line()
    dialer = Dialer(
        dial_timeout_s=settings.dial_timeout_s,
        is_deflate_offered=settings.compression == "deflate",
        ca_file=settings.upstream_ca_file,
        proxy=settings.upstream_proxy,
        max_message_bytes=settings.max_message_bytes,
    )
    target = Target(websocket_url(settings.upstream), headers_of(key))
    begun = time.monotonic()
    link = dialer.dial(ConnectionId(1), target, line)
    outcome = await line.next(settings.dial_timeout_s + 2.0)
    took_ms = (time.monotonic() - begun) * 1000
    if not isinstance(outcome, Opened):
        assert isinstance(outcome, Refused)
        return [refused(outcome, key), *_left_out("no WebSocket" if key else "needs a key")]
    try:
        upgrade = ok("upgrade", f"101 ({took_ms:.0f} ms with DNS, TCP and TLS)")
        return [upgrade, _compression(settings, outcome), *await _questions(line, link, model)]
    finally:
        link.abort()


def _left_out(why: str) -> list[Finding]:
    return [left_out(name, why) for name in BEHIND_THE_UPGRADE]


def refused(outcome: Refused, key: str | None) -> Finding:
    """The upgrade was not accepted."""
    said = _one_line(outcome.body)
    if outcome.status is None:
        return fail("upgrade", outcome.detail, "turns go over HTTPS; see the lines above")
    text = f"answered with {outcome.status}: {said}" if said else f"answered {outcome.status}"
    match outcome.status:
        case 401 | 403 if key is None:
            return ok("upgrade", f"{outcome.status} without a key: the road is open")
        case 401 | 403:
            return fail("upgrade", text, "this key may not open WebSockets; turns go over HTTPS")
        case 404 | 405 | 426 | 501:
            advice = "no WebSocket at this URL (is the path right?); turns go over HTTPS"
            return fail("upgrade", text, advice)
        case 429:
            return warn("upgrade", text, "wait; turns go over HTTPS until then")
        case _:
            return fail("upgrade", text, "turns go over HTTPS until upstream recovers")


def _one_line(body: bytes) -> str:
    """What a refusal says: the message of an OpenAI error, else the body without its layout."""
    try:
        error = msgspec.json.decode(body)["error"]
        text = f"{error['message']} ({error.get('code') or error['type']})"
    except (ValueError, KeyError, TypeError, AttributeError):
        text = body.decode("utf-8", "replace")
    return str(clean(" ".join(text[:_SHOWN_CHARS].split())))


def _compression(settings: Settings, opened: Opened) -> Finding:
    if opened.is_compressed:
        return ok("compression", "permessage-deflate with context takeover")
    if settings.compression == "off":
        return warn("compression", "switched off", "set compression = deflate")
    return warn("compression", "upstream declined it", "nothing: frames go as they are")


async def _questions(line: Line, link: Link, model: str) -> list[Finding]:
    try:
        findings = [await _round_trip(line, link)]
    except _LineError as error:
        return [
            fail("round trip", str(error), "a middlebox that does not let pings pass?"),
            *(left_out(name, "no answer") for name in ("lanes", "chains")),
        ]
    try:
        return [*findings, *await _lanes_and_chains(line, link, model)]
    except _LineError as error:
        untold = [left_out(name, str(error)) for name in ("lanes", "chains")]
        return [*findings, *untold]


async def _round_trip(line: Line, link: Link) -> Finding:
    taken = []
    for _ in range(_PINGS):
        begun = time.monotonic()
        link.ping(b"")
        while not isinstance(await _next(line), Pong):
            pass
        taken.append(time.monotonic() - begun)
    return ok("round trip", f"{min(taken) * 1000:.1f} ms by ping, the best of {_PINGS}")


async def _lanes_and_chains(line: Line, link: Link, model: str) -> list[Finding]:
    """One question tells both: is `stream_id` echoed, are unknown ids refused?"""
    link.send(_question(model, _LANE), 1)
    answer = await _answer(line)
    if answer.kind is Kind.ERROR and "stream_id" in upstream_error(answer.payload).message:
        link.send(_question(model, None), 2)
        return [
            warn("lanes", "stream_id is refused", "nothing: one turn at a time a connection"),
            _chains(await _answer(line)),
        ]
    if answer.stream_id == _LANE:
        return [ok("lanes", "stream_id is echoed: up to 16 turns at once"), _chains(answer)]
    text = "stream_id is not echoed"
    return [warn("lanes", text, "nothing: one turn at a time a connection"), _chains(answer)]


def _chains(answer: Received) -> Finding:
    if answer.kind is not Kind.ERROR:
        advice = "nothing: every turn goes in full"
        return warn("chains", "an unknown previous_response_id was not refused", advice)
    error = upstream_error(answer.payload)
    if has_lost_parent(error):
        return ok("chains", "previous_response_id is looked up: turns can go as deltas")
    said = clean(f"{error.status} {error.code or ''} {error.message}")
    return warn("chains", f"the question was answered with {said}", "every turn goes in full")


def _question(model: str, lane: str | None) -> bytes:
    question = {
        "type": "response.create",
        "model": model,
        "input": [{"type": "message", "role": "user", "content": "."}],
        "previous_response_id": f"resp_{os.urandom(24).hex()}",
        "store": False,
        "generate": False,
    }
    return msgspec.json.encode(question | ({"stream_id": lane} if lane else {}))


class _LineError(Exception):
    """The line gave out."""


async def _next(line: Line) -> object:
    try:
        event = await line.next(_ANSWER_TIMEOUT_S)
    except TimeoutError:
        raise _LineError(f"nothing within {_ANSWER_TIMEOUT_S:.0f} s") from None
    if isinstance(event, Lost):
        raise _LineError(f"the connection ended: {event.detail or event.fault.what}")
    return event


async def _answer(line: Line) -> Received:
    """The first event of the response family, or an error."""
    while True:
        event = await _next(line)
        if not isinstance(event, bytes):
            continue
        try:
            received = receive(event)
            if received.kind is Kind.ERROR:
                upstream_error(event)  # raises for one that cannot be read
        except EventError:
            raise _LineError("what came is no event") from None
        if received.kind is not Kind.CONNECTION:
            return received


# ── URLs ─────────────────────────────────────────────────────────────────────────────────────


def split_base(url: str) -> tuple[str, str]:
    """Origin and path of the upstream URL."""
    scheme, _, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host}", f"{slash}{path}".rstrip("/")


def websocket_url(url: str) -> str:
    """Where its WebSocket is."""
    return f"ws{url.removeprefix('http').rstrip('/')}/responses"
