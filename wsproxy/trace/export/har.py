"""HTTP Archive 1.2: each turn as the HTTP exchange that the agent saw.

What HAR has no place for stands in members that begin with `_`, as the format allows. Sizes that
are not known are -1, times in milliseconds.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from importlib.metadata import version
from typing import Any, Final

from wsproxy.trace.reader import Session, Traces
from wsproxy.trace.record import Phases, TurnRecord

#: HAR's way to say that a phase did not apply, or that a size is not known.
UNKNOWN: Final = -1


def har(traces: Traces, sessions: Sequence[Session]) -> Iterator[str]:
    """One page a session, one entry a turn."""
    turns = sorted((turn for s in sessions for turn in s.turns), key=lambda turn: turn.at)
    log = {
        "version": "1.2",
        "creator": {"name": "wsproxy", "version": version("wsproxy")},
        "pages": [_page(session) for session in sessions],
        "entries": [_entry(traces, turn) for turn in turns],
    }
    yield json.dumps({"log": log}, indent=1)


def _page(session: Session) -> dict[str, Any]:
    return {
        "startedDateTime": _time(session.began_at),
        "id": session.id,
        "title": f"session {session.id}",
        "pageTimings": {"onContentLoad": UNKNOWN, "onLoad": UNKNOWN},
    }


def _entry(traces: Traces, turn: TurnRecord) -> dict[str, Any]:
    timings = _timings(turn.phases)
    run = traces.runs.get(turn.run)
    return {
        "pageref": turn.session,
        "startedDateTime": _time(turn.at),
        "time": sum(ms for ms in timings.values() if ms > 0),
        "request": _request(turn, run.upstream if run else ""),
        "response": _response(turn),
        "cache": {},
        "timings": timings,
        "connection": "" if turn.connection is None else f"{turn.connection}/{turn.lane}",
        "_route": turn.route,
        "_reason": turn.reason,
        "_bytesUp": turn.bytes_up,
        "_model": turn.model,
    }


def _request(turn: TurnRecord, upstream: str) -> dict[str, Any]:
    return {
        "method": "POST",
        "url": f"{upstream or 'https://upstream.invalid'}/responses",
        "httpVersion": "HTTP/1.1",
        "cookies": [],
        "headers": [],
        "queryString": [],
        "headersSize": UNKNOWN,
        "bodySize": turn.bytes_http,
    }


def _response(turn: TurnRecord) -> dict[str, Any]:
    status = turn.status or 0
    kind = "text/event-stream" if turn.is_streaming else "application/json"
    route = f"{turn.route}; reason={turn.reason}" if turn.reason else turn.route
    return {
        "status": status,
        "statusText": _phrase(status),
        "httpVersion": "HTTP/1.1",
        "cookies": [],
        "headers": [
            {"name": "x-wsproxy-turn", "value": turn.turn},
            {"name": "x-wsproxy-route", "value": route},
        ],
        "content": {"size": turn.bytes_down, "mimeType": kind},
        "redirectURL": "",
        "headersSize": UNKNOWN,
        "bodySize": turn.bytes_down,
    }


def _timings(phases: Phases) -> dict[str, float]:
    """Queued = blocked, the frame leaving = send, until the first event = wait, rest = receive."""
    done = phases.done or 0.0
    first = phases.first_event if phases.first_event is not None else done
    sent = phases.sent if phases.sent is not None else first
    placed = phases.placed if phases.placed is not None else sent
    return {
        "blocked": _ms(placed),
        "dns": UNKNOWN,
        "connect": UNKNOWN,
        "ssl": UNKNOWN,
        "send": _ms(sent - placed),
        "wait": _ms(first - sent),
        "receive": _ms(done - first),
    }


def _ms(seconds: float) -> float:
    return round(max(0.0, seconds) * 1000, 3)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
