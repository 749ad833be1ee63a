"""Chains are proven, tripped and left alone; where a continuation runs (contract §3, §5.9-11)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.core.playbook import Playbook
from tests.core.stage import (
    ANY,
    KEY,
    OTHER_KEY,
    arrived,
    assistant,
    book,
    completed,
    created,
    error,
    finished,
    finishes,
    frame,
    opened,
    opens,
    passed,
    sends,
    sent,
    started,
    user,
)
from wsproxy.core.commands import (
    AbortConnection,
    Answer,
    BreakTurn,
    CloseConnection,
    RefuseTurn,
    RelayError,
    SendChainProbe,
    SendTurn,
)
from wsproxy.core.conversation.plan import Route, Why
from wsproxy.core.events import ConnectionLost, ProbeAnswered, Slept
from wsproxy.core.ids import ConnectionId, TurnId
from wsproxy.core.multiplex.beliefs import PROBE_AGAIN_S, REFUTED_FOR_S, STORED_OFF_S, Chains
from wsproxy.core.multiplex.connection import ConnectionLimits, Lanes
from wsproxy.core.multiplex.recovery import Fault
from wsproxy.core.multiplex.relay import Stream

C1, C2 = ConnectionId(1), ConnectionId(2)
T1, T2, T3 = TurnId("t1"), TurnId("t2"), TurnId("t3")
#: What the client sends after its first turn was answered.
MORE = (user("t1"), assistant("t1"), user("more"))


def one_turn_done(**options: Any) -> Playbook:
    """A conversation of one turn, warm on lane l01."""
    story = book(**options)
    started(story, "t1")
    finished(story, "t1")
    return story


REFUTED = Why("chains_unproven", (("chains", "refuted"),))


def delta(
    turn: str, connection: int = 1, lane: str = "l01", route: Route = Route.DELTA
) -> SendTurn:
    return sends(turn, connection, lane, "resp_t1", 2, route, why=None)


# ── Proving ──────────────────────────────────────────────────────────────────────────────────


def probing() -> Playbook:
    """The probe's own connection is open, and the question asked."""
    story = book(chains=Chains.UNPROVEN)
    story >> arrived("t1") << opens(1)
    story >> opened(1) << opens(2) << sends("t1")
    story >> opened(2) << SendChainProbe(C2, KEY)
    story >> completed(1, "l01", "resp_t1", [assistant("t1")]) << Answer(T1) << finishes("t1")
    return story


def test_until_ids_are_proven_to_be_looked_up_all_is_sent_in_full() -> None:
    with probing() as story:
        story >> arrived("t2", *MORE) << sends("t2", lane="l02", why="chains_unproven")


@pytest.mark.parametrize(
    ("answer", "about"), [(None, ()), (False, (("chains", "refuted"),))], ids=["none", "refuted"]
)
def test_a_turn_in_full_says_whether_chains_are_only_unproven(
    answer: bool | None, about: tuple[tuple[str, str], ...]
) -> None:
    with probing() as story:
        story >> ProbeAnswered(C2, answer) << AbortConnection(C2)
        story >> arrived("t2", *MORE)
        story << sends("t2", lane="l02", why=Why("chains_unproven", about))


def test_a_turn_in_full_says_that_the_operator_has_switched_chains_off() -> None:
    with book(chains=Chains.REFUTED) as story:
        started(story, "t1")
        finished(story, "t1")
        story >> arrived("t2", user("t1"), assistant("t1"), user("more"))
        story << sends("t2", lane="l02", why=Why("chains_unproven", (("chains", "off"),)))


def test_a_refused_unknown_id_proves_that_ids_are_looked_up() -> None:
    with probing() as story:
        story >> ProbeAnswered(C2, True) << AbortConnection(C2)
        story >> arrived("t2", *MORE) << delta("t2")


def test_an_answered_unknown_id_refutes_it_for_an_hour() -> None:
    with probing() as story:
        story >> ProbeAnswered(C2, False) << AbortConnection(C2)
        story >> passed(REFUTED_FOR_S / 4)
        story.take()
        story >> arrived("t2", *MORE)
        assert story.core.beliefs.of(KEY).chains is Chains.REFUTED
        story.take()


