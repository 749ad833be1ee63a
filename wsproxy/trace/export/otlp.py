"""OTLP/HTTP JSON: a trace a session, a client span a turn, in the GenAI conventions.

Ids are hex and 64-bit numbers are strings, as the OTLP JSON encoding asks (OpenTelemetry protocol
1.5, "JSON Protobuf Encoding"). `send` posts it to a collector.
"""

from __future__ import annotations

import hashlib
import json
import socket
import ssl
from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from http.client import HTTPException
from importlib.metadata import version
from typing import Any, Final
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from wsproxy.trace.reader import Session, TraceError, Traces
from wsproxy.trace.record import Phases, TurnRecord
from wsproxy.trace.report import is_failed

_CLIENT: Final = 3  # SpanKind
_STATUS_UNSET, _STATUS_ERROR = 0, 2
_PHASES: Final = ("matched", "placed", "sent", "first_event", "first_output")
#: How long a collector may take.
SEND_TIMEOUT_S: Final = 10.0

Value = str | int | float | bool | None


def otlp(traces: Traces, sessions: Sequence[Session]) -> Iterator[str]:
    """One `ExportTraceServiceRequest`."""
    turns = [turn for session in sessions for turn in session.turns]
    upstreams = {name: run.upstream for name, run in traces.runs.items()}
    yield document([span(turn, upstreams.get(turn.run, "")) for turn in turns])


def document(spans: Sequence[Mapping[str, Any]]) -> str:
    """One `ExportTraceServiceRequest` of these spans."""
    scope = {"name": "wsproxy", "version": version("wsproxy")}
    resource = _attributes({"service.name": "wsproxy", "service.version": version("wsproxy")})
    return json.dumps(
        {
            "resourceSpans": [
                {
                    "resource": {"attributes": resource},
                    "scopeSpans": [{"scope": scope, "spans": spans}],
                }
            ]
        }
    )


def span(turn: TurnRecord, upstream: str) -> dict[str, Any]:
    """One turn as a client span; `upstream`: the URL it went to, "" if that is not known."""
    return {
        "traceId": _id(turn.run, turn.session, size=16),
        "spanId": _id(turn.run, turn.turn, size=8),
        "name": f"chat {turn.model}".strip(),
        "kind": _CLIENT,
        "startTimeUnixNano": _nanoseconds(turn.at),
        "endTimeUnixNano": _nanoseconds(turn.at + turn.took_s),
        "attributes": _attributes(_about(turn, upstream)),
        "events": list(_events(turn.at, turn.phases)),
        "status": {"code": _STATUS_ERROR if is_failed(turn) else _STATUS_UNSET},
    }


def _about(turn: TurnRecord, upstream: str) -> Mapping[str, Value]:
    host, port = _address(upstream)
    return {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai" if host == "api.openai.com" else "_OTHER",
        "gen_ai.request.model": turn.model or None,
        "gen_ai.conversation.id": _conversation(turn),
        "gen_ai.output.type": None,
        "gen_ai.usage.input_tokens": turn.tokens_in,
        "gen_ai.usage.output_tokens": turn.tokens_out,
        "gen_ai.usage.cache_read.input_tokens": turn.tokens_cached,
        "server.address": host,
        "server.port": port,
        "http.response.status_code": turn.status,
        "error.type": (turn.code or turn.outcome) if is_failed(turn) else None,
        "wsproxy.turn": turn.turn,
        "wsproxy.session": turn.session,
        "wsproxy.route": turn.route,
        "wsproxy.reason": turn.reason or None,
        "wsproxy.connection": turn.connection,
        "wsproxy.lane": turn.lane or None,
        "wsproxy.bytes_http": turn.bytes_http,
        "wsproxy.bytes_up": turn.bytes_up,
        "wsproxy.bytes_down": turn.bytes_down,
        "wsproxy.events": turn.events,
        "wsproxy.retries": turn.retries,
    }


def _address(upstream: str) -> tuple[str | None, int | None]:
    """Host and port; neither out of a damaged journal."""
    try:
        where = urlsplit(upstream)
        return where.hostname, where.port
    except ValueError:
        return None, None


def _conversation(turn: TurnRecord) -> str | None:
    return None if turn.conversation is None else f"{turn.run}-{turn.conversation}"


def _events(origin: float, phases: Phases) -> Iterator[dict[str, Any]]:
    for name in _PHASES:
        at: float | None = getattr(phases, name)
        if at is not None:
            yield {"name": f"wsproxy.{name}", "timeUnixNano": _nanoseconds(origin + at)}


def _attributes(values: Mapping[str, Value]) -> list[dict[str, Any]]:
    return [{"key": key, "value": _value(v)} for key, v in values.items() if v is not None]


def _value(value: Value) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    return {"stringValue": value}


def _id(*parts: str, size: int) -> str:
    return hashlib.blake2b("/".join(parts).encode(), digest_size=size).hexdigest()


def _nanoseconds(at: float) -> str:
    return str(round(at * 1e6) * 1000)


def send(document: str, url: str) -> None:
    """Post one document to a collector's traces endpoint. Raises `TraceError`."""
    if not _is_web_address(url):
        raise TraceError(f"{url!a} is no http or https URL", _EXAMPLE)
    request = Request(url, document.encode(), {"Content-Type": "application/json"})
    try:
        with urlopen(request, timeout=SEND_TIMEOUT_S):
            return
    except HTTPError as error:
        error.close()
        raise _refusal(url, error.code) from None
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise TraceError(
            f"the collector at {url} cannot be reached: {_why(reason)}", _IS_IT
        ) from None


_EXAMPLE: Final = "such as http://127.0.0.1:4318/v1/traces"
_IS_IT: Final = "is it running, and is it OTLP over HTTP that it takes at this host and port?"


def _is_web_address(url: str) -> bool:
    try:
        where = urlsplit(url)
        return where.scheme in ("http", "https") and bool(where.hostname) and where.port != 0
    except ValueError:
        return False


def _refusal(url: str, status: int) -> TraceError:
    phrase = HTTPStatus(status).phrase if status in set(HTTPStatus) else ""
    problem = f"the collector at {url} did not take it: it answered {status} {phrase}".rstrip()
    if status in (404, 405):
        return TraceError(problem, f"check the path: most take traces at /v1/traces, {_EXAMPLE}")
    if status in (401, 403):
        return TraceError(problem, "it wants credentials: send through a collector that does not")
    return TraceError(problem, "its own log may say why")


def _why(reason: object) -> str:
    """An error of the network in words, without its number."""
    match reason:
        case ConnectionRefusedError():
            return "nothing listens there"
        case TimeoutError():
            return f"no answer within {SEND_TIMEOUT_S:.0f} s"
        case socket.gaierror():
            return "its name is not known"
        case ssl.SSLCertVerificationError():
            return f"its certificate could not be verified ({reason.verify_message})"
        case ssl.SSLError():
            return "no TLS could be agreed on"
        case OSError() if reason.strerror:
            return reason.strerror
        case _:
            return str(reason) or type(reason).__name__
