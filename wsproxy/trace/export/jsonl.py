"""The records themselves, one JSON object a line, only ASCII."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import msgspec

from wsproxy.trace.reader import Session, Traces, connections_of
from wsproxy.trace.record import ConnectionRecord, TurnRecord


def jsonl(traces: Traces, sessions: Sequence[Session]) -> Iterator[str]:
    """Turns with their connections, by time."""
    records: list[TurnRecord | ConnectionRecord] = [*connections_of(traces, sessions)]
    records += (turn for session in sessions for turn in session.turns)
    for record in sorted(records, key=lambda record: record.at):
        yield json.dumps(msgspec.to_builtins(record))
