"""The fault table: total, and never willing to send a turn twice that may have run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain, combinations, product
from pathlib import Path

import pytest

from wsproxy.core.multiplex.recovery import (
    CLOSE_CODE,
    CONNECTION_FATE,
    RECOVERY,
    Abandon,
    Break,
    Cell,
    Condition,
    Drop,
    Facts,
    FallBack,
    Fate,
    Fault,
    If,
    Ignore,
    Phase,
    Refuse,
    Relay,
    Retry,
    Unreachable,
    Verdict,
    Wait,
    Where,
    guarantees,
    verdict,
)

PAGE = Path(__file__).parents[2] / "docs" / "guarantees.md"

#: Upstream itself said, in a frame that names the turn, that it did not run it; or RFC 6455 does.
REFUSALS = {
    Fault.CLOSED_TOO_BIG,
    Fault.PREVIOUS_RESPONSE_NOT_FOUND,
    Fault.CONNECTION_LIMIT_REACHED,
    Fault.STREAM_LIMIT_REACHED,
    Fault.REQUEST_REFUSED,
}


def leaves(cell: Cell) -> Iterator[Verdict]:
    if isinstance(cell, If):
        yield cell.then
        yield from leaves(cell.otherwise)
    else:
        yield cell


def everything() -> list[Facts]:
    sets = (combinations(Condition, size) for size in range(len(Condition) + 1))
    return [Facts(some) for some in chain.from_iterable(sets)]


def test_recovery_is_total() -> None:
    assert set(RECOVERY) == set(product(Fault, Phase))
    assert set(CONNECTION_FATE) == set(Fault)


def test_33_cells_cannot_be_and_155_have_a_behaviour() -> None:
    unreachable = [key for key, cell in RECOVERY.items() if isinstance(cell, Unreachable)]
    assert (len(unreachable), len(RECOVERY) - len(unreachable)) == (33, 155)
    assert all(
        not isinstance(leaf, Unreachable)
        for key, cell in RECOVERY.items()
        if key not in unreachable
        for leaf in leaves(cell)
    )


def test_a_turn_that_may_have_started_is_never_sent_again() -> None:
    for (fault, phase), cell in RECOVERY.items():
        if phase is not Phase.ADMITTED and fault not in REFUSALS:
            assert not any(isinstance(leaf, Retry | FallBack) for leaf in leaves(cell)), fault


def test_a_turn_that_has_started_or_finished_is_never_sent_again_at_all() -> None:
    for fault, phase in product(Fault, (Phase.STARTED, Phase.FINISHED)):
        for facts in everything():
            assert not isinstance(verdict(fault, phase, facts), Retry | FallBack)


def test_only_a_turn_with_nothing_written_gets_a_status_of_ours() -> None:
    for (fault, phase), cell in RECOVERY.items():
        has_begun = phase in (Phase.STARTED, Phase.FINISHED)
        forbidden = Refuse if has_begun else Break
        assert not any(isinstance(leaf, forbidden) for leaf in leaves(cell)), (fault, phase)


def test_a_finished_turn_has_its_end() -> None:
    ends = {type(leaf) for fault in Fault for leaf in leaves(RECOVERY[fault, Phase.FINISHED])}
    assert {kind.__name__ for kind in ends} == {"Ignore", "Unreachable", "Abandon", "Lost"}


def test_a_refusal_after_the_frame_left_says_that_the_outcome_is_unknown() -> None:
    for (fault, phase), cell in RECOVERY.items():
        for leaf in leaves(cell):
            if isinstance(leaf, Refuse):
                assert leaf.is_outcome_unknown is (phase is Phase.SENT), fault


def test_no_retry_is_endless() -> None:
    spent = Facts({*Condition, Condition.RETRIES_SPENT})
    for fault, phase in product(Fault, Phase):
        assert not isinstance(verdict(fault, phase, spent), Retry), fault


def test_waiting_leads_to_a_fault_that_ends_the_turn() -> None:
    for (fault, phase), cell in RECOVERY.items():
        for leaf in leaves(cell):
            if isinstance(leaf, Wait):
                after = RECOVERY[leaf.until, phase]
                assert isinstance(after, Retry | Refuse | Break), (fault, phase)


SENT_CELLS: list[tuple[Fault, set[Condition], Verdict]] = [
    (Fault.CONNECTION_RESET, set(), Refuse(502, "upstream_outcome_unknown", True)),
    (Fault.PATH_DEAD, set(), Refuse(504, "upstream_outcome_unknown", True)),
    (Fault.CLOSED_RESTARTING, set(), Refuse(503, "upstream_outcome_unknown", True)),
    (Fault.CLOSED_TOO_BIG, set(), Refuse(502, "upstream_outcome_unknown", True)),
    (Fault.CLOSED_TOO_BIG, {Condition.SOLE_SENT_TURN}, FallBack()),
    (Fault.PREVIOUS_RESPONSE_NOT_FOUND, set(), Relay()),
    (
        Fault.PREVIOUS_RESPONSE_NOT_FOUND,
        {Condition.OUR_ID},
        Retry(Where.SAME_CONNECTION, spent=Relay()),
    ),
    (Fault.CONNECTION_LIMIT_REACHED, set(), Refuse(502, "upstream_outcome_unknown", True)),
    (
        Fault.CONNECTION_LIMIT_REACHED,
        {Condition.NAMED},
        Retry(Where.NEW_CONNECTION),
    ),
    (
        Fault.CONNECTION_LIMIT_REACHED,
        {Condition.SOLE_SENT_TURN},
        Retry(Where.NEW_CONNECTION),
    ),
    (Fault.REQUEST_REFUSED, set(), Relay()),
    (Fault.REQUEST_REFUSED, {Condition.OUR_DELTA}, Retry(Where.SAME_CONNECTION, spent=Relay())),
    (Fault.REQUEST_REFUSED, {Condition.OUR_DELTA, Condition.RETRIES_SPENT}, Relay()),
    (Fault.RATE_LIMITED, {Condition.OUR_DELTA}, Relay()),
    (Fault.CLIENT_SLOW, set(), Ignore()),
    (Fault.CLIENT_SLOW, {Condition.BUFFER_FULL}, Abandon()),
    (Fault.DRAINING, set(), Ignore()),
    (Fault.DRAINING, {Condition.DEADLINE_PASSED}, Refuse(503, "upstream_outcome_unknown", True)),
]


@pytest.mark.parametrize(
    ("fault", "facts", "expected"),
    SENT_CELLS,
    ids=[" ".join([f.name, *sorted(c.name for c in facts)]) for f, facts, _ in SENT_CELLS],
)
def test_a_sent_turn_is_judged_by_the_facts(
    fault: Fault, facts: set[Condition], expected: Verdict
) -> None:
    assert verdict(fault, Phase.SENT, Facts(facts)) == expected


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (Fault.CONNECTION_RESET, Retry()),
        (Fault.CLOSED_POLICY, FallBack()),
        (Fault.UPGRADE_UNSUPPORTED, FallBack()),
        (Fault.TLS_FAILED, Refuse(502, "upstream_tls")),
        (Fault.CLIENT_LEFT, Drop()),
        (Fault.OVERLOADED, Refuse(503, "proxy_overloaded", retry_after_s=1)),
    ],
    ids=lambda value: value.name if isinstance(value, Fault) else None,
)
def test_a_turn_that_never_left_moves_on(fault: Fault, expected: Verdict) -> None:
    assert verdict(fault, Phase.ADMITTED) == expected


def test_a_turn_that_cannot_be_sent_goes_over_https_in_the_end() -> None:
    spent = Facts({Condition.RETRIES_SPENT})
    assert verdict(Fault.CONNECTION_RESET, Phase.ADMITTED, spent) == FallBack()


def test_whoever_closes_says_why_only_where_it_closes() -> None:
    assert all(CONNECTION_FATE[fault] is Fate.CLOSE for fault in CLOSE_CODE)


def test_the_page_is_what_the_table_says() -> None:
    assert PAGE.read_text(encoding="utf-8") == guarantees()


def test_every_fault_is_a_line_of_the_page() -> None:
    lines = [line for line in guarantees().splitlines() if re.match(r"\| F[0-9]", line)]
    assert [line[2:5] for line in lines] == [f"F{number:02}" for number in range(1, 48)]
    assert all(line.count(" | ") == 6 for line in lines)
