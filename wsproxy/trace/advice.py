"""Why a turn went as it did, in plain words, and what could be done about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from wsproxy.config import command_for
from wsproxy.core.multiplex.recovery import Fault
from wsproxy.trace.amounts import counted
from wsproxy.trace.reader import Traces
from wsproxy.trace.record import TurnRecord


@dataclass(frozen=True, slots=True)
class Explanation:
    """What was sent, why, how it ended unless well, and what would change it; "" where there is
    nothing to say."""

    what: str
    why: str
    end: str = ""
    advice: str = ""


@dataclass(frozen=True, slots=True)
class _Reason:
    why: str
    advice: str = ""


#: One row a reason token (contract §5.12 and wsproxy/core), and one a token and what its `chains`
#: says. `{index}`, `{type}`, `{fields}` are what the turn's `about` says, `{cause}` and `{doctor}`
#: what else the traces tell.
REASONS: Final[dict[str, _Reason]] = {
    # It continues nothing
    "new_conversation": _Reason(
        "No conversation that wsproxy knows begins like this one, or the agent changed its first "
        "item.",
        "The first turn of a conversation, or the first after a restart, is always sent in full.",
    ),
    "history_edited": _Reason(
        "Input item {index} (type {type}) is not what the conversation had in that place.",
        "Send earlier items as they were. Agents that trim, summarise or re-stamp their history "
        "pay with one full send each time they do.",
    ),
    "omitted_reasoning": _Reason(
        "The agent left out the reasoning item that the model gave at index {index}.",
        'Send reasoning items back, or set omitted_reasoning = "continue" to let the model see '
        "what the agent left out.",
    ),
    "no_new_items": _Reason(
        "The same input was sent before; there is nothing new to continue with.",
        "A repeated request runs anew, in full.",
    ),
    "own_context": _Reason(
        "The agent itself names what it continues (previous_response_id or conversation), or "
        "sent no input.",
        "It was passed on as it is.",
    ),
    "fields_changed": _Reason(
        "These fields differ from those of the turn it would continue: {fields}.",
        "Keep them the same from turn to turn. A list of tools in a new order, or a time in the "
        "instructions, is a change.",
    ),
    "foreign_item": _Reason(
        "Input item {index} (type {type}) is new and of a kind that is never sent as a delta.",
        "Only messages and answers to the model's last calls are. The next turn continues again.",
    ),
    "unanswered_call": _Reason(
        "The new items do not answer each of the model's last calls exactly once.",
        "Send one output for each call_id of the last response.",
    ),
    # It continues something, but not there
    "parent_evicted": _Reason(
        "What it continues is not held on any WebSocket: the connection has ended or was full, its "
        "lane went on with another conversation, or the turn before went over HTTPS.",
        "Nothing to do; with store not set to false such turns are chained by id instead.",
    ),
    "chains_unproven": _Reason(
        "It is not known yet whether this upstream keeps what ids point to.",
        'The probe takes a moment; continuation = "on" skips it where you are sure.',
    ),
    "chains_unproven refuted": _Reason(
        "This upstream does not keep what ids point to: it was asked, or a delta has shown it.",
        'Nothing to do; with continuation = "on" the model would lose what came before.',
    ),
    "chains_unproven off": _Reason(
        'The setting says so (continuation = "off").',
        'continuation = "auto" finds out whether this upstream keeps what ids point to.',
    ),
    "parent_refused": _Reason(
        "Upstream refused the delta, so the turn was sent again in full, unseen by the agent.",
        "Nothing to do; if it happens often, upstream forgets early.",
    ),
    "connection_lost": _Reason(
        "The connection ended before the frame had left, so the turn was sent again in full."
    ),
    # Not over the WebSocket
    "too_large": _Reason(
        "The request is larger than a WebSocket message of this API may be.",
        "Send large files through the files API and name them by id.",
    ),
    "busy": _Reason(
        "All connections and lanes were taken for longer than a turn waits (queue_wait_s).",
        "Raise max_connections or max_connections_per_key_with_lanes.",
    ),
    "no_websocket": _Reason(
        "No WebSocket was to be had: {cause}. It is tried again behind the turns' backs.",
        "`{doctor}` tells which step fails.",
    ),
    "transport_http": _Reason(
        "The setting says so.", 'transport = "auto" uses the WebSocket where it can be had.'
    ),
    "volatile_header": _Reason(
        "A header that is part of the identity has a new value on every call.",
        "The log names it once (header.volatile); add it to per_request_headers.",
    ),
    "idempotency_key": _Reason(
        "It carries an idempotency-key, which has a meaning for each call.",
    ),
    "content_type": _Reason("Its body is not declared as application/json."),
    "unparsed": _Reason("Its body is not strict JSON, so upstream itself is to judge it."),
    "reserved_member": _Reason(
        "Its body has a member (type, stream_id, generate) that means something else there.",
    ),
    "odd_member": _Reason("A flag in its body is neither true nor false."),
    "background": _Reason("A background response outlives its connection."),
    # Our own refusals
    "proxy_draining": _Reason("wsproxy was shutting down.", "Send it again."),
    "proxy_overloaded": _Reason("wsproxy was at its limit of turns.", "Raise max_turns."),
    "proxy_bug": _Reason("Upstream blamed our own frame.", "Please report it."),
    "upstream_lost_context": _Reason(
        "Upstream went on from another response than the one named; its answer was not used.",
        "Deltas are off for this upstream until the next start.",
    ),
    "upstream_outcome_unknown": _Reason(
        "The connection ended after the frame had left and before anything came back: upstream "
        "may have run the turn or not.",
        "The agent decides whether to send it again.",
    ),
    "upstream_disconnected": _Reason("The connection ended in the middle of the answer."),
    "upstream_unreachable": _Reason(
        "Upstream could not be reached.", "`{doctor}` tells which step fails."
    ),
    "upstream_timeout": _Reason("Upstream fell silent for too long."),
    "upstream_protocol_error": _Reason("Upstream sent what cannot be accepted or attributed."),
    "upstream_tls": _Reason(
        "The upstream's certificate could not be verified.", "`{doctor}` shows it."
    ),
}

_WHATS: Final = {
    "delta": "Only what is new was sent: {sent} of {all}.",
    "fork": "Only what is new was sent ({sent} of {all}), on another lane: the one it "
    "continues from was busy.",
    "full": "All of the input was sent ({all}), over the WebSocket.",
    "http": "The request went over HTTPS, as it was.",
    "http unsent": "The request was to go over HTTPS, and nothing of it could be sent.",
    "none": "wsproxy answered itself.",
}
_CONTINUES: Final = (
    "What came before ({kept}) is, value for value, what was sent and answered there before."
)
#: Outcomes of which an agent has no whole answer.
_ENDS: Final = {
    "error": "Upstream refused it, or gave it up in mid-answer",
    "failed": "Upstream's response failed",
    "broken": "Its answer was broken off",
    "client_left": "The agent left before its end",
}
_NO_CAUSE: Final = "the last dial failed or took too long"
_WORDS: Final = {fault.value: fault.what for fault in Fault}


def explain(turn: TurnRecord, traces: Traces | None = None) -> Explanation:
    """Why this turn was a delta, or why not, and how it ended; `traces` tell what was about it."""
    kept = turn.items - turn.items_sent
    way = "http unsent" if turn.route == "http" and not turn.bytes_up else turn.route
    what = _WHATS.get(way, "").format(sent=turn.items_sent, all=counted(turn.items, "item"))
    if turn.is_continued:
        return Explanation(what, _CONTINUES.format(kept=counted(kept, "item")), _end(turn))
    reason = REASONS.get(f"{turn.reason} {turn.about.get('chains', '')}".strip())
    if reason is None:
        return Explanation(what, f"The reason given is {turn.reason or 'none'}.", _end(turn))
    told = {"cause": _cause(turn, traces), "doctor": _doctor(turn, traces)}
    about = _About(turn.about | told)
    why, advice = reason.why.format_map(about), reason.advice.format_map(about)
    return Explanation(what, why, _end(turn), advice)


def _end(turn: TurnRecord) -> str:
    """How it ended, where that was not as the agent wished; what we answered ourselves is told."""
    if turn.route == "none":
        return ""
    status = f"status {turn.status}" if turn.status else ""
    faults = [_WORDS[row] for row in turn.faults if row in _WORDS]
    why = ", ".join(filter(None, [status, _WORDS.get(turn.code, turn.code), *faults[-1:]]))
    if turn.outcome == "error" and turn.code in REASONS:
        return f"wsproxy answered in upstream's place: {why}."
    if turn.outcome in _ENDS:
        return _ENDS[turn.outcome] + (f": {why}." if why else ".")
    return f"It was answered with {why}." if (turn.status or 200) >= 400 else ""


def _cause(turn: TurnRecord, traces: Traces | None) -> str:
    """Why the last WebSocket before this turn's end did not come about."""
    ended_at = turn.at + turn.took_s
    refused = [
        each
        for each in (traces.connections if traces is not None else ())
        if each.run == turn.run and each.key == turn.key and each.change == "refused"
        if each.at <= ended_at
    ]
    if not refused:
        return _NO_CAUSE
    last = refused[-1]
    if last.status is not None:
        return f"the upgrade was answered with {last.status}"
    return _WORDS.get(last.fault, last.fault) or _NO_CAUSE


def _doctor(turn: TurnRecord, traces: Traces | None) -> str:
    """The command that looks at the turn's upstream."""
    run = traces.runs.get(turn.run) if traces is not None else None
    return command_for("doctor", run.upstream if run is not None else "")


class _About(dict[str, str]):
    """What is not known of a turn is said to be so."""

    def __missing__(self, name: str) -> str:
        return "?"
