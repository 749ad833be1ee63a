"""The fault table: what went wrong × how far the turn got → what is done.

Rules of this file
------------------
1. One row a decision. A new fault is a new row, never a new branch elsewhere.
2. The table is total: every (Fault, Phase) has a verdict, `Unreachable` included.
3. A turn is sent again only where it is provable that upstream did not run it.
4. Nothing here waits, logs or knows a socket.

`python -m wsproxy.core.multiplex.recovery` prints it as `docs/guarantees.md`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final, NamedTuple


class Phase(Enum):
    """How far one turn got upstream; it only ever moves to the right."""

    ADMITTED = auto()  # the frame has not wholly left our buffers
    SENT = auto()  # the last byte of the frame has left our buffers
    STARTED = auto()  # an event attributed to the turn has arrived
    FINISHED = auto()  # its terminal event has arrived


class Fault(Enum):
    """What can go wrong; the value is the row of the fault matrix, `what` says it in words."""

    what: str

    def __new__(cls, row: str, what: str) -> Fault:
        fault = object.__new__(cls)
        fault._value_ = row
        fault.what = what
        return fault

    # Transport
    CONNECTION_RESET = "F01", "TCP reset"
    CONNECTION_ENDED = "F02", "TCP ends without a close frame (1006)"
    WRITE_FAILED = "F03", "a write fails, transport known closed before the first byte"
    PATH_DEAD = "F04", "path dead: sent bytes unacknowledged past TCP_USER_TIMEOUT"
    PONG_MISSING = "F05", "pong missing, path alive"
    FIRST_EVENT_TIMEOUT = "F06", "no first event within the limit"
    IDLE_TIMEOUT = "F07", "silence between two events past the limit"
    # Close frames
    CLOSED_NORMALLY = "F08", "close 1000, 1001, or a code not named below"
    CLOSED_POLICY = "F09", "close 1008: policy"
    CLOSED_TOO_BIG = "F10", "close 1009: message too big"
    CLOSED_INTERNAL = "F11", "close 1011: internal error"
    CLOSED_RESTARTING = "F12", "close 1012, 1013: restarting, try later"
    CLOSED_BLAMING_US = "F13", "close 1002, 1003, 1007: our frame is blamed"
    # Bytes we cannot accept
    MESSAGE_TOO_BIG = "F14", "message past our limit"
    MALFORMED_FRAME = "F15", "malformed, masked or reserved-bit frame"
    UNNEGOTIATED_COMPRESSION = "F16", "compressed frame without negotiation"
    INVALID_UTF8 = "F17", "invalid UTF-8"
    INVALID_EVENT = "F18", "not one JSON object with a usable `type`"
    BINARY_MESSAGE = "F19", "binary message"
    UNKNOWN_EVENT_TYPE = "F20", "unknown event type on a known lane"
    UNATTRIBUTABLE_EVENT = "F21", "event on a lane we did not give, or on none while lanes are used"
    LATE_EVENT = "F22", "event after the terminal one, nothing in flight on its lane"
    SEQUENCE_GAP = "F23", "`sequence_number` with a gap or a repeat"
    # Verdicts from upstream
    PREVIOUS_RESPONSE_NOT_FOUND = "F24", "`previous_response_not_found`"
    CONNECTION_LIMIT_REACHED = "F25", "`websocket_connection_limit_reached`"
    STREAM_LIMIT_REACHED = "F26", "`websocket_stream_limit_reached`, `invalid_stream_id`"
    RATE_LIMITED = "F27", "429"
    SERVER_ERROR = "F28", "5xx"
    REQUEST_REFUSED = "F29", "any other 4xx"
    ERROR_WITHOUT_LANE = "F30", "error that names no lane while several turns are in flight"
    RESPONSE_NOT_COMPLETED = "F31", "`response.failed`, `response.incomplete`"
    # Getting a connection
    UNREACHABLE = "F32", "DNS failure; TCP refused, no route, timeout"
    TLS_FAILED = "F33", "TLS: certificate, host name, protocol"
    UPGRADE_UNAUTHORIZED = "F34", "upgrade answered 401, 403"
    UPGRADE_UNSUPPORTED = "F35", "upgrade answered 404, 405, 426, 501, 3xx, or with an odd 101"
    UPGRADE_RATE_LIMITED = "F36", "upgrade answered 429"
    UPGRADE_FAILED = "F37", "upgrade answered 5xx or anything else"
    # Downstream
    CLIENT_LEFT = "F38", "client disconnects"
    CLIENT_SLOW = "F39", "client reads slowly"
    CLIENT_PIPELINED = "F40", "client pipelines requests"
    CLIENT_REPEATED = "F41", "the same request again while the first runs"
    # Ourselves
    DRAINING = "F42", "SIGTERM, SIGINT"
    KILLED = "F43", "SIGKILL, out of memory, power"
    TRACE_UNWRITABLE = "F44", "traces cannot be written"
    SLEPT = "F45", "clock jump, laptop sleep"
    OUT_OF_DESCRIPTORS = "F46", "out of file descriptors"
    OVERLOADED = "F47", "event loop stalled, or the cap of all buffers reached"


class Fate(Enum):
    """What becomes of the connection on which a fault is seen."""

    KEEP = "kept"
    RETIRE = "retired"  # no new turns, closed when empty
    CLOSE = "closed"


class Condition(Enum):
    """Facts that a cell may turn on; the caller passes those that hold."""

    SOLE_SENT_TURN = "it is the connection's only turn SENT"
    NAMED = "the frame names the turn's lane"
    OUR_ID = "the `previous_response_id` was ours"
    OUR_DELTA = "the turn is a delta or fork of ours, the status 400, 404, 409, 413 or 422"
    DEADLINE_PASSED = "the drain deadline has passed"
    BUFFER_FULL = "its buffer is over the hard limit and the client takes nothing"
    LARGEST_BUFFER = "it has the largest buffer of all"
    RETRIES_SPENT = "the turn has used up its retries of this kind"


class Where(Enum):
    """Where a turn is sent again."""

    ELSEWHERE = "on another connection"
    SAME_CONNECTION = "on the same connection"
    NEW_CONNECTION = "on a new connection"
    OTHER_LANE = "on another lane"


# Verdicts ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FallBack:
    """Send the same request over HTTPS and relay that answer, or its failure (502, 504)."""


@dataclass(frozen=True, slots=True)
class Relay:
    """Pass on what upstream says: as an HTTP status before the first event, in the stream after."""


@dataclass(frozen=True, slots=True)
class Refuse:
    """Answer with an HTTP error of ours; nothing had been written.

    `is_outcome_unknown`: upstream may have run it, told in `x-wsproxy-outcome: unknown`.
    """

    status: int
    code: str
    is_outcome_unknown: bool = False
    retry_after_s: int | None = None  # with it goes `x-should-retry: true`


@dataclass(frozen=True, slots=True)
class Break:
    """Streaming: flat SSE `error` event, then TCP abort. Not streaming: 502 with the code."""

    code: str


@dataclass(frozen=True, slots=True)
class Ignore:
    """This turn is not touched by the fault."""


@dataclass(frozen=True, slots=True)
class Wait:
    """The turn goes on; if that is hopeless, `until` is the fault that will tell."""

    until: Fault


@dataclass(frozen=True, slots=True)
class Drop:
    """Forget the turn: nobody waits for it and nothing was sent."""


@dataclass(frozen=True, slots=True)
class Abandon:
    """Cut the client if it is there; close the connection if no other turn needs it, else drain."""


@dataclass(frozen=True, slots=True)
class Lost:
    """The process is gone: the client sees a reset, and a restart needs nothing from disk."""


@dataclass(frozen=True, slots=True)
class Unreachable:
    """The matrix says this cannot be: meeting it is a bug of ours."""


@dataclass(frozen=True, slots=True)
class Retry:
    """Send the turn again, in full, where it is provable that upstream did not run it.

    `spent` is the verdict of a turn whose retries are used up: a few connections that died under
    it while ADMITTED (`turn.MAX_ATTEMPTS`), or one refusal.
    """

    where: Where = Where.ELSEWHERE
    after_backoff: bool = False
    is_our_bug: bool = False  # to be logged as one
    spent: FallBack | Relay = field(default_factory=FallBack)


Verdict = (
    Retry | FallBack | Relay | Refuse | Break | Ignore | Wait | Drop | Abandon | Lost | Unreachable
)


@dataclass(frozen=True, slots=True)
class If:
    """A cell that depends on one fact."""

    condition: Condition
    then: Verdict
    otherwise: Verdict | If


Cell = Verdict | If


# The table ---------------------------------------------------------------------------------


class _Row(NamedTuple):
    fate: Fate
    admitted: Cell
    sent: Cell
    started: Cell
    finished: Cell


_KEEP, _RETIRE, _CLOSE = Fate.KEEP, Fate.RETIRE, Fate.CLOSE
_NA = Unreachable()
_OK = Ignore()
_RETRY = Retry()
_HTTPS = FallBack()
_RELAY = Relay()
_UNKNOWN_502 = Refuse(502, "upstream_outcome_unknown", is_outcome_unknown=True)
_UNKNOWN_503 = Refuse(503, "upstream_outcome_unknown", is_outcome_unknown=True)
_UNKNOWN_504 = Refuse(504, "upstream_outcome_unknown", is_outcome_unknown=True)
_GARBAGE = Refuse(502, "upstream_protocol_error", is_outcome_unknown=True)
_OUR_BUG = Refuse(502, "proxy_bug", is_outcome_unknown=True)
_OVERLOADED = Refuse(503, "proxy_overloaded", retry_after_s=1)
_DRAINING = Refuse(503, "proxy_draining", retry_after_s=1)
_CUT = Break("upstream_disconnected")
_STALLED = Break("upstream_timeout")
_GARBLED = Break("upstream_protocol_error")
# Limits of the WebSocket mean nothing to an HTTP client, and HTTPS has none of them.
_AFRESH = Retry(Where.NEW_CONNECTION)
_OTHER_LANE = Retry(Where.OTHER_LANE, is_our_bug=True)
_IN_FULL = Retry(Where.SAME_CONNECTION, spent=Relay())
_SLOW = If(Condition.BUFFER_FULL, Abandon(), _OK)


def _late(verdict: Verdict) -> If:
    return If(Condition.DEADLINE_PASSED, verdict, _OK)


_ROWS: Final[Mapping[Fault, _Row]] = {
    # Transport
    Fault.CONNECTION_RESET: _Row(_CLOSE, _RETRY, _UNKNOWN_502, _CUT, _OK),
    Fault.CONNECTION_ENDED: _Row(_CLOSE, _RETRY, _UNKNOWN_502, _CUT, _OK),
    Fault.WRITE_FAILED: _Row(_CLOSE, _RETRY, _NA, _CUT, _OK),
    Fault.PATH_DEAD: _Row(_CLOSE, _RETRY, _UNKNOWN_504, _STALLED, _OK),
    Fault.PONG_MISSING: _Row(
        _KEEP, _RETRY, Wait(Fault.FIRST_EVENT_TIMEOUT), Wait(Fault.IDLE_TIMEOUT), _OK
    ),
    Fault.FIRST_EVENT_TIMEOUT: _Row(_RETIRE, _NA, _UNKNOWN_504, _NA, _NA),
    Fault.IDLE_TIMEOUT: _Row(_RETIRE, _NA, _NA, _STALLED, _OK),
    # Close frames
    Fault.CLOSED_NORMALLY: _Row(_CLOSE, _RETRY, _UNKNOWN_502, _CUT, _OK),
    Fault.CLOSED_POLICY: _Row(_CLOSE, _HTTPS, _UNKNOWN_502, _CUT, _OK),
    # RFC 6455 §7.4.1: 1009 means that the message was not processed; but which one?
    Fault.CLOSED_TOO_BIG: _Row(
        _CLOSE, _HTTPS, If(Condition.SOLE_SENT_TURN, _HTTPS, _UNKNOWN_502), _CUT, _OK
    ),
    Fault.CLOSED_INTERNAL: _Row(_CLOSE, _RETRY, _UNKNOWN_502, _CUT, _OK),
    Fault.CLOSED_RESTARTING: _Row(_CLOSE, Retry(after_backoff=True), _UNKNOWN_503, _CUT, _OK),
    Fault.CLOSED_BLAMING_US: _Row(
        _CLOSE, Retry(is_our_bug=True), _OUR_BUG, Break("proxy_bug"), _OK
    ),
    # Bytes we cannot accept
    Fault.MESSAGE_TOO_BIG: _Row(_CLOSE, _RETRY, _GARBAGE, _GARBLED, _OK),
    Fault.MALFORMED_FRAME: _Row(_CLOSE, _RETRY, _GARBAGE, _GARBLED, _OK),
    Fault.UNNEGOTIATED_COMPRESSION: _Row(_CLOSE, _RETRY, _GARBAGE, _GARBLED, _OK),
    Fault.INVALID_UTF8: _Row(_CLOSE, _RETRY, _GARBAGE, _GARBLED, _OK),
    Fault.INVALID_EVENT: _Row(_CLOSE, _RETRY, _GARBAGE, _GARBLED, _OK),
    Fault.BINARY_MESSAGE: _Row(_CLOSE, _RETRY, _GARBAGE, _GARBLED, _OK),
    Fault.UNKNOWN_EVENT_TYPE: _Row(_KEEP, _NA, _RELAY, _RELAY, _OK),
    Fault.UNATTRIBUTABLE_EVENT: _Row(_CLOSE, _RETRY, _GARBAGE, _GARBLED, _OK),
    Fault.LATE_EVENT: _Row(_RETIRE, _OK, _NA, _NA, _OK),
    Fault.SEQUENCE_GAP: _Row(_KEEP, _NA, _RELAY, _RELAY, _NA),
    # Verdicts from upstream
    Fault.PREVIOUS_RESPONSE_NOT_FOUND: _Row(
        _KEEP, _NA, If(Condition.OUR_ID, _IN_FULL, _RELAY), _GARBLED, _OK
    ),
    Fault.CONNECTION_LIMIT_REACHED: _Row(
        _RETIRE,
        _RETRY,
        If(Condition.NAMED, _AFRESH, If(Condition.SOLE_SENT_TURN, _AFRESH, _UNKNOWN_502)),
        Wait(Fault.CONNECTION_ENDED),
        _OK,
    ),
    Fault.STREAM_LIMIT_REACHED: _Row(_RETIRE, _RETRY, _OTHER_LANE, _GARBLED, _OK),
    Fault.RATE_LIMITED: _Row(_KEEP, _NA, _RELAY, _RELAY, _OK),
    Fault.SERVER_ERROR: _Row(_KEEP, _NA, _RELAY, _RELAY, _OK),
    Fault.REQUEST_REFUSED: _Row(_KEEP, _NA, If(Condition.OUR_DELTA, _IN_FULL, _RELAY), _RELAY, _OK),
    Fault.ERROR_WITHOUT_LANE: _Row(
        _RETIRE, _RETRY, _UNKNOWN_502, Wait(Fault.CONNECTION_ENDED), _OK
    ),
    Fault.RESPONSE_NOT_COMPLETED: _Row(_KEEP, _NA, _RELAY, _RELAY, _NA),
    # Getting a connection
    Fault.UNREACHABLE: _Row(_CLOSE, _HTTPS, _NA, _NA, _NA),
    # No fallback: whoever forged a certificate would get the key over HTTPS.
    Fault.TLS_FAILED: _Row(_CLOSE, Refuse(502, "upstream_tls"), _UNKNOWN_502, _CUT, _OK),
    Fault.UPGRADE_UNAUTHORIZED: _Row(_CLOSE, _HTTPS, _NA, _NA, _NA),
    Fault.UPGRADE_UNSUPPORTED: _Row(_CLOSE, _HTTPS, _NA, _NA, _NA),
    Fault.UPGRADE_RATE_LIMITED: _Row(_CLOSE, _HTTPS, _NA, _NA, _NA),
    Fault.UPGRADE_FAILED: _Row(_CLOSE, _HTTPS, _NA, _NA, _NA),
    # Downstream
    Fault.CLIENT_LEFT: _Row(_KEEP, Drop(), Abandon(), Abandon(), _OK),
    Fault.CLIENT_SLOW: _Row(_KEEP, _NA, _SLOW, _SLOW, _SLOW),
    Fault.CLIENT_PIPELINED: _Row(_KEEP, _OK, _OK, _OK, _OK),
    Fault.CLIENT_REPEATED: _Row(_KEEP, _OK, _OK, _OK, _OK),
    # Ourselves
    Fault.DRAINING: _Row(
        _KEEP, _late(_DRAINING), _late(_UNKNOWN_503), _late(Break("proxy_draining")), _OK
    ),
    Fault.KILLED: _Row(_CLOSE, Lost(), Lost(), Lost(), Lost()),
    Fault.TRACE_UNWRITABLE: _Row(_KEEP, _OK, _OK, _OK, _OK),
    Fault.SLEPT: _Row(
        _RETIRE, Wait(Fault.PONG_MISSING), Wait(Fault.PATH_DEAD), Wait(Fault.PATH_DEAD), _OK
    ),
    Fault.OUT_OF_DESCRIPTORS: _Row(_KEEP, _OVERLOADED, _OK, _OK, _OK),
    Fault.OVERLOADED: _Row(
        _KEEP, _OVERLOADED, _OK, If(Condition.LARGEST_BUFFER, Abandon(), _OK), _OK
    ),
}

RECOVERY: Final[Mapping[tuple[Fault, Phase], Cell]] = {
    (fault, phase): cell
    for fault, row in _ROWS.items()
    for phase, cell in zip(Phase, row[1:], strict=True)
}

CONNECTION_FATE: Final[Mapping[Fault, Fate]] = {fault: row.fate for fault, row in _ROWS.items()}

#: What our close frame says where it is we who close (RFC 6455 §7.4.1); elsewhere 1000.
CLOSE_CODE: Final[Mapping[Fault, int]] = {
    Fault.MESSAGE_TOO_BIG: 1009,
    Fault.MALFORMED_FRAME: 1002,
    Fault.UNNEGOTIATED_COMPRESSION: 1002,
    Fault.INVALID_UTF8: 1007,
    Fault.BINARY_MESSAGE: 1003,
}


#: The conditions that hold for one turn when a fault meets it.
Facts = frozenset[Condition]
NO_FACTS: Final = Facts()


def verdict(fault: Fault, phase: Phase, facts: Facts = NO_FACTS) -> Verdict:
    """What is done with a turn of this phase, given what holds for it."""
    cell = RECOVERY[fault, phase]
    while isinstance(cell, If):
        cell = cell.then if cell.condition in facts else cell.otherwise
    if isinstance(cell, Retry) and Condition.RETRIES_SPENT in facts:
        return cell.spent
    return cell


# Printing ----------------------------------------------------------------------------------

_PREFACE: Final = """# What happens when things break

