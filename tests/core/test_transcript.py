"""A request's items are read once, and only as far as needed."""

from __future__ import annotations

import pytest

from tests.canary import SAID, WATCH
from wsproxy.core.api.request import UnfitError, parse
from wsproxy.core.conversation.transcript import Transcript


def transcript(input_: bytes, max_depth: int = 64) -> Transcript:
    request = parse(b'{"input":%s}' % input_.replace(b'"a"', SAID), max_depth=max_depth)
    made = Transcript(request, max_depth=max_depth)
    WATCH.look("a transcript's repr", repr(made))
    return made


def test_an_item_is_parsed_when_it_is_first_asked_for() -> None:
    made = transcript(b'[{"role":"user","content":"a"},{"role":"user","content":1e400}]')
    assert (len(made), made.read_count) == (2, 0)
    assert made.item(0) is made.item(0)
    assert made.read_count == 1
    with pytest.raises(UnfitError, match="unparsed"):
        made.item(1)


@pytest.mark.parametrize(("input_", "count"), [(b'"a"', 1), (b"[]", 0), (b"null", 0), (b"{}", 0)])
def test_an_input_has_as_many_items_as_it_says(input_: bytes, count: int) -> None:
    assert len(transcript(input_)) == count


def test_items_are_read_down_to_the_bodys_limit() -> None:
    def nested(depth: int) -> bytes:
        return b'[{"type":"t","v":%s}]' % (b"[" * (depth - 3) + b"]" * (depth - 3))

    assert transcript(nested(10), max_depth=10).item(0).exact is not None
    with pytest.raises(UnfitError):
        transcript(nested(11), max_depth=10).item(0)
    assert transcript(nested(500), max_depth=500).item(0).exact is not None


def test_what_was_let_go_of_still_tells_what_was_read() -> None:
    made = transcript(b'[{"role":"user","content":"a"},{"role":"user","content":"b"}]')
    first, second = made.item(0), made.item(1)
    WATCH.look("an item's repr", repr(first))
    made.let_go()
    assert (len(made), made.item(0), made.item(1)) == (2, first, second)


def test_a_raw_prefix_is_equal_only_for_the_same_bytes() -> None:
    one = transcript(b'[{"a":1},{"b":1},{"c":1}]').raw_prefixes(b"k", {1, 2, 3, 7})
    two = transcript(b'[{"a":1} , {"b":1},{"c": 1}]').raw_prefixes(b"k", {0, 1, 2, 3})
    other_key = transcript(b'[{"a":1}]').raw_prefixes(b"o", {1})
    assert set(one) == set(two) == {1, 2, 3}
    assert [one[n] == two[n] for n in (1, 2, 3)] == [True, True, False]
    assert other_key[1] != one[1]


def test_items_cannot_be_split_in_another_way() -> None:
    splits = [b'["a,b"]', b'["a","b"]', b'"a,b"', b'[["a","b"]]', b'["a,","b"]']
    digests = [
        digest for s in splits for digest in transcript(s).raw_prefixes(b"k", {1, 2}).values()
    ]
    assert len(set(digests)) == len(digests) == 7
    assert transcript(b'"a"').raw_prefixes(b"k", {1}) != transcript(b'["a"]').raw_prefixes(
        b"k", {1}
    )
