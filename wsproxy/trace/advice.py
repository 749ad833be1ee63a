"""Why a turn went as it did, in plain words, and what could be done about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from wsproxy.trace.amounts import counted
from wsproxy.trace.record import TurnRecord


@dataclass(frozen=True, slots=True)
class Explanation:
    """What was sent, why, and what would change it ("" where there is nothing to do)."""

    what: str
    why: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class _Reason:
    why: str
    advice: str = ""


#: One row a reason token (contract §5.12 and wsproxy/core). `{index}`, `{type}`, `{fields}` are
#: what the turn's `about` says.
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
        "What it continues is no longer held upstream: the connection has ended, its lane went on "
        "with another conversation, or the connection was full.",
        "Nothing to do; with store not set to false such turns are chained by id instead.",
    ),
    "chains_unproven": _Reason(
        "It is not known yet whether this upstream keeps what ids point to.",
        'The probe takes a moment; continuation = "on" skips it where you are sure.',
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
        "No WebSocket could be had in time; it is tried again behind the turns' backs.",
        "`wsproxy doctor` tells which step fails.",
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
    "upstream_timeout": _Reason("Upstream fell silent for too long."),
    "upstream_protocol_error": _Reason("Upstream sent what cannot be accepted or attributed."),
    "upstream_tls": _Reason(
        "The upstream's certificate could not be verified.", "`wsproxy doctor` shows it."
    ),
}

_WHATS: Final = {
    "delta": "Only what is new was sent: {sent} of {all}.",
    "fork": "Only what is new was sent ({sent} of {all}), on another lane: the one it "
    "continues from was busy.",
    "full": "All of the input was sent ({all}), over the WebSocket.",
    "http": "The request went over HTTPS, as it was.",
    "none": "wsproxy answered itself.",
}
_CONTINUES: Final = "What came before ({kept}) is, value for value, what this lane holds already."


def explain(turn: TurnRecord) -> Explanation:
    """Why this turn was a delta, or why not."""
    kept = turn.items - turn.items_sent
    what = _WHATS.get(turn.route, "").format(sent=turn.items_sent, all=counted(turn.items, "item"))
    if turn.is_continued:
        return Explanation(what, _CONTINUES.format(kept=counted(kept, "item")))
    reason = REASONS.get(turn.reason)
    if reason is None:
        return Explanation(what, f"The reason given is {turn.reason or 'none'}.")
    return Explanation(what, reason.why.format_map(_About(turn.about)), reason.advice)


class _About(dict[str, str]):
    """What is not known of a turn is said to be so."""

    def __missing__(self, name: str) -> str:
        return "?"
