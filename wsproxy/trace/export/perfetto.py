"""Chrome trace events (JSON object form), which Perfetto and chrome://tracing open.

A session is a process, a turn a slice with its phases inside. Slices of one track must nest, so
turns that ran at once are given tracks of their own. Times are in microseconds.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, Final

from wsproxy.trace.reader import Session, Traces, connections_of
from wsproxy.trace.record import ConnectionRecord, TurnRecord

_PHASES: Final = ("matched", "placed", "sent", "first_event", "first_output", "done")
_SLICES: Final = {  # what happens until the phase of that name is reached
    "matched": "match",
    "placed": "queue",
    "sent": "send",
    "first_event": "wait for the first event",
    "first_output": "wait for output",
    "done": "output",
}
#: The process of the events that belong to no session.
_CONNECTIONS: Final = 1


def perfetto(traces: Traces, sessions: Sequence[Session]) -> Iterator[str]:
    """One JSON document."""
    events = [_name(_CONNECTIONS, 0, "process_name", "connections")]
    events += [_connection(record) for record in connections_of(traces, sessions)]
    for process, session in enumerate(sessions, start=_CONNECTIONS + 1):
        events += _session(process, session)
    yield json.dumps({"displayTimeUnit": "ms", "traceEvents": events})


def _session(process: int, session: Session) -> Iterator[dict[str, Any]]:
    yield _name(process, 0, "process_name", f"session {session.id}")
    busy_until: list[float] = []
    for turn in session.turns:
        free = [track for track, until in enumerate(busy_until) if until <= turn.at]
        track = free[0] if free else len(busy_until)
        busy_until[track : track + 1] = [turn.at + turn.took_s]
        if not free:
            yield _name(process, track + 1, "thread_name", f"turns {track + 1}")
        yield from _turn(process, track + 1, turn)


def _turn(process: int, track: int, turn: TurnRecord) -> Iterator[dict[str, Any]]:
    about = {
        "turn": turn.turn,
        "route": turn.route,
        "reason": turn.reason,
        "model": turn.model,
        "connection": turn.connection,
        "lane": turn.lane,
        "status": turn.status,
        "bytes_http": turn.bytes_http,
        "bytes_up": turn.bytes_up,
        "tokens_in": turn.tokens_in,
        "tokens_cached": turn.tokens_cached,
        "tokens_out": turn.tokens_out,
    }
    yield _slice(process, track, turn.route, turn.at, 0.0, turn.took_s, about)
    since = 0.0
    for phase in _PHASES:
        at: float | None = getattr(turn.phases, phase)
        if at is not None and at >= since:
            yield _slice(process, track, _SLICES[phase], turn.at, since, at, {})
            since = at


def _slice(
    process: int, track: int, name: str, origin: float, start: float, end: float, about: Any
) -> dict[str, Any]:
    return {
        "name": name,
        "cat": "turn",
        "ph": "X",
        "ts": round((origin + start) * 1e6, 1),
        "dur": round((end - start) * 1e6, 1),
        "pid": process,
        "tid": track,
        "args": about,
    }


def _connection(record: ConnectionRecord) -> dict[str, Any]:
    return {
        "name": f"connection {record.connection} {record.change}",
        "cat": "connection",
        "ph": "i",
        "s": "p",
        "ts": round(record.at * 1e6, 1),
        "pid": _CONNECTIONS,
        "tid": 0,
        "args": {"took_s": record.took_s, "fault": record.fault},
    }


def _name(process: int, track: int, what: str, name: str) -> dict[str, Any]:
    return {"name": what, "ph": "M", "pid": process, "tid": track, "args": {"name": name}}
