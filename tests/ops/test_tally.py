"""What was saved since the start: failures are counted, and only bytes that were sent."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Any

import pytest

from tests.worlds import ask, eventually, http_client, user, world
from wsproxy.config import Settings
from wsproxy.core.accounts import TurnAccount
from wsproxy.core.conversation.plan import Route
from wsproxy.core.ids import TurnId
from wsproxy.daemon import running
from wsproxy.metrics.tally import Tally
from wsproxy.simulator import Fault


async def test_turns_that_never_left_have_failed_and_are_neither_sent_nor_over_https() -> None:
    nobody = Settings(upstream="http://127.0.0.1:9/v1", listen=("127.0.0.1:0",))
    async with running(nobody) as proxy, http_client() as client:
        answer = await ask(client, proxy.base_url, b'{"model":"sim","input":"x"}')
        told = proxy.tally
    assert answer.status == 502
    assert b"`wsproxy doctor --upstream http://127.0.0.1:9/v1` tells why" in answer.body
    assert told == Tally(turns=1, failed=1)


@pytest.mark.parametrize(
    ("fault", "settings", "is_over_https"),
    [
        (Fault("before_first_event", "error", "invalid_prompt"), {}, 0),
        (Fault("mid_stream", "reset"), {}, 0),
        (Fault("mid_stream", "reset", over="http"), {"transport": "http"}, 1),
    ],
    ids=["refused by upstream", "broken", "broken over HTTPS"],
)
async def test_a_turn_that_was_sent_and_failed_counts_with_its_bytes(
    fault: Fault, settings: dict[str, Any], is_over_https: int
) -> None:
    async with world(faults=[fault], **settings) as proxy:
        await proxy.turn([user("hello")], stream=True)
        await proxy.quiet()
        told = asdict(proxy.proxy.tally)
    assert (told["turns"], told["failed"], told["over_https"]) == (1, 1, is_over_https)
    assert told["bytes_http"] > 0
    assert told["bytes_up"] > 0


async def test_a_turn_whose_agent_left_is_abandoned_and_has_not_failed() -> None:
    async with world(faults=["before_first_event:silence"]) as proxy:
        turn = asyncio.create_task(proxy.turn([user("hello")]))
        await eventually(lambda: proxy.seen)
        turn.cancel()
        await proxy.quiet()
        told = proxy.proxy.tally
    assert (told.turns, told.failed, told.abandoned) == (1, 0, 1)


@pytest.mark.parametrize(
    ("route", "outcome", "code", "frame_bytes", "expected"),
    [
        (Route.DELTA, "completed", "", 7, Tally(1, continued=1, bytes_http=90, bytes_up=7)),
        (Route.FULL, "incomplete", "", 80, Tally(1, bytes_http=90, bytes_up=80)),
        (Route.FULL, "failed", "", 80, Tally(1, failed=1, bytes_http=90, bytes_up=80)),
        (Route.NONE, "refused", "overloaded", 0, Tally(1, refused=1, failed=1)),
        (
            Route.NONE,
            "refused",
            "upstream_outcome_unknown",
            80,
            Tally(1, refused=1, failed=1, bytes_http=90, bytes_up=80),
        ),
        (Route.HTTP, "error", "upstream_tls", 0, Tally(1, failed=1)),
        (
            Route.HTTP,
            "error",
            "upstream_timeout",
            0,
            Tally(1, failed=1, over_https=1, bytes_http=90, bytes_up=90),
        ),
    ],
    ids=["delta", "incomplete", "failed", "refused", "lost", "not sent", "no answer"],
)
def test_each_end_of_a_turn_is_counted_for_what_it_is(
    route: Route, outcome: str, code: str, frame_bytes: int, expected: Tally
) -> None:
    account = TurnAccount(TurnId("t1"), 0.0, 90, route=route, frame_bytes=frame_bytes)
    account.ended(outcome, None, code)
    tally = Tally()
    tally.turn_ended(account)
    assert tally == expected
