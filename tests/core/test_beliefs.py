"""What is learned of an upstream, and the way back from it."""

from __future__ import annotations

import pytest

from tests.core.stage import KEY, OTHER_KEY
from wsproxy.core.ids import PoolKey, SessionName
from wsproxy.core.multiplex.beliefs import (
    PROBE_AGAIN_S,
    REFUTED_FOR_S,
    REMEMBERED_KEYS,
    STORED_OFF_S,
    Beliefs,
    Chains,
)
from wsproxy.core.multiplex.connection import Lanes
from wsproxy.core.multiplex.recovery import Fault


def beliefs(lanes: Lanes = Lanes.UNKNOWN, chains: Chains = Chains.UNPROVEN) -> Beliefs:
    return Beliefs(lanes=lanes, chains=chains, no_websocket_key_s=60, no_websocket_url_s=600)


@pytest.mark.parametrize(
    ("fault", "of_key_s", "of_other_s"),
    [
        (Fault.UPGRADE_UNAUTHORIZED, 60, None),
        (Fault.UPGRADE_RATE_LIMITED, 60, None),
        (Fault.CLOSED_POLICY, 60, None),
        (Fault.UPGRADE_UNSUPPORTED, 600, 600),
        (Fault.UNREACHABLE, 1, None),
        (Fault.UPGRADE_FAILED, 1, None),
    ],
    ids=lambda value: value.name if isinstance(value, Fault) else None,
)
def test_for_whom_and_how_long(fault: Fault, of_key_s: float, of_other_s: float | None) -> None:
    it = beliefs()
    it.refused(KEY, fault, None, 100.0, 0.0)
    doubt, other = it.doubt(KEY), it.doubt(OTHER_KEY)
    assert doubt is not None
    assert (doubt.fault, doubt.until) == (fault, 100 + of_key_s)
    assert (other.until - 100 if other else None) == of_other_s


def test_a_success_ends_every_doubt() -> None:
    it = beliefs()
    it.refused(KEY, Fault.UPGRADE_UNSUPPORTED, None, 0.0, 0.0)
    it.refused(KEY, Fault.UPGRADE_UNAUTHORIZED, None, 0.0, 0.0)
    it.opened(KEY)
    assert it.doubt(KEY) is None
    assert (it.url_no_websocket_until, it.of(KEY).no_websocket_until) == (0.0, 0.0)


def test_the_longer_doubt_counts() -> None:
    it = beliefs()
    it.refused(KEY, Fault.UPGRADE_UNSUPPORTED, None, 0.0, 0.0)
    it.refused(KEY, Fault.UPGRADE_RATE_LIMITED, 900, 0.0, 0.0)
    doubt = it.doubt(KEY)
    assert doubt is not None
    assert doubt.until == 900


def test_what_the_operator_said_of_lanes_is_not_unlearned() -> None:
    for said in (Lanes.ON, Lanes.OFF):
        it = beliefs(lanes=said)
        it.lanes_learned(KEY, Lanes.UNKNOWN)
        assert it.of(KEY).lanes is said


def test_lanes_are_learned_key_by_key() -> None:
    it = beliefs()
    it.lanes_learned(KEY, Lanes.ON)
    assert (it.of(KEY).lanes, it.of(OTHER_KEY).lanes) == (Lanes.ON, Lanes.UNKNOWN)


@pytest.mark.parametrize(
    ("told", "believed", "again_s"),
    [
        (True, Chains.PROVEN, None),
        (False, Chains.REFUTED, REFUTED_FOR_S),
        (None, Chains.UNPROVEN, PROBE_AGAIN_S),
    ],
    ids=["looked up", "not looked up", "nothing told"],
)
def test_a_chain_probe(told: bool | None, believed: Chains, again_s: float | None) -> None:
    it = beliefs()
    assert it.is_chain_probe_due(KEY, 0.0)
    assert it.chains_probed(KEY, told, 0.0) is believed
    assert not it.is_chain_probe_due(KEY, (again_s or 1e9) - 1)
    assert it.is_chain_probe_due(KEY, again_s or 0.0) is (again_s is not None)


@pytest.mark.parametrize("said", [Chains.PROVEN, Chains.REFUTED])
def test_what_the_operator_said_of_chains_is_not_asked(said: Chains) -> None:
    assert not beliefs(chains=said).is_chain_probe_due(KEY, 0.0)


@pytest.mark.parametrize("said", [Chains.PROVEN, Chains.UNPROVEN])
def test_a_lost_context_is_never_forgiven(said: Chains) -> None:
    it = beliefs(chains=said)
    it.context_lost()
    it.chains_probed(KEY, True, 0.0)
    assert it.chains(KEY) is it.chains(OTHER_KEY) is Chains.REFUTED
    assert not it.is_chain_probe_due(KEY, 1e9)


def test_stored_chains_are_left_alone_after_two_refusals_in_a_row() -> None:
    it = beliefs()
    it.stored_refused(KEY, 0.0)
    it.stored_accepted(KEY)
    it.stored_refused(KEY, 1.0)
    assert it.of(KEY).stored_off_until == 0.0
    it.stored_refused(KEY, 2.0)
    assert it.of(KEY).stored_off_until == 2.0 + STORED_OFF_S


def test_an_upstream_that_forgets_warm_parents_twice_in_a_row_gets_no_more_deltas() -> None:
    it = beliefs()
    it.chains_probed(KEY, True, 0.0)
    it.warm_refused(KEY, 1.0)
    it.warm_accepted(KEY)
    it.warm_refused(KEY, 2.0)
    assert it.chains(KEY) is Chains.PROVEN
    it.warm_refused(KEY, 3.0)
    assert it.chains(KEY) is Chains.REFUTED
    assert not it.is_chain_probe_due(KEY, 3.0 + REFUTED_FOR_S - 1)


def test_chains_that_the_operator_vouched_for_outlive_refusals() -> None:
    it = beliefs(chains=Chains.PROVEN)
    for at in (1.0, 2.0, 3.0):
        it.warm_refused(KEY, at)
    assert it.chains(KEY) is Chains.PROVEN


def test_that_we_had_no_descriptor_left_says_nothing_of_upstream() -> None:
    it = beliefs()
    it.refused(KEY, Fault.OUT_OF_DESCRIPTORS, None, 100.0, 1.0)
    assert it.doubt(KEY) is None
    assert it.of(KEY).dial_failures == 0


def test_the_longest_turn_is_the_sessions() -> None:
    it = beliefs()
    a, b = SessionName(b"a"), SessionName(b"b")
    it.turn_took(KEY, a, 30.0)
    it.turn_took(KEY, a, 10.0)
    assert (it.longest_turn_s(KEY, a), it.longest_turn_s(KEY, b)) == (30.0, 0.0)
    assert it.longest_turn_s(OTHER_KEY, a) == 0.0


def test_keys_are_forgotten_least_recently_used_first() -> None:
    it = beliefs()
    for number in range(REMEMBERED_KEYS + 10):
        it.of(PoolKey(b"%d" % number))
    assert len(it.shown()) == REMEMBERED_KEYS
