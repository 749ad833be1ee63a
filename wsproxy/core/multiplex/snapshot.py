"""The pool as a table that can be printed: sessions, connections, keys. Read only.

Rules of this file
------------------
1. Keys and sessions are shown as 8 hex of their keyed digests, or under the names that the caller
   has for them (those of the trace folder); nothing here can be turned back.
2. Everything is a plain value: JSON holds it, and the console reads it back into these types.
3. Times are seconds before or after the moment of the snapshot, never points of a clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

import msgspec

from wsproxy.core.ids import PoolKey, SessionName
from wsproxy.core.multiplex.beliefs import Belief, Beliefs, Doubt
from wsproxy.core.multiplex.connection import Connection, State
from wsproxy.core.multiplex.turn import Turn

#: Rows of sessions and keys; a screen shows 50, and a scrape must not grow with every session.
MAX_ROWS: Final = 200


#: A name for a pool key, or for a pool key and a session.
Naming = Callable[..., str]


class SessionRow(msgspec.Struct, frozen=True, kw_only=True):
    """One session of one key. `session` may be "" for the key's default session.

    `lanes_max` and `in_flight_max` are summed over its connections. `no_websocket_s`: how long
    no WebSocket will be tried for it, 0 where one may be.
    """

    key: str
    session: str
    connections: int = 0
    age_s: float = 0.0
    lanes_used: int = 0
    lanes_max: int = 0
    in_flight: int = 0
    in_flight_max: int = 0
    queued: int = 0
    longest_wait_s: float = 0.0
    transport: str = "websocket"
    no_websocket_s: float = 0.0


class ConnectionRow(msgspec.Struct, frozen=True, kw_only=True):
    """One upstream WebSocket. `lanes`: on, off or unknown; `heard_s`: since its last byte in."""

    connection: int
    key: str
    sessions: Sequence[str]
    state: str
    age_s: float
    lanes: str
    lanes_used: int
    lanes_max: int
    lanes_warm: int
    in_flight: int
    in_flight_max: int
    heard_s: float
    is_probe: bool = False


class KeyRow(msgspec.Struct, frozen=True, kw_only=True):
    """What is believed for one identity (contract §3, §4). `fault`: why there is no WebSocket."""

    key: str
    lanes: str
    chains: str
    no_websocket_s: float = 0.0
    fault: str = ""
    stored_off_s: float = 0.0
    dial_failures: int = 0


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """Everything at one moment. `left_out` counts sessions and keys beyond `MAX_ROWS`."""

    turns: int
    queued: int
    longest_wait_s: float
    url_no_websocket_s: float
    sessions: Sequence[SessionRow]
    connections: Sequence[ConnectionRow]
    keys: Sequence[KeyRow]
    left_out: int = 0


def snapshot(
    connections: Sequence[Connection],
    turns: Iterable[Turn],
    beliefs: Beliefs,
    now: float,
    naming: Naming | None = None,
) -> Snapshot:
    """What there is at `now`; `turns` are all that run or wait."""
    name = naming or shown
    turns = list(turns)
    waits = _waits(turns, now)
    sessions = _sessions(connections, turns, beliefs, now, name)
    keys = [_key_row(name(key), belief, now) for key, belief in beliefs.shown().items()]
    return Snapshot(
        turns=len(turns),
        queued=len(waits),
        longest_wait_s=_seconds(max(waits, default=0.0)),
        url_no_websocket_s=_doubt_s(beliefs.url_doubt, now),
        sessions=sessions[:MAX_ROWS],
        connections=[_connection_row(connection, now, name) for connection in connections],
        keys=keys[:MAX_ROWS],
        left_out=max(0, len(sessions) - MAX_ROWS) + max(0, len(keys) - MAX_ROWS),
    )


def shown(*digests: bytes) -> str:
    """8 hex of the last one, a keyed digest; "" for the default session, which has none."""
    return digests[-1].hex()[:8]


def _sessions(
    connections: Sequence[Connection],
    turns: Sequence[Turn],
    beliefs: Beliefs,
    now: float,
    name: Naming,
) -> list[SessionRow]:
    """Those with the longest wait first, then the busiest."""
    own: dict[tuple[PoolKey, SessionName], tuple[list[Connection], list[Turn]]] = {}
    for connection in connections:
        if not connection.is_chain_probe:
            for session in connection.sessions:
                own.setdefault((connection.key, session), ([], []))[0].append(connection)
    for turn in turns:
        own.setdefault((turn.key, turn.session), ([], []))[1].append(turn)
    rows = [
        _session_row(
            (name(key), name(key, session)),
            theirs,
            running,
            _doubt_s(beliefs.doubt(key), now),
            now,
        )
        for (key, session), (theirs, running) in own.items()
    ]
    return sorted(rows, key=lambda row: (-row.longest_wait_s, -row.in_flight, row.age_s))


def _session_row(
    names: tuple[str, str],
    connections: Sequence[Connection],
    turns: Sequence[Turn],
    no_websocket_s: float,
    now: float,
) -> SessionRow:
    waits = _waits(turns, now)
    has_open = any(connection.state is not State.DIALLING for connection in connections)
    return SessionRow(
        key=names[0],
        session=names[1],
        connections=len(connections),
        age_s=_seconds(max((now - c.dialled_at for c in connections), default=0.0)),
        lanes_used=sum(len(c.lanes) for c in connections),
        lanes_max=sum(c.limits.max_lanes for c in connections),
        in_flight=sum(turn.connection is not None for turn in turns),
        in_flight_max=sum(c.capacity for c in connections),
        queued=len(waits),
        longest_wait_s=_seconds(max(waits, default=0.0)),
        transport="websocket" if has_open else "https" if no_websocket_s else "dialling",
        no_websocket_s=no_websocket_s,
    )


def _connection_row(connection: Connection, now: float, name: Naming) -> ConnectionRow:
    key = connection.key
    return ConnectionRow(
        connection=connection.id,
        key=name(key),
        sessions=sorted(name(key, session) for session in connection.sessions)[:MAX_ROWS],
        state=connection.state.name.lower(),
        age_s=_seconds(now - connection.dialled_at),
        lanes=connection.lanes_belief.name.lower(),
        lanes_used=len(connection.lanes),
        lanes_max=connection.limits.max_lanes,
        lanes_warm=sum(lane.warm is not None for lane in connection.lanes.values()),
        in_flight=connection.in_flight,
        in_flight_max=connection.capacity,
        heard_s=_seconds(min(now - connection.received_at, now - connection.dialled_at)),
        is_probe=connection.is_chain_probe,
    )


def _key_row(key: str, belief: Belief, now: float) -> KeyRow:
    return KeyRow(
        key=key,
        lanes=belief.lanes.name.lower(),
        chains=belief.chains.name.lower(),
        no_websocket_s=_doubt_s(belief.doubt, now),
        fault=belief.doubt.fault.value if belief.doubt is not None else "",
        stored_off_s=_left_s(belief.stored_off_until, now),
        dial_failures=belief.dial_failures,
    )


def _waits(turns: Iterable[Turn], now: float) -> list[float]:
    return [now - turn.queued_at for turn in turns if turn.connection is None]


def _doubt_s(doubt: Doubt | None, now: float) -> float:
    return 0.0 if doubt is None else _left_s(doubt.until, now)


def _left_s(until: float, now: float) -> float:
    return _seconds(max(0.0, until - now))


def _seconds(value: float) -> float:
    return round(value, 3)
