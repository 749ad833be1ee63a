"""The account of all request bodies: nothing is counted twice, given back twice, or forgotten."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsproxy.downstream.room import NoRoomError, Room, Share

STEPS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 120)), max_size=30)


@given(STEPS)
def test_what_is_held_is_what_was_taken_and_never_more_than_there_is(
    steps: list[tuple[int, int]],
) -> None:
    room = Room(200)
    shares = [Share(room) for _ in range(4)]
    taken = [0] * 4
    for place, size in steps:
        if size == 0:
            shares[place].give_back()
            taken[place] = 0
        elif sum(taken) + size > 200:
            with pytest.raises(NoRoomError):
                shares[place].take(size)
        else:
            shares[place].take(size)
            taken[place] += size
        assert room.held_bytes == sum(taken) <= 200


def test_a_share_ends_with_its_block() -> None:
    room = Room(10)
    with Share(room) as share:
        share.take(10)
        share.give_back()
        share.take(7)
        assert room.held_bytes == 7
    assert room.held_bytes == 0
