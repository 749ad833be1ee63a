"""Who is asking: pool keys never meet, sessions only prefer."""

from __future__ import annotations

from typing import Final

import pytest

from tests.canary import SECRET, WATCH, secret
from wsproxy.config import Settings
from wsproxy.core.conversation.identity import (
    NEW_HINTS_IN_A_ROW,
    WATCHED_NAMES,
    HeaderClasses,
    Hints,
    Identities,
    Identity,
    Patterns,
)
from wsproxy.core.ids import SessionName

URL: Final = "wss://api.openai.com/v1/responses"
SETTINGS: Final = Settings()
CLASSES: Final = HeaderClasses(
    identity=Patterns(SETTINGS.identity_headers),
    session=SETTINGS.session_headers,
    per_request=Patterns(SETTINGS.per_request_headers),
    hop_by_hop=Patterns(SETTINGS.hop_by_hop_headers),
)
TOKEN, OTHER_TOKEN = SECRET.encode(), secret("two").encode()
AUTH: Final = (b"Authorization", b"Bearer " + TOKEN)


def identities(secret: bytes = b"s" * 32) -> Identities:
    return Identities(CLASSES, secret)


def read(*headers: tuple[bytes, bytes], url: str = URL) -> Identity:
    found = identities().read(url, headers)
    WATCH.look("an identity's repr", repr(found))
    return found


SAME: Final = [
    ("name in other case", [(b"AUTHORIZATION", b"Bearer " + TOKEN), (b"OpenAI-Project", b"p")]),
    ("other order", [(b"OpenAI-Project", b"p"), AUTH]),
    ("a session", [AUTH, (b"openai-project", b"p"), (b"session-id", b"1")]),
    ("per request", [AUTH, (b"openai-project", b"p"), (b"x-stainless-lang", b"python"),
                     (b"Traceparent", b"0"), (b"Content-Length", b"7"), (b"Accept", b"*/*")]),
    ("hop by hop", [AUTH, (b"openai-project", b"p"), (b"Host", b"x"), (b"Connection", b"close")]),
    ("named by Connection", [AUTH, (b"openai-project", b"p"), (b"connection", b"x-a , X-B"),
                             (b"x-a", b"1"), (b"X-b", b"2")]),
]  # fmt: skip
OTHER: Final = [
    (
        "other token",
        [(b"Authorization", b"Bearer " + OTHER_TOKEN), (b"openai-project", b"p")],
    ),
    (
        "token in other case",
        [(b"Authorization", b"bearer " + TOKEN), (b"openai-project", b"p")],
    ),
    ("no token", [(b"openai-project", b"p")]),
    ("other project", [AUTH, (b"openai-project", b"q")]),
    ("empty project", [AUTH, (b"openai-project", b"")]),
    ("no project", [AUTH]),
    ("two projects", [AUTH, (b"openai-project", b"p"), (b"openai-project", b"p")]),
    ("an organization", [AUTH, (b"openai-project", b"p"), (b"OpenAI-Organization", b"o")]),
    ("a beta", [AUTH, (b"openai-project", b"p"), (b"OpenAI-Beta", b"x")]),
    ("an unknown header", [AUTH, (b"openai-project", b"p"), (b"x-new", b"1")]),
    ("name and value shifted", [AUTH, (b"openai-projectp", b"")]),
]


@pytest.mark.parametrize("headers", [row[1] for row in SAME], ids=[row[0] for row in SAME])
def test_headers_that_say_nothing_of_identity_share_a_key(
    headers: list[tuple[bytes, bytes]],
) -> None:
    assert read(*headers).pool_key == read(AUTH, (b"openai-project", b"p")).pool_key


@pytest.mark.parametrize("headers", [row[1] for row in OTHER], ids=[row[0] for row in OTHER])
def test_any_other_identity_has_a_key_of_its_own(headers: list[tuple[bytes, bytes]]) -> None:
    assert read(*headers).pool_key != read(AUTH, (b"openai-project", b"p")).pool_key


def test_lines_of_one_name_keep_their_order() -> None:
    one, two = (b"OpenAI-Beta", b"a"), (b"openai-beta", b"b")
    assert read(one, two).pool_key != read(two, one).pool_key


