"""Who of the clients that read slowly is cut, and when (F39, F47)."""

from __future__ import annotations

import pytest

from wsproxy.core.ids import TurnId
from wsproxy.core.multiplex.readers import ReaderLimits, Readers

A, B, C = (TurnId(name) for name in "abc")


def readers(**buffered: int) -> Readers:
    made = Readers(ReaderLimits(per_turn_bytes=100, stall_s=10.0, total_bytes=300))
    for name, size in buffered.items():
        made.saw(TurnId(name), 0, size, 0.0)
    return made


def test_over_the_cap_of_all_buffers_the_largest_is_cut_first_until_the_rest_fits() -> None:
    made = readers(a=120, b=150, c=140)
    cut = []
    while (turn := made.largest()) is not None:
        cut.append(turn)
        made.caught_up(turn)
    assert cut == [B]
    assert made.buffered_bytes == 260


def test_at_the_cap_nobody_is_cut() -> None:
    assert readers(a=150, b=150).largest() is None


@pytest.mark.parametrize(
    ("size", "taken", "now", "cut"),
    [
        (101, 0, 10.0, [A]),
        (101, 0, 9.9, []),
        (100, 0, 10.0, []),
        (201, 50, 15.0, []),
        (201, 50, 16.0, [A]),
    ],
    ids=["stalled", "not for long enough", "not far enough", "it took some", "and then no more"],
)
def test_a_reader_is_cut_that_is_far_behind_and_takes_nothing_for_long(
    size: int, taken: int, now: float, cut: list[TurnId]
) -> None:
    made = readers(a=size)
    made.saw(A, taken, size - taken, 6.0)
    assert made.stalled(now) == cut
