"""What must hold in every world, whatever the nemesis did (I1–I11).

Each check looks at the ledger alone, as a stranger would look at a history: here what agents were
told, and what is left when everybody has gone home; in `arrivals.py` what upstream was sent.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Final

from tests.simulation.ledger import Call, Ledger
from tests.simulation.oracle import flat_error_of
from wsproxy.simulator.canonical import canonical
from wsproxy.simulator.errors import ApiError

if TYPE_CHECKING:
    from tests.simulation.plan import Knobs

#: How our own refusals may be told, and what each needs for an excuse.
_NEEDS_STRIKE: Final = frozenset(
    {
        "upstream_outcome_unknown",
        "upstream_disconnected",
        "upstream_protocol_error",
        "upstream_timeout",
        "proxy_bug",
    }
)
#: Every wait in a turn's way that has no timeout of its own in `Knobs`: probes, dead paths, TCP.
_SLACK_S: Final = 150.0


def judge_call(ledger: Ledger, call: Call) -> None:
    """I2–I6, I8, I10: the one answer of one call."""
    sink = call.sink
    ledger.counts[f"route {sink.route.partition(';')[0] or '-'}"] += 1
    _judge_duration(ledger, call)
    if call.over_https is not None:
        route = dict(call.over_https.headers).get(b"x-wsproxy-route", b"").decode()
        ledger.counts[f"route {route}"] += 1
        if sink.is_started:
            ledger.violate("I6", f"{call} has an answer and goes over HTTPS")
        return
    if sink.is_started and not (sink.route and b"x-wsproxy-turn" in sink.headers):
        ledger.violate("headers", f"{call}: {sink.headers}")
    if sink.is_dropped:
        _judge_drop(ledger, call)
    if call.left_at is not None:
        if sink.status == 200 and call.is_streaming and _progress(call) is None:
            ledger.violate("I3", f"{call}, left: {_excerpt(call)}")
        return
    if not sink.ending:
        ledger.violate("I6", f"{call} has no end")
    elif sink.status == 200 and sink.ending == "responded":
        _judge_document(ledger, call)
    elif sink.status == 200:
        _judge_stream(ledger, call)
    else:
        _judge_refusal(ledger, call)


def _judge_duration(ledger: Ledger, call: Call) -> None:
    knobs = ledger.knobs
    deadline = (
        3 * (knobs.handshake_wait_s + knobs.discovery_wait_s + knobs.queue_wait_s)
        + knobs.first_event_timeout_s
        + 2 * knobs.event_idle_timeout_s
        + _SLACK_S
    )
    if call.ended_at - call.started_at > deadline:
        ledger.violate("I10", f"{call} took {call.ended_at - call.started_at:.0f} s")


def _judge_drop(ledger: Ledger, call: Call) -> None:
    """A client is cut for its own slowness only (F39, F47)."""
    ledger.counts["slow client cut"] += 1
    if not call.sink.is_slow:
        ledger.violate("excuse", f"{call} was cut, and took everything at once")


def _judge_document(ledger: Ledger, call: Call) -> None:
    if call.is_streaming:
        ledger.violate("stream", f"{call}: a document")
        return
    ledger.counts["answered"] += 1
    try:
        found = canonical(json.loads(call.sink.written))
    except ValueError:
        found = ""
    right = [canonical(e.document()) for e in call.expectations if e.turn is not None]
    if found not in right:
        ledger.violate("I8", f"{call}: another document than direct: {_excerpt(call)}")


def _judge_stream(ledger: Ledger, call: Call) -> None:
    progress = _progress(call)
    if progress is None:
        ledger.violate("I3", f"{call}: {_excerpt(call)}")
        return
    pieces, tail = progress
    if call.sink.ending == "finished" and not tail:
        if pieces:
            ledger.violate("I4", f"{call} ended {pieces} events before its time")
        ledger.counts["answered"] += 1
        return
    error = flat_error_of(tail)
    if error is None:
        ledger.violate("I3", f"{call}: {_excerpt(call)} … {bytes(tail)[:200]!r}")
    elif call.sink.ending == "aborted":
        _judge_excuse(ledger, call, str(error["code"]))
    else:
        ledger.counts["relayed in mid-stream"] += 1
        _judge_relayed(ledger, call, str(error["message"]))


def _progress(call: Call) -> tuple[int, bytes] | None:
    """How many events are missing at the end, and what stands there instead; None if another
    event than the right one was told."""
    found = bytes(call.sink.written)
    inserted = [run.inserted for run in call.runs if run.inserted]
    for expected in call.expectations:
        if expected.turn is None:
            continue
        for odd in ({}, *inserted):
            at = 0
            pieces = expected.events(odd)
            left = len(pieces)
            for piece in pieces:
                if not found.startswith(piece, at):
                    break
                at += len(piece)
                left -= 1
            tail = found[at:]
            if not tail or tail.startswith(b"event: error\n"):
                return left, tail
    return None


def _judge_refusal(ledger: Ledger, call: Call) -> None:
    try:
        error = json.loads(call.sink.written)["error"]
        code, message = error.get("code"), error["message"]
    except (ValueError, KeyError, TypeError, AttributeError):
        ledger.violate("refusal", f"{call}: {_excerpt(call)}")
        return
    if call.sink.ending != "responded":
        ledger.violate("refusal", f"{call}")
    elif call.sink.route.startswith("none"):
        _judge_excuse(ledger, call, str(code))
    else:
        ledger.counts["relayed"] += 1
        _judge_relayed(ledger, call, str(message))


def _judge_relayed(ledger: Ledger, call: Call, message: str) -> None:
    """Upstream's own verdict: the one that is right, or one that it was made to say."""
    right: list[ApiError] = [*ledger.said[call.canary]]
    for expected in call.expectations:
        right += [e for e in (expected.error, expected.mid_error) if e is not None]
    for connection in call.connections:
        right += ledger.said_to_all[connection]
    told = [error for error in right if error.message == message]
    if not told:
        ledger.violate("I5", f"{call} was told {message!r}, which upstream never said")
    is_due = any(e.turn is None or e.mid_error is not None for e in call.expectations)
    if not is_due and not any(ledger.hits[connection] for connection in call.connections):
        ledger.violate("I8", f"{call} was refused with {message!r}; direct it would have run")