def test_the_url_and_the_process_are_in_the_key() -> None:
    keys = {
        read(AUTH).pool_key,
        read(AUTH, url=URL + "?api-version=1").pool_key,
        read(AUTH, url="wss://api.openai.com:444/v1/responses").pool_key,
        identities(b"another").read(URL, [AUTH]).pool_key,
    }
    assert len(keys) == 4
    assert all(len(key) == 32 for key in keys)


def test_only_identity_travels_on_the_upgrade_as_it_was_written() -> None:
    headers = [AUTH, (b"X-New", b"1"), (b"Session-Id", b"s"), (b"User-Agent", b"u"), (b"TE", b"t")]
    assert read(*headers).headers == [AUTH, (b"X-New", b"1")]
    assert "Bearer" not in repr(read(*headers))


# ── Sessions ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", SETTINGS.session_headers)
def test_each_session_header_is_a_hint(name: str) -> None:
    hint = read((name.upper().encode(), b"7")).hint
    assert hint is not None
    assert hint[0] == name
    assert b"7" not in bytes(hint[1])


def test_the_first_session_header_of_the_list_is_the_hint() -> None:
    first, later = (b"session-id", b"a"), (b"thread-id", b"b")
    assert read(later, first).hint == read(first).hint
    assert read((b"session-id", b""), later).hint == read(later).hint
    assert read(first, (b"session-id", b"z")).hint == read(first).hint
    assert read(first).hint != read((b"session-id", b"b")).hint
    assert read(AUTH).hint is None


def test_equal_values_of_two_sources_are_two_sessions() -> None:
    assert read((b"session-id", b"a")).hint != read((b"thread-id", b"a")).hint


def test_a_hint_that_is_new_every_time_is_no_hint() -> None:
    hints = Hints()
    for n in range(NEW_HINTS_IN_A_ROW):
        assert hints.means_something("session-id")
        assert not hints.is_known("session-id", SessionName(b"%d" % n))
    assert not hints.means_something("session-id")
    assert hints.means_something("thread-id")
    assert hints.is_known("session-id", SessionName(b"0"))
    assert hints.means_something("session-id")


# ── Headers that nobody named ────────────────────────────────────────────────────────────────


def test_an_unknown_header_that_changes_sends_its_turns_over_https_and_is_named_once() -> None:
    who = identities()
    seen = [who.read(URL, [AUTH, (b"X-Nonce", b"%d" % n)]) for n in range(5)]
    assert [i.is_volatile for i in seen] == [False, False, True, True, True]
    assert [list(i.new_volatile) for i in seen] == [[], [], ["x-nonce"], [], []]
    assert not who.read(URL, [AUTH]).is_volatile


def test_an_unknown_header_that_stays_is_identity() -> None:
    who = identities()
    seen = [who.read(URL, [AUTH, (b"x-team", b"%d" % (n % 2))]) for n in range(10)]
    assert not any(i.is_volatile for i in seen)
    assert len({i.pool_key for i in seen}) == 2


def test_values_are_counted_in_one_session_of_one_identity() -> None:
    who = identities()
    for n in range(6):
        team = (b"x-team", b"%d" % n)
        assert not who.read(URL, [AUTH, (b"session-id", b"%d" % n), team]).is_volatile
        assert not who.read(URL, [(b"Authorization", b"%d" % n), team]).is_volatile


def test_a_named_header_may_change_as_it_likes() -> None:
    who = identities()
    for n in range(6):
        assert not who.read(URL, [(b"OpenAI-Project", b"%d" % n)]).is_volatile


def test_names_that_are_new_every_time_are_watched_up_to_a_bound() -> None:
    who = identities()
    seen = [who.read(URL, [AUTH, (b"x-%d" % n, b"1")]) for n in range(3 * WATCHED_NAMES)]
    assert [i.is_volatile for i in seen] == [n >= WATCHED_NAMES for n in range(3 * WATCHED_NAMES)]
    assert sum(len(i.new_volatile) for i in seen) == WATCHED_NAMES
    assert not who.read(URL, [AUTH, (b"x-0", b"1")]).is_volatile


@pytest.mark.parametrize(
    ("name", "is_in"),
    [("accept", True), ("accept-language", True), ("x-stainless-os", True), ("x-other", False),
     ("traceparent", True), ("traceparents", False), ("", False)],
)  # fmt: skip
def test_a_pattern_is_a_name_or_the_start_of_one(name: str, is_in: bool) -> None:
    assert (name in Patterns(["Accept*", "x-stainless-*", "traceparent"])) is is_in
