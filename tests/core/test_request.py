"""A body is taken apart without losing a byte of what goes upstream."""

from __future__ import annotations

import pytest

from tests.canary import SAID, WATCH
from wsproxy.core.api.request import UnfitError, frame, parse
from wsproxy.core.ids import LaneName

L1 = LaneName("l01")


def test_members_and_items_keep_their_own_bytes() -> None:
    request = parse(
        b' {\n "mo\\u0064el" : "m\\/" ,"input":\t[ {"a": 1.0} , "x" ],"n":[1 , 2]\r}\n '
    )
    assert request.members["model"].key == b'"mo\\u0064el"'
    assert request.value("model") == b'"m\\/"'
    assert request.string("model") == "m/"
    assert request.value("n") == b"[1 , 2]"
    assert request.items is not None
    assert [bytes(item) for item in request.items] == [b'{"a": 1.0}', b'"x"']
    assert request.text is None


UNFIT = [
    ("not JSON", b"hello", "unparsed"),
    ("empty", b"", "unparsed"),
    ("no object", b"[]", "unparsed"),
    ("text", b'"{}"', "unparsed"),
    ("trailing comma", b'{"input":"x",}', "unparsed"),
    ("trailing text", b'{"input":"x"} x', "unparsed"),
    ("two documents", b'{"input":"x"}{"input":"x"}', "unparsed"),
    ("byte order mark", b'\xef\xbb\xbf{"input":"x"}', "unparsed"),
    ("invalid UTF-8", b'{"input":"\xff"}', "unparsed"),
    ("surrogate in UTF-8", b'{"input":"\xed\xa0\xbd"}', "unparsed"),
    ("control character", b'{"input":"\x01"}', "unparsed"),
    ("odd escape", b'{"input":"\\x"}', "unparsed"),
    ("NaN", b'{"input":"x","top_p":NaN}', "unparsed"),
    ("NaN in an item", b'{"input":[{"a":NaN}]}', "unparsed"),
    ("leading zero", b'{"input":"x","top_p":01}', "unparsed"),
    ("out of range", b'{"input":"x","top_p":1e400}', "unparsed"),
    ("out of range, deep", b'{"input":"x","metadata":{"a":[-1E+400]}}', "unparsed"),
    ("digits and exponent", b'{"input":"x","top_p":%se99}' % (b"9" * 211), "unparsed"),
    ("a thousand digits", b'{"input":"x","top_p":%s}' % (b"9" * 1000), "unparsed"),
    ("a name twice", b'{"input":"x","model":"m","model":"m"}', "unparsed"),
    ("a name twice, other value", b'{"model":12,"input":"x","model":1}', "unparsed"),
    ("a name twice, escaped", b'{"input":"x","\\u0069nput":"y"}', "unparsed"),
    ("a name twice, both input", b'{"input":[1],"input":[1,2]}', "unparsed"),
    ("half a pair in a name", b'{"input":"x","\\ud83d":1}', "unparsed"),
    ("deep member", b'{"input":"x","tools":' + b"[" * 64 + b"]" * 64 + b"}", "unparsed"),
    ("deep odd input", b'{"input":{"a":' + b"[" * 63 + b"]" * 63 + b"}}", "unparsed"),
    ("far too deep", b'{"input":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "unparsed"),
    ("type", b'{"input":"x","type":"response.create"}', "reserved_member"),
    ("type null", b'{"input":"x","type":null}', "reserved_member"),
    ("stream_id", b'{"input":"x","stream_id":"a"}', "reserved_member"),
    ("generate", b'{"input":"x","gener\\u0061te":false}', "reserved_member"),
    ("background", b'{"input":"x","background":true}', "background"),
    ("odd background", b'{"input":"x","background":1}', "odd_member"),
    ("odd stream", b'{"input":"x","stream":"yes"}', "odd_member"),
    ("many items", b'{"input":[1,1,1,1]}', "too_large"),
]


@pytest.mark.parametrize(
    ("body", "reason"), [row[1:] for row in UNFIT], ids=[row[0] for row in UNFIT]
)
def test_what_is_upstreams_to_judge_goes_over_https(body: bytes, reason: str) -> None:
    with pytest.raises(UnfitError) as caught:
        parse(body.replace(b'"input":"x"', b'"input":%b' % SAID), max_items=3)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    "body",
    [
        b'{"input":"x","top_p":1e-400}',
        b'{"input":"x","metadata":{"id":"3e400"}}',
        b'{"input":"x","metadata":{"id":"3e400","a":1,"a":2}}',
        b'{"input":"x","tools":' + b"[" * 63 + b"]" * 63 + b"}",
        b'{"input":"x","a":{"type":1,"stream_id":2}}',
        b'{"input":"x","background":null,"stream":null}',
        b"{}",
    ],
    ids=["tiny", "text", "opaque inside", "63 deep", "nested names", "nulls", "nothing"],
)
def test_what_strict_json_takes_is_fit(body: bytes) -> None:
    request = parse(body.replace(b'"x"', SAID))
    WATCH.look("a request's repr", repr(request))