def test_a_refuted_belief_is_asked_again_after_its_time() -> None:
    with book(chains=Chains.UNPROVEN, connection=ConnectionLimits(probe_after_s=1e9)) as story:
        story.core.beliefs.chains_probed(KEY, False, story.now)
        story >> arrived("t1") << opens(1)
        story >> opened(1) << sends("t1")
        story >> completed(1, "l01") << Answer(T1) << finishes("t1")
        story.now += REFUTED_FOR_S
        story >> arrived("t2")
        kinds = [type(command).__name__ for command in story.take()]
        assert kinds.count("OpenConnection") == 2  # one for the turn (the other is too old)


@pytest.mark.parametrize("ends", ["silence", "loss"])
def test_a_probe_that_tells_nothing_is_repeated_later(ends: str) -> None:
    with probing() as story:
        if ends == "silence":
            story >> passed(10) << AbortConnection(C2)
        else:
            story >> ConnectionLost(C2, Fault.CONNECTION_RESET, "", ())
        story >> arrived("t2", session="s") << sends("t2", lane="l02")
        story >> completed(1, "l02") << Answer(T2) << finishes("t2")
        story.now += PROBE_AGAIN_S
        story.core.heard(C1, story.now)
        story >> arrived("t3") << opens(3) << sends("t3", lane="l03")


def test_each_key_is_asked_once() -> None:
    with probing() as story:
        story >> arrived("t2", session="b") << opens(3)
        story >> opened(3) << sends("t2", 3)
        story >> arrived("o", key=OTHER_KEY) << opens(4, OTHER_KEY)
        story >> opened(4) << opens(5, OTHER_KEY) << sends("o", 4)


@pytest.mark.parametrize("chains", [Chains.PROVEN, Chains.REFUTED], ids=["known", "off"])
def test_what_is_known_is_not_asked(chains: Chains) -> None:
    with book(chains=chains) as story:
        story >> arrived("t1") << opens(1)
        story >> opened(1) << sends("t1")


# ── The tripwire ─────────────────────────────────────────────────────────────────────────────


def test_an_upstream_that_forgot_gets_no_delta_again() -> None:
    with one_turn_done() as story:
        story >> arrived("t2", *MORE) << delta("t2")
        story >> sent("t2")
        story >> created(1, "l01", "resp_t2", "resp_other")
        story << RefuseTurn(T2, 502, "upstream_lost_context", ANY, is_outcome_unknown=True)
        story << AbortConnection(C1)
        story >> arrived("t3", *MORE) << opens(2)
        story >> opened(2) << sends("t3", 2, why=REFUTED)


def test_the_tripwire_holds_for_every_key_of_the_upstream() -> None:
    with one_turn_done() as story:
        story >> arrived("t2", *MORE) << delta("t2")
        story >> sent("t2")
        story >> created(1, "l01", "resp_t2", "resp_other")
        story.take()
        assert story.core.beliefs.chains(OTHER_KEY) is Chains.REFUTED


def test_a_lost_context_found_late_breaks_the_answer() -> None:
    with one_turn_done() as story:
        story >> arrived("t2", *MORE) << delta("t2")
        story >> created(1, "l01", "resp_t2", "resp_t1") << Answer(T2)
        story >> created(1, "l01", "resp_t2", "resp_other")
        story << BreakTurn(T2, "upstream_lost_context", ANY) << AbortConnection(C1)


def test_a_delta_that_waited_while_the_context_was_lost_is_sent_in_full() -> None:
    with one_turn_done(connection=ConnectionLimits(max_in_flight=1), lanes=Lanes.OFF) as story:
        story >> arrived("t2", *MORE) << delta("t2", lane="")
        story >> arrived("t3", *MORE) << opens(2)
        story >> sent("t2")
        story >> created(1, None, "resp_t2", "resp_other")
        story.take()
        story >> opened(2) << sends("t3", 2, "", why=REFUTED)


@pytest.mark.parametrize("chains", [Chains.PROVEN, Chains.UNPROVEN], ids=["vouched for", "probed"])
@pytest.mark.parametrize("what", ["a parent", "a floor"])
def test_more_than_the_named_parent_is_asked_only_where_nobody_vouches(
    chains: Chains, what: str
) -> None:
    story = book(chains=chains)
    story.core.beliefs.of(KEY).chains = Chains.PROVEN  # as after a probe
    with story:
        watched = second_delta(story)
        is_asked = watched.expects_parent if what == "a parent" else watched.floor_tokens
        assert bool(is_asked) is (chains is Chains.UNPROVEN)