Generated by `python -m wsproxy.core.multiplex.recovery`; `tests/core/test_recovery.py` fails if
this page and the table differ.

**Rule of rules.** A turn is sent again only if it is provable that upstream did not run it: no
whole frame left us, or upstream refused it in a frame that names it, or the upgrade was refused.
Everything else is told to the client, who decides. A terminal event is only ever one that
upstream sent.

A turn is ADMITTED until the last byte of its frame has left our buffers, then SENT until its
first event, then STARTED until its terminal event, then FINISHED. *cannot be* is asserted: to
meet it is a bug.
"""


def in_words(cell: Cell) -> str:
    """One cell as a reader of the table sees it."""
    match cell:
        case If(condition, then, otherwise):
            return f"if {condition.value}: {in_words(then)}; else {in_words(otherwise)}"
        case Retry(where, after_backoff, is_our_bug):
            notes = " after backoff" * after_backoff + ", logged as our bug" * is_our_bug
            return f"Retry {where.value}{notes}"
        case Refuse(status, code):
            return f"Refuse {status} `{code}`"
        case Break(code):
            return f"Break `{code}`"
        case Wait(until):
            return f"Wait, {until.value} decides"
        case Unreachable():
            return "*cannot be*"
        case _:
            return type(cell).__name__


def guarantees() -> str:
    """The whole table as Markdown."""
    columns = " | ".join(phase.name for phase in Phase)
    lines = [_PREFACE, f"| # | fault | connection | {columns} |", "|---|---|---|---|---|---|---|"]
    for fault, row in _ROWS.items():
        cells = " | ".join(in_words(cell) for cell in row[1:])
        lines.append(f"| {fault.value} | {fault.what} | {row.fate.value} | {cells} |")
    lines.append("\n| verdict | means |\n|---|---|")
    for kind in (Retry, FallBack, Relay, Refuse, Break, Ignore, Wait, Drop, Abandon, Lost):
        sentence = (kind.__doc__ or "").partition("\n")[0]
        lines.append(f"| {kind.__name__} | {sentence} |")
    lines.append(
        "\nNo retry is endless: a turn that was never sent goes over HTTPS when several connections"
        " died under it; one that was refused is sent again once, the second refusal is relayed."
    )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(guarantees(), end="")