@pytest.mark.parametrize(
    ("body", "is_streaming", "store_is_false"),
    [
        (b"{}", False, False),
        (b'{"stream":true,"store":false}', True, True),
        (b'{"stream":false,"store":true}', False, False),
        (b'{"stream":null,"store":null}', False, False),
        (b'{"store":"false"}', False, False),
    ],
)
def test_flags_are_read(body: bytes, is_streaming: bool, store_is_false: bool) -> None:
    request = parse(body)
    assert (request.is_streaming, request.store_is_false) == (is_streaming, store_is_false)


@pytest.mark.parametrize(
    ("members", "is_whole"),
    [
        (b'"input":"x"', True),
        (b'"input":[1]', True),
        (b'"input":[1],"previous_response_id":null,"conversation":null', True),
        (b'"input":[1],"previous_response_id":"r"', False),
        (b'"input":[1],"previous_response_id":""', False),
        (b'"input":[1],"conversation":"c"', False),
        (b'"input":[1],"conversation":{}', False),
        (b'"model":"m"', False),
        (b'"input":null', False),
        (b'"input":[]', False),
        (b'"input":""', False),
        (b'"input":{}', False),
        (b'"input":7', False),
    ],
)
def test_only_an_input_that_says_everything_is_the_whole_context(
    members: bytes, is_whole: bool
) -> None:
    assert parse(b"{%s}" % members).is_whole_context is is_whole


@pytest.mark.parametrize(
    ("value", "expected"),
    [(b'"k"', "k"), (b'"\\u00e9"', "é"), (b'""', ""), (b"null", None), (b"7", None),
     (b'"\\ud83d"', None), (b'"\\ud83d half a pair"', None)],
)  # fmt: skip
def test_a_string_member_is_its_characters_or_nothing(value: bytes, expected: str | None) -> None:
    assert parse(b'{"prompt_cache_key":%s}' % value).string("prompt_cache_key") == expected


def test_half_a_surrogate_pair_in_a_text_is_carried_as_it_is() -> None:
    first, second = b'{"a" : "\\ud83d cut"}', b'"\\\\ud83d \\uDE00\\ud83d\\ude00"'
    request = parse(b'{"a":"\\ud800","input": [%s ,%s ],"b":1}' % (first, second))
    assert request.items == [first, second]
    assert request.value("a") == b'"\\ud800"'
    sent = frame(request, lane=L1, parent="r", delta_from=1)
    assert b'"input":[%s]' % second in sent


# ── Frames ───────────────────────────────────────────────────────────────────────────────────

BODY = (
    b'{"model":"m", "stream":true,"input": [1 , {"a" : 1.0},"x"],"background":false,"n" : [1, 2]}'
)


def test_a_full_frame_is_the_body_with_its_values_untouched() -> None:
    assert frame(parse(BODY), lane=L1) == (
        b'{"type":"response.create","stream_id":"l01","model":"m",'
        b'"input":[1 , {"a" : 1.0},"x"],"n":[1, 2]}'
    )


def test_the_default_lane_has_no_name() -> None:
    assert frame(parse(b"{}"), lane=LaneName("")) == b'{"type":"response.create"}'


@pytest.mark.parametrize(("delta_from", "input_"), [(1, b'[{"a" : 1.0},"x"]'), (2, b'["x"]')])
def test_a_delta_holds_the_new_items_alone(delta_from: int, input_: bytes) -> None:
    assert frame(parse(BODY), lane=L1, parent='r"1', delta_from=delta_from) == (
        b'{"type":"response.create","stream_id":"l01","previous_response_id":"r\\"1",'
        b'"model":"m","input":%s,"n":[1, 2]}' % input_
    )


def test_a_deltas_parent_stands_in_place_of_the_clients_null() -> None:
    request = parse(b'{"previous_response_id":null,"input":[1,2]}')
    assert frame(request, lane=L1, parent="r", delta_from=1).count(b"previous_response_id") == 1
    assert b'"previous_response_id":null' in frame(request, lane=L1)


def test_a_parent_that_the_client_named_stays_as_it_is() -> None:
    request = parse(b'{"previous_response_id" : "\\u0072","input":"x"}')
    assert request.own_parent == b'"\\u0072"'
    assert b'"previous_response_id":"\\u0072"' in frame(request, lane=L1)
    assert parse(b"{}").own_parent is None
