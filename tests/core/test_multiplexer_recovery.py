"""Every cell of the fault table through the core's door: fault × phase → what is done (S-02)."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import product
from typing import Any, Final

import pytest

from tests.core.playbook import Playbook, Told
from tests.core.stage import (
    ANY,
    KEY,
    Item,
    arrived,
    assistant,
    book,
    completed,
    created,
    error,
    finished,
    frame,
    opened,
    passed,
    placed,
    sent,
    started,
    user,
)
from wsproxy.core.commands import (
    AbortConnection,
    Answer,
    BreakTurn,
    Command,
    Finish,
    OpenConnection,
    RefuseTurn,
    RelayError,
    SendOverHttps,
    SendPing,
    SendTurn,
)
from wsproxy.core.events import (
    ClientLeft,
    ConnectionLost,
    DialFailed,
    DrainBegun,
    LoadChanged,
    MessageRefused,
    Slept,
)
from wsproxy.core.ids import ConnectionId, TurnId
from wsproxy.core.multiplex import recovery
from wsproxy.core.multiplex.connection import State
from wsproxy.core.multiplex.recovery import (
    RECOVERY,
    Condition,
    Facts,
    Fault,
    Phase,
    Unreachable,
    Verdict,
    Where,
    verdict,
)
from wsproxy.core.multiplex.turn import MAX_ATTEMPTS

C1, T1 = ConnectionId(1), TurnId("t1")
MORE: Final = (user("t0"), assistant("t0"), user("more"))

#: Seen on the link: the wire, or the kernel, tells.
ON_THE_LINK: Final = frozenset(
    fault
    for fault in Fault
    if fault.value <= "F19"
    and fault
    not in {Fault.PONG_MISSING, Fault.FIRST_EVENT_TIMEOUT, Fault.IDLE_TIMEOUT, Fault.INVALID_EVENT}
)
#: Seen on the dial.
ON_THE_DIAL: Final = frozenset(fault for fault in Fault if "F32" <= fault.value <= "F37") | {
    Fault.OUT_OF_DESCRIPTORS
}
#: What an error frame says, and how it is told.
ERRORS: Final[dict[Fault, tuple[int, dict[str, Any]]]] = {
    Fault.PREVIOUS_RESPONSE_NOT_FOUND: (400, {"code": "previous_response_not_found"}),
    Fault.CONNECTION_LIMIT_REACHED: (400, {"code": "websocket_connection_limit_reached"}),
    Fault.STREAM_LIMIT_REACHED: (400, {"code": "websocket_stream_limit_reached"}),
    Fault.RATE_LIMITED: (429, {}),
    Fault.SERVER_ERROR: (503, {}),
    Fault.REQUEST_REFUSED: (422, {}),
}
#: Never an event of the core: served one after another by downstream; the process is gone; the
#: trace's own business.
OUTSIDE: Final = frozenset({Fault.CLIENT_PIPELINED, Fault.KILLED, Fault.TRACE_UNWRITABLE})


# ── Bringing a turn into its phase ───────────────────────────────────────────────────────────


def stage(phase: Phase, variant: str) -> Playbook:
    """The turn t1 on connection 1, as far as `phase`; `variant` says what is beside it."""
    story = book()
    items: tuple[Item, ...] = ()
    if variant == "delta":
        started(story, "t0")
        finished(story, "t0")
        items = MORE
    if variant == "sibling":
        started(story, "t0")
        placed(story, "other")
        story >> sent("other")
    story >> arrived("t1", *items)
    story.take()
    if not items and variant != "sibling":
        story >> opened(1)
    story.take()
    lane = story.core.turns[T1].lane
    if phase is not Phase.ADMITTED:
        story >> sent("t1")
    if phase in (Phase.STARTED, Phase.FINISHED):
        story >> created(1, lane, "resp_t1", "resp_t0" if items else None)
    if phase is Phase.FINISHED:
        story.take()
        story >> completed(1, lane, "resp_t1")
    story.take()
    return story


def meet(story: Playbook, fault: Fault, phase: Phase, variant: str) -> None:
    """Let the fault happen."""
    turn = story.core.turns.get(T1)
    lane = turn.lane if turn is not None else "l01"
    if fault in ON_THE_LINK or (fault is Fault.TLS_FAILED and phase is not Phase.ADMITTED):
        unsent = [T1] if phase is Phase.ADMITTED else []
        story >> ConnectionLost(C1, fault, "why", unsent)
    elif fault in ERRORS:
        status, fields = ERRORS[fault]
        is_unnamed = variant == "sibling"
        story >> error(1, None if is_unnamed else lane, status, **fields)
    else:
        story >> OTHERS[fault](story, lane)


OTHERS: Final[dict[Fault, Callable[[Playbook, str], Told]]] = {
    Fault.FIRST_EVENT_TIMEOUT: lambda _story, _lane: passed(600),
    Fault.IDLE_TIMEOUT: lambda _story, _lane: passed(900),
    Fault.INVALID_EVENT: lambda _story, lane: frame(1, "no such\ttype", lane),
    Fault.UNATTRIBUTABLE_EVENT: lambda _story, _lane: frame(1, "response.x", "l99"),
    Fault.ERROR_WITHOUT_LANE: lambda _story, _lane: error(1, None, 500),
    Fault.CLIENT_LEFT: lambda _story, _lane: ClientLeft(T1),
    Fault.CLIENT_SLOW: lambda _story, _lane: ClientLeft(T1, Fault.CLIENT_SLOW),
    Fault.OVERLOADED: lambda _story, _lane: ClientLeft(T1, Fault.OVERLOADED),
    Fault.CLIENT_REPEATED: lambda _story, _lane: arrived("again"),
    Fault.DRAINING: lambda story, _lane: DrainBegun(story.now),
    Fault.SLEPT: lambda _story, _lane: Slept(60),
}


def facts(variant: str) -> Facts:
    """What holds for the turn on this stage."""
    held = {Condition.DEADLINE_PASSED, Condition.BUFFER_FULL, Condition.LARGEST_BUFFER}
    if variant != "sibling":
        held |= {Condition.SOLE_SENT_TURN, Condition.NAMED}
    if variant == "delta":
        held |= {Condition.OUR_ID, Condition.OUR_DELTA}
    return frozenset(held)


# ── What is to be seen ───────────────────────────────────────────────────────────────────────


def about_t1(commands: list[Command]) -> list[Command]:
    return [command for command in commands if getattr(command, "turn", None) == T1]


def resent(story: Playbook, got: list[Command]) -> SendTurn:
    """Open what is dialled until the turn is sent again."""
    for _ in range(3):
        again = [c for c in got if isinstance(c, SendTurn) and c.turn == T1]
        if again:
            return again[0]
        dialling = [c for c in story.core.pool.connections if c.state is State.DIALLING]
        story >> (opened(dialling[0].id) if dialling else passed(1))
        got = story.take()
    raise AssertionError(f"never sent again: {story.core!r}")


def check(story: Playbook, expected: Verdict, phase: Phase) -> None:
    """The commands are what the verdict says, and nothing else concerns the turn."""
    got = story.take()
    mine = about_t1(got)
    match expected:
        case recovery.Retry(where):
            again = resent(story, got)
            assert again.parent is None
            assert (again.connection == C1) is (where is Where.SAME_CONNECTION)
            assert story.core.turns[T1].phase is Phase.ADMITTED
        case recovery.FallBack():
            assert mine == [SendOverHttps(T1, ANY)]
        case recovery.Relay():
            assert mine == [RelayError(T1, ANY)]
        case recovery.Refuse(status, code, is_unknown, retry_after_s):
            should_retry = True if retry_after_s else None
            assert mine == [
                RefuseTurn(T1, status, code, ANY, is_unknown, retry_after_s, should_retry)
            ]
        case recovery.Break(code):
            assert mine == [BreakTurn(T1, code, ANY)]
        case recovery.Drop() | recovery.Abandon():
            assert mine == []
            assert T1 not in story.core.turns
        case recovery.Ignore() | recovery.Wait():
            assert mine == []
            assert (T1 in story.core.turns) is (phase is not Phase.FINISHED)
        case _:
            raise AssertionError(expected)
    if not isinstance(expected, recovery.Retry | recovery.Ignore | recovery.Wait):
        assert T1 not in story.core.turns


def reachable(faults: frozenset[Fault] | set[Fault]) -> list[tuple[Fault, Phase]]:
    return [
        (fault, phase)
        for fault, phase in product(Fault, Phase)
        if fault in faults and not isinstance(RECOVERY[fault, phase], Unreachable)
    ]


def ids(value: object) -> str | None:
    return value.name if isinstance(value, Fault | Phase) else None


# ── On a connection ──────────────────────────────────────────────────────────────────────────

#: Faults that are met in the same way whatever the phase.
MET = (ON_THE_LINK | set(ERRORS) | set(OTHERS)) - {
    Fault.ERROR_WITHOUT_LANE,  # needs several turns
    Fault.OVERLOADED,  # in the queue it is the next turn that is shed
}
ALONE = [
    cell
    for cell in reachable(MET)
    if cell[1] is not Phase.ADMITTED or cell[0] not in {*ERRORS, Fault.CLIENT_LEFT}
]


@pytest.mark.parametrize(("fault", "phase"), ALONE, ids=ids)
def test_a_turn_alone_on_its_connection(fault: Fault, phase: Phase) -> None:
    story = stage(phase, "")
    meet(story, fault, phase, "")
    check(story, verdict(fault, phase, facts("")), phase)


@pytest.mark.parametrize(("fault", "phase"), reachable(set(ERRORS)), ids=ids)
def test_a_delta_of_ours(fault: Fault, phase: Phase) -> None:
    if phase is Phase.ADMITTED:
        return
    story = stage(phase, "delta")
    meet(story, fault, phase, "delta")
    found = verdict(fault, phase, facts("delta"))
    check(story, found, phase)


BESIDE = [
    (fault, phase)
    for fault, phase in reachable(
        ON_THE_LINK | {Fault.CONNECTION_LIMIT_REACHED, Fault.ERROR_WITHOUT_LANE, Fault.TLS_FAILED}
    )
    if not (fault.value >= "F25" and phase is Phase.ADMITTED)
]


@pytest.mark.parametrize(("fault", "phase"), BESIDE, ids=ids)
def test_a_turn_among_others_on_its_connection(fault: Fault, phase: Phase) -> None:
    story = stage(phase, "sibling")
    meet(story, fault, phase, "sibling")
    check(story, verdict(fault, phase, facts("sibling")), phase)


@pytest.mark.parametrize("fault", [Fault.CONNECTION_LIMIT_REACHED, Fault.ERROR_WITHOUT_LANE])
def test_a_frame_in_our_buffers_waits_for_the_end_of_a_connection_that_was_given_up(
    fault: Fault,
) -> None:
    story = stage(Phase.ADMITTED, "sibling")
    status, fields = ERRORS.get(fault, (500, {}))
    story >> error(1, None, status, **fields)
    assert about_t1(story.take()) == []
    assert story.core.turns[T1].connection == C1
    story >> ConnectionLost(C1, Fault.CONNECTION_ENDED, "", [T1])
    check(story, recovery.Retry(), Phase.ADMITTED)


@pytest.mark.parametrize(
    "fault",
    [Fault.CONNECTION_LIMIT_REACHED, Fault.STREAM_LIMIT_REACHED, Fault.ERROR_WITHOUT_LANE],
)
def test_a_turn_in_the_queue_goes_to_another_connection(fault: Fault) -> None:
    story = book()
    started(story, "t0", "t2")
    status, fields = ERRORS.get(fault, (500, {}))
    story >> error(1, None if fault is Fault.ERROR_WITHOUT_LANE else "l01", status, **fields)
    story.take()
    story >> arrived("t1")
    check(story, recovery.Retry(), Phase.ADMITTED)


def test_a_missing_pong_moves_a_turn_that_waits_for_it_and_no_other() -> None:
    with book(ping_busy_s=10) as story:
        started(story, "t0")
        story >> passed(35)
        story.take()
        story >> arrived("t1") << SendPing(C1)
        story >> passed(2.5) << OpenConnection(ConnectionId(2), KEY)
        assert TurnId("t0") in story.core.turns
        story >> passed(30)
        got = story.take()
        assert not [c for c in got if getattr(c, "turn", None) == "t0"]


# ── Relayed as it is ─────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("type_", ["response.failed", "response.incomplete", "response.done"])
@pytest.mark.parametrize("phase", [Phase.SENT, Phase.STARTED], ids=ids)
def test_an_end_that_is_no_success_is_upstreams_own(type_: str, phase: Phase) -> None:
    story = stage(phase, "")
    story >> frame(1, type_, "l01", response={"id": "r", "status": "failed", "output": []})
    begins = [Answer(T1)] if phase is Phase.SENT else []
    assert story.take() == [*begins, Finish(T1, ANY)]
    assert all(lane.warm is None for lane in story.core.pool.connections[0].lanes.values())


@pytest.mark.parametrize("phase", [Phase.SENT, Phase.STARTED], ids=ids)
def test_an_unknown_event_type_is_an_event(phase: Phase) -> None:
    story = stage(phase, "")
    stream = story.core.turns[T1].stream
    assert stream is not None
    stream.take_pending()
    story >> frame(1, "response.invented.tomorrow", "l01", sequence_number=7)
    assert story.take() == ([Answer(T1)] if phase is Phase.SENT else [])
    number = b"0" if phase is Phase.SENT else b"1"
    assert re.search(rb'"sequence_number": ?%b\b' % number, stream.take_pending())


@pytest.mark.parametrize("fault", [Fault.RATE_LIMITED, Fault.UNATTRIBUTABLE_EVENT], ids=ids)
def test_what_comes_after_the_terminal_event_is_nobodys(fault: Fault) -> None:
    story = stage(Phase.FINISHED, "")
    story >> (error(1, "l01", 429) if fault in ERRORS else frame(1, "response.x", "l01"))
    assert about_t1(story.take()) == []
    assert story.core.pool.connections == []


# ── Getting a connection ─────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("fault", sorted(ON_THE_DIAL, key=str), ids=ids)
def test_a_turn_whose_dial_fails(fault: Fault) -> None:
    story = book()
    story >> arrived("t1")
    story.take()
    story >> DialFailed(C1, fault, None, None, "why")
    check(story, verdict(fault, Phase.ADMITTED), Phase.ADMITTED)


@pytest.mark.parametrize("fault", [Fault.DRAINING, Fault.OVERLOADED], ids=ids)
def test_a_turn_that_comes_when_nothing_is_accepted(fault: Fault) -> None:
    story = book()
    story >> (DrainBegun(story.now + 9) if fault is Fault.DRAINING else LoadChanged(True))
    story >> arrived("t1")
    check(story, verdict(fault, Phase.ADMITTED, frozenset({Condition.DEADLINE_PASSED})), Phase.SENT)


def test_a_client_that_leaves_before_anything_was_sent_costs_nothing() -> None:
    story = book()
    story >> arrived("t1")
    story.take()
    story >> ClientLeft(T1)
    check(story, recovery.Drop(), Phase.ADMITTED)


def test_a_client_that_leaves_while_the_frame_leaves_has_the_connection_closed() -> None:
    with stage(Phase.ADMITTED, "") as story:
        story >> ClientLeft(T1) << AbortConnection(C1)


@pytest.mark.parametrize("phase", [Phase.STARTED], ids=ids)
def test_the_largest_reader_pays_for_an_overload(phase: Phase) -> None:
    story = stage(phase, "")
    story >> ClientLeft(T1, Fault.OVERLOADED)
    check(story, recovery.Abandon(), phase)


# ── What cannot be ───────────────────────────────────────────────────────────────────────────

IMPOSSIBLE = [key for key, cell in RECOVERY.items() if isinstance(cell, Unreachable)]
#: Upstream cannot have read half a frame: what names a turn proves that its frame has left.
NAMES_THE_TURN = {*ERRORS, Fault.UNKNOWN_EVENT_TYPE, Fault.SEQUENCE_GAP}
#: Our own alarms ask for the phase first.
TIMED = {Fault.FIRST_EVENT_TIMEOUT, Fault.IDLE_TIMEOUT}


@pytest.mark.parametrize(
    ("fault", "phase"), [cell for cell in IMPOSSIBLE if cell[0] in ON_THE_DIAL], ids=ids
)
def test_a_dial_cannot_fail_once_it_has_succeeded(fault: Fault, phase: Phase) -> None:
    story = stage(phase, "")
    with pytest.raises(AssertionError):
        story >> DialFailed(C1, fault, None, None, "why")


@pytest.mark.parametrize(
    ("fault", "phase"), [cell for cell in IMPOSSIBLE if cell[0] in ERRORS], ids=ids
)
def test_an_error_that_names_a_turn_proves_that_it_was_sent(fault: Fault, phase: Phase) -> None:
    assert phase is Phase.ADMITTED
    story = stage(phase, "delta")
    meet(story, fault, phase, "delta")
    check(story, verdict(fault, Phase.SENT, facts("delta")), phase)


def test_an_error_for_nobody_is_not_for_a_turn_whose_frame_still_leaves() -> None:
    with stage(Phase.ADMITTED, "") as story:
        story >> error(1, None, 429)
        assert not about_t1(story.take())
        assert story.core.turns[T1].phase is Phase.ADMITTED
        story >> ConnectionLost(C1, Fault.CLOSED_NORMALLY, "why", [T1])
        check(story, verdict(Fault.CLOSED_NORMALLY, Phase.ADMITTED), Phase.ADMITTED)


@pytest.mark.parametrize(
    ("fault", "phase"), [cell for cell in IMPOSSIBLE if cell[0] in TIMED], ids=ids
)
def test_a_deadline_is_that_of_the_phase(fault: Fault, phase: Phase) -> None:
    story = stage(phase, "")
    meet(story, fault, phase, "")
    mine = about_t1(story.take())
    told = {Fault.FIRST_EVENT_TIMEOUT: RefuseTurn, Fault.IDLE_TIMEOUT: BreakTurn}[fault]
    assert not any(isinstance(command, told) for command in mine if phase is not Phase.SENT)


def test_a_failed_write_says_nothing_of_the_turns_before_it() -> None:
    story = stage(Phase.SENT, "")
    story >> ConnectionLost(C1, Fault.WRITE_FAILED, "why", [])
    check(story, verdict(Fault.CONNECTION_RESET, Phase.SENT), Phase.SENT)


def test_a_client_cannot_be_slow_before_it_was_told_anything() -> None:
    story = book()
    story >> arrived("t1")
    story.take()
    with pytest.raises(AssertionError):
        story >> ClientLeft(T1, Fault.CLIENT_SLOW)


def test_an_event_on_a_lane_in_use_is_never_late() -> None:
    for phase in (Phase.SENT, Phase.STARTED):
        story = stage(phase, "")
        story >> frame(1, "response.x", "l01")
        assert story.core.turns[T1].phase is Phase.STARTED
        assert story.core.pool.connections[0].is_open


def test_every_fault_is_met_somewhere_here() -> None:
    here = MET | ON_THE_DIAL | OUTSIDE | {Fault.ERROR_WITHOUT_LANE, Fault.OVERLOADED}
    here |= {Fault.PONG_MISSING, Fault.UNKNOWN_EVENT_TYPE, Fault.SEQUENCE_GAP}
    here |= {Fault.RESPONSE_NOT_COMPLETED, Fault.LATE_EVENT}
    assert here == set(Fault)


# ── No retry is endless ──────────────────────────────────────────────────────────────────────


def test_a_turn_that_several_connections_lost_goes_over_https() -> None:
    with book() as story:
        story >> arrived("t1")
        story.take()
        for number in range(1, MAX_ATTEMPTS + 1):
            connection = ConnectionId(number)
            story >> opened(connection)
            assert [type(c) for c in story.take()] == [SendTurn]
            story >> ConnectionLost(connection, Fault.CONNECTION_RESET, "", [T1])
            if number < MAX_ATTEMPTS:
                story.take()
                story >> passed(1)
                story.take()
        story << SendOverHttps(T1, ANY)


def test_a_second_refusal_of_a_connection_sends_the_turn_over_https() -> None:
    with stage(Phase.SENT, "") as story:
        limit = {"code": "websocket_connection_limit_reached"}
        story >> error(1, "l01", 400, **limit)
        story.take()
        story >> opened(2)
        story.take()
        story >> sent("t1", 2)
        story >> error(2, None, 400, **limit) << SendOverHttps(T1, ANY) << ANY


def test_a_refused_message_is_judged_even_if_the_connection_is_unknown() -> None:
    with book() as story:
        story >> MessageRefused(ConnectionId(9), Fault.INVALID_EVENT, "")


# ── A connection that we drop ────────────────────────────────────────────────────────────────


def cuts(story: Playbook, fault: Fault) -> None:
    """One read brings what connection 1 is dropped for, while t1 is ADMITTED on it."""
    story >> OTHERS[fault](story, story.core.turns[T1].lane)


@pytest.mark.parametrize("fault", [Fault.INVALID_EVENT, Fault.UNATTRIBUTABLE_EVENT])
def test_a_frame_of_which_something_may_have_left_is_not_sent_again_after_a_cut(
    fault: Fault,
) -> None:
    with stage(Phase.ADMITTED, "sibling") as story:
        story.begun.add(T1)
        cuts(story, fault)
        check(story, verdict(fault, Phase.SENT), Phase.SENT)
        assert T1 not in story.core.turns


@pytest.mark.parametrize("fault", [Fault.INVALID_EVENT, Fault.UNATTRIBUTABLE_EVENT])
def test_a_frame_of_which_nothing_left_is_sent_again_after_a_cut(fault: Fault) -> None:
    story = stage(Phase.ADMITTED, "sibling")
    cuts(story, fault)
    check(story, verdict(fault, Phase.ADMITTED), Phase.ADMITTED)


def test_a_turn_whose_frame_may_have_left_at_the_end_of_a_drain_is_not_called_unsent() -> None:
    with stage(Phase.ADMITTED, "") as story:
        story.begun.add(T1)
        story >> DrainBegun(story.now)
        held = frozenset({Condition.DEADLINE_PASSED})
        check(story, verdict(Fault.DRAINING, Phase.SENT, held), Phase.SENT)


def test_at_the_end_of_a_connections_life_a_frame_in_its_buffers_may_have_left() -> None:
    with stage(Phase.ADMITTED, "") as story:
        story >> Slept(4000)
        check(story, verdict(Fault.FIRST_EVENT_TIMEOUT, Phase.SENT), Phase.SENT)