def _judge_excuse(ledger: Ledger, call: Call, code: str) -> None:
    """A failure of our own making needs a cause that anybody can see."""
    ledger.counts[f"own {code}"] += 1
    is_struck = any(ledger.hits[connection] for connection in call.connections)
    excuses = {
        "proxy_overloaded": ledger.running >= ledger.knobs.max_turns,
        "proxy_draining": ledger.drain_at is not None,
        "upstream_tls": any("dial tls" in hit for hit in ledger.hits.values()),
        "upstream_lost_context": ledger.is_forgetful,
    }
    is_cut = ledger.drain_at is not None and call.ended_at >= ledger.drain_deadline
    if not excuses.get(code, code in _NEEDS_STRIKE and (is_struck or is_cut)):
        ledger.violate("excuse", f"{call}: {code} without a cause: {_excerpt(call)}")
    if code == "upstream_lost_context":
        ledger.is_context_lost = True
    if code == "proxy_draining" and ledger.drain_at is not None:
        was_running = call.started_at < ledger.drain_at
        if was_running and call.ended_at < ledger.drain_deadline:
            ledger.violate("I11", f"{call} was cut before the drain's deadline")


def _excerpt(call: Call) -> str:
    return repr(bytes(call.sink.written[-300:]))


# ── When everybody has gone home ─────────────────────────────────────────────────────────────


def judge_runs(ledger: Ledger) -> None:
    """I1: one call causes one run at most, unless upstream said that it did not run."""
    runs: Counter[str] = Counter(run.canary for run in ledger.runs if not run.is_refused)
    runs.update(ledger.https_runs)
    for canary, count in runs.items():
        if canary and count > len(ledger.of_canary[canary]):
            ledger.violate("I1", f"{canary} ran {count} times: {ledger.of_canary[canary]}")


def patience_s(knobs: Knobs) -> float:
    """How long after the last call everything must have come to rest."""
    return max(45.0, knobs.idle_s + 15.0 if knobs.idle_s < 60 else 45.0)