@pytest.mark.parametrize(
    ("first", "second", "item"),
    [
        ({"truncation": "auto"}, {"truncation": "auto"}, None),
        ({"context_management": []}, {"context_management": []}, None),
        ({}, {}, {"id": "ws", "type": "web_search_call", "status": "completed"}),
    ],
    ids=["truncated", "compacted", "a hosted tool's findings"],
)
def test_what_may_shorten_a_context_leaves_it_without_a_floor(
    first: dict[str, Any], second: dict[str, Any], item: dict[str, Any] | None
) -> None:
    story = book(chains=Chains.UNPROVEN)
    story.core.beliefs.of(KEY).chains = Chains.PROVEN
    with story:
        assert second_delta(story, first, second, item).floor_tokens is None


def second_delta(
    story: Playbook,
    first: dict[str, Any] | None = None,
    second: dict[str, Any] | None = None,
    item: dict[str, Any] | None = None,
) -> Stream:
    """The stream of a delta whose conversation had a delta before, both with usage."""
    usage: dict[str, Any]
    history: list[dict[str, Any]] = [user("t1")]
    for number, members in (("1", first or {}), ("2", first or {}), ("3", second or {})):
        story >> arrived(f"t{number}", *history, **members)
        story.take()
        if number == "1":
            story >> opened(1)
            story.take()
        turn = story.core.turns[TurnId(f"t{number}")]
        if number == "3":
            assert turn.stream is not None
            return turn.stream
        parent = None if number == "1" else "resp_t1"
        story >> sent(f"t{number}") >> created(1, "l01", f"resp_t{number}", parent)
        story.take()
        output = [*([item] if item and number == "2" else []), assistant(f"t{number}")]
        for index, each in enumerate(output):
            story >> frame(1, "response.output_item.done", "l01", output_index=index, item=each)
        usage = {"input_tokens": 100 * int(number), "output_tokens": 10}
        usage |= {"output_tokens_details": {"reasoning_tokens": 0}}
        response = {"id": f"resp_t{number}", "output": output, "usage": usage}
        story >> frame(1, "response.completed", "l01", response=response)
        story.take()
        history += [*output, user(f"more {number}")]
    raise AssertionError


def test_a_probe_whose_connection_the_machine_slept_over_is_sent_again() -> None:
    with book(chains=Chains.UNPROVEN) as story:
        started(story, "t1")
        story >> opened(2) << SendChainProbe(C2, KEY)
        story >> Slept(4000)
        story.take()
        assert story.core.beliefs.chains(KEY) is Chains.PROBING
        story >> passed(PROBE_AGAIN_S)
        story.take()
        assert story.core.beliefs.is_chain_probe_due(KEY, story.now)


# ── Where ────────────────────────────────────────────────────────────────────────────────────


def test_the_latest_of_an_idle_lane_is_continued_there() -> None:
    with one_turn_done() as story:
        story >> arrived("t2", *MORE) << delta("t2")
        story >> created(1, "l01", "resp_t2", "resp_t1") << Answer(T2)


def test_the_latest_of_a_busy_lane_is_forked() -> None:
    with one_turn_done() as story:
        story >> arrived("t2", *MORE) << delta("t2")
        other = (*MORE[:2], user("or else"))
        story >> arrived("t3", *other) << delta("t3", lane="l02", route=Route.FORK)


def test_a_conversation_is_continued_where_it_is_warm_whatever_the_session() -> None:
    with one_turn_done() as story:
        started(story, "x", connection=2, session="b")
        story >> arrived("t2", *MORE, session="b") << delta("t2", 1)


def test_a_checkpoint_whose_lane_went_on_is_evicted() -> None:
    with one_turn_done() as story:
        story >> arrived("t2", *MORE) << delta("t2")
        story >> completed(1, "l01", "resp_t2", [assistant("t2")]) << Answer(T2) << finishes("t2")
        other = (*MORE[:2], user("or else"))
        story >> arrived("t3", *other) << sends("t3", lane="l02", why="parent_evicted")


