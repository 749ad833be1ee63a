"""What a checkpoint shows of its track, and which checkpoints may share one."""

from __future__ import annotations

from typing import Any

import pytest

from tests.core.conversation_stage import KEY
from wsproxy.core.api.canonical import DIGEST_BYTES
from wsproxy.core.api.items import ECHO_RULES, Held
from wsproxy.core.conversation.checkpoint import (
    CALL_BYTES,
    CHECKPOINT_BYTES,
    CONVERSATION_BYTES,
    FIELD_BYTES,
    HELD_BYTES,
    LINK_BYTES,
    TRACK_BYTES,
    Checkpoint,
    Conversation,
    Track,
)
from wsproxy.core.ids import ConnectionId, Digest, LaneName, SessionName


def made(type_: str, content: bytes) -> Held:
    """As much of an output item as a track looks at: its type, and how long it is."""
    return Held(bytes([list(ECHO_RULES).index(type_)]) + content)


ANSWER, OTHER = made("message", b"answer"), made("message", b"other")
THOUGHT, SUMMARY = made("reasoning", b"thought"), made("compaction", b"s")


def digest(letter: str) -> bytes:
    return letter.encode() * DIGEST_BYTES


def link(letter: str) -> bytes:
    return letter.encode() * LINK_BYTES


def track(items: str, *held: Held | None, links: str | None = None) -> Track:
    """A letter an input item; `held` one an item, outputs too."""
    exact = b"".join(map(digest, items))
    return Track(exact, b"".join(map(link, links or items)), held)


def checkpoint(on: Track, count: int, length: int, **members: Any) -> Checkpoint:
    fields: dict[str, Any] = {"fields": {}, "open_calls": (), **members}
    return Checkpoint(
        key=KEY,
        response_id="resp",
        is_stored=False,
        track=on,
        count=count,
        length=length,
        chain=b"",
        raw=Digest(b""),
        session=SessionName(b"s"),
        home=(ConnectionId(1), LaneName("l01")),
        conversation=Conversation(1, KEY, b""),
        **fields,
    )


def conversation(*checkpoints: Checkpoint) -> Conversation:
    return Conversation(1, KEY, b"", list(checkpoints))


# ── Looking ──────────────────────────────────────────────────────────────────────────────────


def test_a_checkpoint_shows_its_own_part_of_a_longer_track() -> None:
    it = checkpoint(track("abcd", None, ANSWER, None, OTHER), 1, 2)
    assert it.exact == digest("a")
    assert it.links == it.chain_in == link("a")
    assert it.held == (None, ANSWER)


def test_the_link_after_the_input_is_the_last_of_its_links() -> None:
    it = checkpoint(track("abcd", None, None, None, ANSWER), 3, 4)
    assert it.links == link("a") + link("b") + link("c")
    assert it.chain_in == link("c")


def test_of_the_output_no_digest_is_known() -> None:
    it = checkpoint(track("abc", None, None, ANSWER), 2, 3)
    shown = [it.exact_at(position) for position in range(3)]
    assert shown == [digest("a"), digest("b"), None]


# ── Sharing ──────────────────────────────────────────────────────────────────────────────────

LONG = track("abc", None, ANSWER, None, OTHER)


@pytest.mark.parametrize(
    ("own", "is_shared"),
    [
        (track("a", None, ANSWER), True),
        (track("x", None, ANSWER, links="a"), False),
        (track("a", None, ANSWER, links="x"), False),
        (track("a", None, OTHER), False),
    ],
    ids=["a prefix", "another item", "another link", "another answer"],
)
def test_only_a_prefix_shares_the_longer_track(own: Track, is_shared: bool) -> None:
    it = checkpoint(own, 1, 2)
    before = (it.exact, it.links, it.held)
    conversation(it).share(LONG)
    assert (it.track is LONG) is is_shared
    assert (it.exact, it.links, it.held) == before


# ── Counting ─────────────────────────────────────────────────────────────────────────────────


def test_a_track_costs_its_digests_a_reference_an_item_and_what_the_model_made() -> None:
    expected = TRACK_BYTES + 2 * (DIGEST_BYTES + LINK_BYTES) + 3 * 8 + HELD_BYTES + len(ANSWER)
    assert track("ab", None, None, ANSWER).size_bytes == expected


@pytest.mark.parametrize(
    "before",
    [
        track("a", None, ANSWER),
        track("a", None, ANSWER, None),
        track("a", None, THOUGHT, OTHER),
        track("", *[SUMMARY] * 9),
        track(""),
    ],
    ids=["its start", "all of it but the answer", "a branch", "something longer", "nothing"],
)
@pytest.mark.parametrize("last", [OTHER, THOUGHT, SUMMARY], ids=["message", "reasoning", "summary"])
def test_a_track_that_goes_on_from_another_is_counted_as_if_it_were_the_first(
    before: Track, last: Held
) -> None:
    whole = track("ab", None, ANSWER, None, last)
    after = Track(whole.exact, whole.links, whole.held, before)
    assert after.size_bytes == whole.size_bytes
    assert after.can_shrink == whole.can_shrink == (last is not OTHER)


def test_what_a_model_may_leave_out_later_stays_known_to_the_end() -> None:
    start = track("a", None, THOUGHT)
    assert Track(b"", b"", (*start.held, None, ANSWER), start).can_shrink


def test_a_conversation_costs_what_it_holds_and_what_is_shared_once() -> None:
    first = checkpoint(LONG, 1, 2, fields={"model": b"", "tools": b""}, open_calls=("a", "b"))
    second = checkpoint(LONG, 3, 4, fields=first.fields, open_calls=("c",))
    third = checkpoint(track("z", None), 1, 1, fields={"model": b""})
    assert conversation(first, second, third).measured_bytes() == (
        CONVERSATION_BYTES
        + 3 * CHECKPOINT_BYTES
        + LONG.size_bytes
        + third.track.size_bytes
        + 3 * FIELD_BYTES
        + 3 * CALL_BYTES
    )
