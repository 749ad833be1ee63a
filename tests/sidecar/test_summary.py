"""The lines at the end: what was saved, what failed, or why there was nothing to save."""

from __future__ import annotations

import pytest

from wsproxy.config import Settings
from wsproxy.console.words import counted
from wsproxy.metrics.tally import Tally
from wsproxy.sidecar.summary import summary, without_turns

PLAIN = Settings(upstream="http://127.0.0.1:1/v1")


@pytest.mark.parametrize(
    ("upstream", "handshakes", "is_named"),
    [
        ("http://127.0.0.1:1/v1", 2, True),
        ("http://127.0.0.1:1/v1", 1, False),
        ("https://api.openai.com/v1", 2, False),
    ],
)
def test_the_probe_of_an_unknown_upstream_explains_a_handshake(
    upstream: str, handshakes: int, is_named: bool
) -> None:
    tally = Tally(turns=5, continued=2, handshakes=handshakes)
    first, _ = summary(Settings(upstream=upstream), tally, 1)
    assert counted(handshakes, "WebSocket handshake") in first
    assert ("may be the probe" in first) is is_named


@pytest.mark.parametrize(
    ("more", "begins"),
    [
        ({}, "9 turns, 2 sent as deltas; "),
        ({"over_https": 1}, "9 turns, 2 sent as deltas, 1 over HTTPS; "),
        ({"failed": 3}, "9 turns (3 failed), 2 sent as deltas; "),
        ({"abandoned": 1}, "9 turns (1 abandoned), 2 sent as deltas; "),
        ({"failed": 3, "abandoned": 1}, "9 turns (3 failed, 1 abandoned), 2 sent as deltas; "),
    ],
    ids=["well", "another way", "failed", "abandoned", "both"],
)
def test_the_summary_names_what_failed_and_what_went_another_way(
    more: dict[str, int], begins: str
) -> None:
    tally = Tally(turns=9, continued=2, bytes_http=9000, bytes_up=1500, **more)
    first, second = summary(Settings(), tally, 2)
    assert first.startswith(begins)
    assert second.startswith("1.5 KB sent up instead of 9 KB over HTTP (6.0 × fewer); see")


def test_over_plain_http_is_not_called_https() -> None:
    first, _ = summary(PLAIN, Tally(turns=1, over_https=1, bytes_http=9, bytes_up=9), 1)
    assert ", 1 over HTTP; " in first


def test_where_nothing_was_sent_up_no_bytes_are_told_but_who_looks_for_why() -> None:
    first, second = summary(PLAIN, Tally(turns=3, failed=3), 1)
    assert first.startswith("3 turns (3 failed), 0 sent as deltas; ")
    assert second == (
        "nothing was sent up; `wsproxy doctor --upstream http://127.0.0.1:1/v1` looks for why"
    )


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (0, "no turn came through; does the command read OPENAI_BASE_URL?"),
        (7, "the command ended with exit code 7 before any turn"),
        (130, "the command ended with exit code 130 (SIGINT) before any turn"),
        (255, "the command ended with exit code 255 before any turn"),
    ],
    ids=["well", "failed", "Ctrl-C", "no signal"],
)
def test_a_command_that_failed_before_any_turn_is_not_asked_for_its_base_url(
    code: int, told: str
) -> None:
    assert list(without_turns(PLAIN, code, {"OPENAI_API_KEY": "any"})) == [told]


@pytest.mark.parametrize(
    ("upstream", "code", "is_told"),
    [
        ("http://127.0.0.1:1/v1", 0, True),
        ("http://127.0.0.1:1/v1", 1, True),
        ("http://127.0.0.1:1/v1", 130, False),
        ("https://api.openai.com/v1", 1, False),
    ],
    ids=["well", "failed", "a signal", "the API wants a real one"],
)
def test_a_key_that_is_missing_is_told_where_any_would_do(
    upstream: str, code: int, is_told: bool
) -> None:
    lines = list(without_turns(Settings(upstream=upstream), code, {}))
    assert any(line.endswith("OPENAI_API_KEY=any") for line in lines) is is_told
