"""Dials are paid for by turns, and paced after a mass loss."""

from __future__ import annotations

import pytest

from tests.core.stage import KEY, OTHER_KEY
from wsproxy.core.multiplex.dial_pace import BURST, DIALS_PER_S, DialPace


def spent(now: float = 0.0) -> DialPace:
    """A key that has dialled as often as it may at once."""
    pace = DialPace()
    for _ in range(int(BURST)):
        assert pace.dial_from(KEY, now) == now
        pace.dialled(KEY, now)
    return pace


def test_a_key_without_budget_waits_until_it_is_earned() -> None:
    pace = spent()
    assert pace.dial_from(KEY, 0.0) == pytest.approx(1 / DIALS_PER_S, abs=1e-3)
    at = pace.dial_from(KEY, 0.0)
    assert pace.dial_from(KEY, at) == at


def test_five_turns_pay_for_one_dial() -> None:
    pace = spent()
    for _ in range(5):
        pace.admitted(KEY, 0.0)
    assert pace.dial_from(KEY, 0.0) == pytest.approx(0.0, abs=1e-5)


def test_savings_are_bounded() -> None:
    pace = DialPace()
    for _ in range(1000):
        pace.admitted(KEY, 0.0)
    for _ in range(int(BURST)):
        pace.dialled(KEY, 0.0)
    assert pace.dial_from(KEY, 0.0) > 0


def test_keys_do_not_pay_for_each_other() -> None:
    assert spent().dial_from(OTHER_KEY, 0.0) == 0.0


def test_one_loss_is_no_mass_loss() -> None:
    pace = DialPace()
    pace.lost(KEY, 0.0, 1.0)
    pace.dialled(KEY, 0.0)
    assert pace.dial_from(KEY, 0.0) == 0.0


def test_after_a_mass_loss_dials_are_half_a_second_apart() -> None:
    pace = DialPace()
    for _ in range(3):
        pace.lost(KEY, 0.0, 0.4)
    assert pace.dial_from(KEY, 0.0) == 0.2
    pace.dialled(KEY, 0.2)
    assert pace.dial_from(KEY, 0.2) == 0.7


def test_the_pace_is_forgotten_after_a_while() -> None:
    pace = DialPace()
    pace.lost(KEY, 0.0, 0.0)
    pace.lost(KEY, 0.0, 0.0)
    pace.dialled(KEY, 10.0)
    assert pace.dial_from(KEY, 10.0) == 10.0


def test_losses_far_apart_are_no_mass_loss() -> None:
    pace = DialPace()
    for at in (0.0, 6.0, 12.0):
        pace.lost(KEY, at, 1.0)
        pace.dialled(KEY, at)
        assert pace.dial_from(KEY, at) == at


def test_try_again_later_is_later() -> None:
    pace = DialPace()
    pace.asked_to_wait(KEY, 0.0, 0.5)
    assert pace.dial_from(KEY, 0.0) == 0.75