def test_a_stored_checkpoint_is_chained_by_id_on_another_connection() -> None:
    with book() as story:
        story >> arrived("t1", store=True) << opens(1)
        story >> opened(1) << sends("t1")
        story >> completed(1, "l01", "resp_t1", [assistant("t1")]) << Answer(T1) << finishes("t1")
        story >> ConnectionLost(C1, Fault.CONNECTION_ENDED, "", ())
        story >> arrived("t2", *(user("t1"), *MORE[1:]), store=True) << opens(2)
        story >> opened(2) << delta("t2", 2)


def test_two_refusals_of_stored_chains_in_a_row_turn_them_off_for_an_hour() -> None:
    with book() as story:
        story >> arrived("t1", store=True) << opens(1)
        story >> opened(1) << sends("t1")
        story >> completed(1, "l01", "resp_t1", [assistant("t1")]) << Answer(T1) << finishes("t1")
        story >> ConnectionLost(C1, Fault.CONNECTION_ENDED, "", ())
        story >> arrived("warm", session="s") << opens(2)
        story >> opened(2) << sends("warm", 2)
        for number, lane in ((1, "l02"), (2, "l02")):
            turn = f"a{number}"
            story >> arrived(turn, *MORE[:2], user(turn), store=True) << delta(turn, 2, lane)
            story >> sent(turn, 2)
            story >> error(2, lane, 400, code="previous_response_not_found")
            story << sends(turn, 2, lane, why="parent_refused")
            story >> error(2, lane, 500) << RelayError(TurnId(turn), ANY)
        story >> arrived("a3", *MORE, store=True) << sends("a3", 2, "l02", why="parent_evicted")
        assert story.core.beliefs.of(KEY).stored_off_until == story.now + STORED_OFF_S


def test_a_parent_named_by_the_client_goes_to_the_lane_that_owns_it() -> None:
    with one_turn_done() as story:
        started(story, "x", connection=2, session="b")
        story >> arrived("t2", session="b", previous_response_id="resp_t1")
        story << sends("t2", 1, "l01", why="own_context")


def test_a_retired_connection_takes_no_delta() -> None:
    with book() as story:
        started(story, "t1", "t2")
        finished(story, "t1")
        story >> error(1, None, 400, code="websocket_connection_limit_reached")
        story >> arrived("t3", *MORE) << opens(2)
        story >> opened(2) << sends("t3", 2, why="parent_evicted")


# ── Refusals ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("status", [400, 404, 409, 413, 422])
@pytest.mark.parametrize("code", ["anything", None], ids=["with code", "message only"])
def test_a_refused_delta_goes_once_more_in_full(status: int, code: str | None) -> None:
    with one_turn_done() as story:
        story >> arrived("t2", *MORE) << delta("t2")
        story >> sent("t2")
        story >> error(1, "l01", status, code=code) << sends("t2", why="parent_refused")
        story >> sent("t2")
        story >> error(1, "l01", status, code=code) << RelayError(T2, ANY)


@pytest.mark.parametrize("status", [401, 402, 403, 429, 500, 503])
def test_any_other_refusal_of_a_delta_is_relayed(status: int) -> None:
    with one_turn_done() as story:
        story >> arrived("t2", *MORE) << delta("t2")
        story >> sent("t2")
        story >> error(1, "l01", status) << RelayError(T2, ANY)
        story >> arrived("t3", *MORE) << sends("t3", why="parent_evicted")


def test_a_parent_named_by_the_client_is_never_replaced_by_the_whole_input() -> None:
    with one_turn_done() as story:
        story >> arrived("t2", previous_response_id="resp_gone") << sends("t2", lane="l02")
        story >> sent("t2")
        story >> error(1, "l02", 400, code="previous_response_not_found") << RelayError(T2, ANY)


def test_a_turn_that_failed_leaves_its_lane_cold() -> None:
    with one_turn_done() as story:
        story >> arrived("t2", *MORE) << delta("t2")
        story >> error(1, "l01", 500) << RelayError(T2, ANY)
        [connection] = story.core.pool.connections
        assert all(lane.warm is None for lane in connection.lanes.values())


def test_a_connection_that_is_closed_for_room_is_not_continued_on() -> None:
    with one_turn_done() as story:
        story >> passed(900) << CloseConnection(C1)
        story >> arrived("t2", *MORE) << opens(2)
        story >> opened(2) << sends("t2", 2, why="parent_evicted")
        assert T1 not in story.core.turns
        assert T3 not in story.core.turns
