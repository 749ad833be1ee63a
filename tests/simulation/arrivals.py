"""What upstream may be sent (I1, I2, I7, I8, I9): looked at where frames arrive."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from tests.simulation.ledger import Call, Ledger
from tests.simulation.oracle import Expected
from wsproxy.simulator.canonical import canonical

if TYPE_CHECKING:
    from tests.simulation.runs import Run
    from wsproxy.simulator.turns import Turn

_NOT_IN_FRAME: Final = frozenset({"stream", "background", "input", "previous_response_id"})
_FRAME_ONLY: Final = frozenset({"type", "stream_id", "input", "previous_response_id"})
#: Contract §5.7, closed list.
_CHANGEABLE: Final = frozenset(
    "client_metadata metadata max_output_tokens max_tool_calls parallel_tool_calls tool_choice "
    "temperature top_p top_logprobs service_tier stream stream_options prompt_cache_key "
    "prompt_cache_options prompt_cache_retention".split()
)
#: Bytes that a frame has beside its body: type, lane, parent.
_FRAME_OVERHEAD: Final = 200


def judge_arrival(ledger: Ledger, run: Run, payload: bytes) -> None:
    """A frame has arrived: is it somebody's, of the right key, and the client's own words?"""
    if not run.canary:
        _judge_probe(ledger, run)
        return
    calls = ledger.of_canary.get(run.canary)
    if not calls:
        ledger.violate("I2", f"{run} was asked by nobody")
        return
    call = calls[-1]
    for each in calls:
        each.runs.append(run)
    if call.owner != run.session.owner:
        ledger.violate("I7", f"{call} of {call.owner} on a connection of {run.session.owner}")
    if len(payload) > ledger.knobs.max_frame_bytes + _FRAME_OVERHEAD:
        ledger.violate("I9", f"{run}: a frame of {len(payload)} bytes")
    if _rest(call.body, _NOT_IN_FRAME) != _rest(run.fields, _FRAME_ONLY):
        ledger.violate("frame", f"{run}: members differ from the client's")
    _judge_load(ledger, run)
    _judge_parent(ledger, run, call)


def _judge_load(ledger: Ledger, run: Run) -> None:
    """I9: what is in flight on a connection, and how many names it has used."""
    session = run.session
    session.names.add(run.lane)
    if len(session.names) > ledger.knobs.max_lanes:
        ledger.violate("I9", f"{run}: {len(session.names)} names on one connection")
    if len(session.runs) >= ledger.knobs.max_in_flight:
        ledger.violate("I9", f"{run}: {len(session.runs)} others are in flight")


def judge_pool(ledger: Ledger, of_owner: int, in_all: int) -> None:
    """I9: connections, those that are being closed not counted; a probe has one of its own."""
    knobs = ledger.knobs
    per_key = max(knobs.max_per_key_with_lanes, knobs.max_per_key_without_lanes)
    if of_owner > per_key + 1 or in_all > knobs.max_connections:
        ledger.violate("I9", f"{of_owner} connections of one key, {in_all} in all")


def _judge_probe(ledger: Ledger, run: Run) -> None:
    fields = run.fields
    if fields.get("generate") is not False or fields.get("store") is not False:
        ledger.violate("frame", f"{run} has no canary and is no probe: {fields}")


def constant_members(fields: dict[str, Any]) -> str:
    """What must be equal in a response and in its continuation (contract §5.7)."""
    return _rest(fields, _FRAME_ONLY | _CHANGEABLE)


def _rest(fields: dict[str, Any], without: frozenset[str]) -> str:
    return canonical({name: value for name, value in fields.items() if name not in without})


def _judge_parent(ledger: Ledger, run: Run, call: Call) -> None:
    own, sent = call.body.get("previous_response_id"), run.fields.get("previous_response_id")
    if sent is None or own is not None:
        ledger.counts["sent in full" if own is None else "sent with its own parent"] += 1
        if sent != own or canonical(run.fields["input"]) != canonical(call.body["input"]):
            ledger.violate("frame", f"{run}: not what the client sent in full")
        return
    ledger.counts["sent as delta"] += 1
    made_with = ledger.made_with.get((run.session.owner, sent))
    if made_with is not None and made_with != constant_members(run.fields):
        ledger.violate("fields", f"{run}: a delta although other members than may have changed")
    if run.session.rules.continuation != "kept":
        ledger.violate("delta", f"{run}: a delta to an upstream that ignores ids")


def judge_context(ledger: Ledger, run: Run, turn: Turn) -> None:
    """I8: what upstream holds for this turn is the client's full input, value for value."""
    calls = ledger.of_canary.get(run.canary)
    if not calls:
        return
    expectations = calls[-1].expectations
    if not any(e.turn is not None and _is_same_context(e.turn, turn) for e in expectations):
        ledger.violate("I8", f"{run}: {_context_difference(expectations[0], turn)}")


def _is_same_context(expected: Turn, found: Turn) -> bool:
    return (
        expected.context.mark == found.context.mark
        and expected.request.digest == found.request.digest
    )


def _context_difference(expected: Expected, turn: Turn) -> str:
    if expected.turn is None:
        return f"upstream took what is refused in full: {expected.error}"
    wanted, found = expected.turn.context, turn.context
    for index, (one, other) in enumerate(zip(wanted.marks, found.marks, strict=False)):
        if one != other:
            return f"item {index}: {found.items[index]} for {wanted.items[index]}"
    return f"{len(found.items)} items upstream for {len(wanted.items)}, or other parameters"
