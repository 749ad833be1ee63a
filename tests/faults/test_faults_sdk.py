"""The openai SDK meets each fault that can be had over real sockets.

It behaves as against the API itself: an exception with the right status, its own retries where it
makes them, no hang, and the model never runs more often than the SDK asked.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from tests.canary import TEXT
from tests.faults.scene import Met, Stage, meet, meet_in_thread, stage
from tests.worlds import eventually
from wsproxy.simulator import Fault, Simulator
from wsproxy.simulator.faults import parse_fault

#: Nothing here may wait for a deadline: a hang fails in time.
LIMIT_S = 8.0

STREAMS = pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])

#: Order → status, code. The frame had left, nothing was heard: only upstream knows.
UNKNOWN = {
    "reset": (502, "upstream_outcome_unknown"),
    "eof": (502, "upstream_outcome_unknown"),
    "cut": (502, "upstream_outcome_unknown"),
    "close=1000": (502, "upstream_outcome_unknown"),
    "close=1001": (502, "upstream_outcome_unknown"),
    "close=1008": (502, "upstream_outcome_unknown"),
    "close=1011": (502, "upstream_outcome_unknown"),
    "close=1012": (503, "upstream_outcome_unknown"),
    "close=1013": (503, "upstream_outcome_unknown"),
    "close=1002": (502, "proxy_bug"),
    "close=1003": (502, "proxy_bug"),
    "close=1007": (502, "proxy_bug"),
    "close=4000": (502, "upstream_outcome_unknown"),
    "garbage=json": (502, "upstream_protocol_error"),
    "garbage=object": (502, "upstream_protocol_error"),
    "garbage=type": (502, "upstream_protocol_error"),
    "garbage=untyped": (502, "upstream_protocol_error"),
    "garbage=utf8": (502, "upstream_protocol_error"),
    "garbage=binary": (502, "upstream_protocol_error"),
    "garbage=frame": (502, "upstream_protocol_error"),
    "garbage=rsv": (502, "upstream_protocol_error"),
    "garbage=masked": (502, "upstream_protocol_error"),
    "wrong_lane": (502, "upstream_protocol_error"),
    "no_lane": (502, "upstream_protocol_error"),
    "big=40000000": (502, "upstream_protocol_error"),
}
#: The same in the middle of the answer: the code of the error event, or of the 502.
BROKEN = {
    order: code if code != "upstream_outcome_unknown" else "upstream_disconnected"
    for order, (_, code) in UNKNOWN.items()
}
#: Upstream refused it, or RFC 6455 says it was not processed: nobody notices.
UNSEEN = (
    "close=1009",
    "connection_error=websocket_connection_limit_reached",
    "error=websocket_stream_limit_reached",
    "unknown_event",
    "late_event",
    "sequence_gap",
    "big=1000000",
)
VERDICTS = {
    "rate_limit_exceeded": "RateLimitError",
    "server_error": "InternalServerError",
    "server_is_overloaded": "InternalServerError",
    "invalid_prompt": "BadRequestError",
    "model_not_found": "NotFoundError",
    "unsupported_country": "PermissionDeniedError",
    "invalid_api_key": "AuthenticationError",
    "conflict": "ConflictError",
    "unprocessable": "UnprocessableEntityError",
    "previous_response_not_found": "BadRequestError",
}


async def asked(scene: Stage, stream: bool, *, retries: int = 0) -> Met:
    """The turn "c", which must end by itself and leave nothing behind."""
    async with asyncio.timeout(LIMIT_S):
        met = await meet(scene.proxy.base_url, "c", stream=stream, retries=retries)
        await assert_nothing_is_left(scene)
    return met


async def assert_nothing_is_left(scene: Stage) -> None:
    await scene.quiet()
    driver = scene.proxy.driver
    assert not any(driver._tickets.values())
    assert set(driver._links) == {c.id for c in scene.core.pool.connections}


async def assert_next_turn_is_right(scene: Stage) -> None:
    met = await meet(scene.proxy.base_url, "next", stream=True)
    assert met.error is None, met
    assert met.text.startswith("items=1")
    assert scene.generations("next") == 1


# ── Nothing was heard of the turn ────────────────────────────────────────────────────────────


@STREAMS
@pytest.mark.parametrize("order", UNKNOWN)
async def test_a_turn_that_may_have_run_is_told_so_and_never_sent_again(
    order: str, stream: bool
) -> None:
    status, code = UNKNOWN[order]
    async with stage(f"before_first_event:{order}", lanes="on") as scene:
        met = await asked(scene, stream)

        assert (met.kind, met.status, met.code) == ("InternalServerError", status, code)
        assert met.headers["x-wsproxy-outcome"] == "unknown"
        assert met.headers["x-wsproxy-route"].startswith("none; reason=")
        assert "x-should-retry" not in met.headers
        assert (met.requests, scene.generations("c")) == (1, 1)
        await assert_next_turn_is_right(scene)


@pytest.mark.parametrize("order", ["reset", "eof", "close=1011", "garbage=json", "close=1013"])
async def test_the_sdk_retries_what_it_would_retry_and_pays_for_what_it_asked(order: str) -> None:
    async with stage(f"before_first_event:{order}") as scene:
        met = await asked(scene, stream=True, retries=2)

        assert met.text.startswith("items=1")
        assert met.requests == scene.generations("c") == 2


async def test_an_operator_can_forbid_ambiguous_retries() -> None:
    async with stage("before_first_event:reset", ambiguous_retry="forbid") as scene:
        met = await asked(scene, stream=True, retries=2)

        assert (met.status, met.requests, scene.generations("c")) == (502, 1, 1)
        assert met.headers["x-should-retry"] == "false"


# ── In the middle of the answer ──────────────────────────────────────────────────────────────


@pytest.mark.parametrize("order", BROKEN)
async def test_a_broken_stream_ends_in_one_flat_error_event_and_a_cut(order: str) -> None:
    async with stage(f"mid_stream:{order}", lanes="on") as scene:
        met = await asked(scene, stream=True)

        *events, last = met.events
        assert met.kind == "APIConnectionError", met  # the body has no end
        assert (last.type, last.code) == ("error", BROKEN[order])
        assert [e.sequence_number for e in met.events] == list(range(len(events) + 1))
        assert events[0].type == "response.created"
        assert not [e for e in events if e.type in ("response.completed", "response.failed")]
        assert (met.requests, scene.generations("c")) == (1, 1)
        await assert_next_turn_is_right(scene)


@pytest.mark.parametrize("order", BROKEN)
async def test_a_broken_answer_in_one_piece_is_a_502_that_says_it_had_started(order: str) -> None:
    async with stage(f"mid_stream:{order}", lanes="on") as scene:
        met = await asked(scene, stream=False)

        assert (met.kind, met.status, met.code) == ("InternalServerError", 502, BROKEN[order])
        assert met.headers["x-wsproxy-outcome"] == "started"
        assert (met.requests, scene.generations("c")) == (1, 1)
        await assert_next_turn_is_right(scene)


async def test_a_direct_reset_in_mid_stream_is_the_same_exception() -> None:
    async with Simulator(faults=[]) as sim, asyncio.timeout(LIMIT_S):
        sim.faults.order(*_over_http("mid_stream:reset"))
        met = await meet(sim.base_url, "c", stream=True)

    assert met.kind == "APIConnectionError"


# ── Upstream's own verdicts ──────────────────────────────────────────────────────────────────


@STREAMS
@pytest.mark.parametrize("code", VERDICTS)
async def test_upstreams_verdict_reads_as_in_a_direct_call(code: str, stream: bool) -> None:
    order = f"before_first_event:error={code}"
    async with Simulator() as sim:
        sim.faults.order(*_over_http(order))
        direct = await meet(sim.base_url, "c", stream=stream)
    async with stage(order) as scene:
        met = await asked(scene, stream)
        await assert_next_turn_is_right(scene)

    assert met.kind == direct.kind == VERDICTS[code]
    assert met.status == direct.status
    assert met.error is not None
    assert direct.error is not None
    assert spelled_out(met.error.body) == direct.error.body
    assert met.headers.get("retry-after") == direct.headers.get("retry-after")
    assert "x-wsproxy-outcome" not in met.headers


@pytest.mark.parametrize("code", ["server_error", "rate_limit_exceeded"])
async def test_a_verdict_in_mid_stream_is_one_flat_error_event_and_a_clean_end(code: str) -> None:
    order = f"mid_stream:error={code}"
    async with Simulator() as sim:
        sim.faults.order(*_over_http(order))
        direct = await meet(sim.base_url, "c", stream=True)
    async with stage(order) as scene:
        met = await asked(scene, stream=True)

    assert met.kind == direct.kind
    assert [e.type for e in met.events] == [e.type for e in direct.events]
    assert met.code == direct.code == code


async def test_an_answer_in_one_piece_takes_the_status_of_a_late_verdict() -> None:
    async with stage("mid_stream:error=server_is_overloaded") as scene:
        met = await asked(scene, stream=False)

        assert (met.status, met.code) == (503, "server_is_overloaded")


# ── What nobody notices ──────────────────────────────────────────────────────────────────────


@STREAMS
@pytest.mark.parametrize("order", UNSEEN)
async def test_a_fault_with_a_way_around_it_is_not_noticed(order: str, stream: bool) -> None:
    place = "before_first_event" if "=" in order and "big" not in order else "mid_stream"
    async with stage(f"{place}:{order}", lanes="on", max_message_bytes=2_000_000) as scene:
        met = await asked(scene, stream)

        assert met.error is None, met
        assert met.text.startswith("items=1")
        numbers = [n for e in met.events if (n := e.sequence_number) is not None]
        assert numbers == list(range(len(numbers)))
        assert met.requests == 1
        assert met.headers["x-wsproxy-route"].partition(";")[0] in ("full", "http")


@pytest.mark.parametrize(
    "order", ["reset", "eof", "cut", "close=1001", "garbage=json", "wrong_lane", "late_event"]
)
async def test_what_happens_after_the_end_touches_no_answer(order: str) -> None:
    async with stage(f"after_terminal:{order}", lanes="on") as scene:
        met = await asked(scene, stream=True)
        await eventually(lambda: not any(c.is_open for c in scene.core.pool.connections))

        assert met.text.startswith("items=1")
        assert (met.requests, scene.generations("c")) == (1, 1)
        await assert_next_turn_is_right(scene)


@STREAMS
@pytest.mark.parametrize(
    "order",
    [
        *(f"status={status}" for status in (401, 403, 404, 405, 426, 429, 500, 501, 503)),
        "reset",
        "eof",
    ],
)
async def test_a_refused_handshake_goes_over_https_within_the_same_call(
    order: str, stream: bool
) -> None:
    async with stage(f"handshake:{order}:-1") as scene:
        met = await asked(scene, stream)

        assert met.text.startswith("items=1")
        assert met.headers["x-wsproxy-route"] == "http; reason=no_websocket"
        assert (met.requests, scene.generations("c")) == (1, 1)


async def test_where_https_refuses_too_the_client_reads_upstreams_own_words() -> None:
    async with stage("handshake:status=401") as scene:
        scene.sim.faults.order(*_over_http("before_first_event:error=invalid_api_key"))
        met = await asked(scene, stream=True)

        assert (met.kind, met.code) == ("AuthenticationError", "invalid_api_key")
        assert met.headers["x-wsproxy-route"] == "http; reason=no_websocket"


@STREAMS
async def test_an_upstream_that_nobody_can_reach_is_a_502_that_was_not_sent(stream: bool) -> None:
    async with stage() as scene:
        scene.link.is_refusing = True
        scene.link.target_port = 1
        met = await asked(scene, stream, retries=0)

        assert (met.kind, met.status) == ("InternalServerError", 502)
        assert met.code in ("upstream_unreachable", "upstream_disconnected")
        assert scene.generations("c") == 0


# ── The link ─────────────────────────────────────────────────────────────────────────────────


async def test_a_frame_that_had_not_wholly_left_is_sent_again_unseen() -> None:
    async with stage(compression="off", lanes="on") as scene:
        await meet(scene.proxy.base_url, "warm", stream=False)
        scene.link.black_hole()
        big = asyncio.create_task(
            meet(scene.proxy.base_url, "c", stream=True, input=TEXT + "x" * 12_000_000)
        )
        await eventually(lambda: any(t.connection for t in scene.core.turns.values()))
        scene.link.black_hole(False)
        scene.link.reset()
        async with asyncio.timeout(LIMIT_S):
            met = await big

        assert met.error is None, met
        assert (met.requests, scene.generations("c")) == (1, 1)
        assert [c.via for c in scene.sim.log.creates() if c.canary == "c"] == ["ws"]


async def test_bytes_in_any_slices_give_the_same_answer() -> None:
    async with stage() as scene:
        whole = await meet(scene.proxy.base_url, "c", stream=True)
        scene.link.slice_bytes = 7
        scene.link.reset()
        await scene.quiet()
        sliced = await meet(scene.proxy.base_url, "c", stream=True)

        assert [e.to_dict() for e in sliced.events] == [e.to_dict() for e in whole.events]


async def test_an_upstream_that_half_closes_has_ended_the_connection() -> None:
    async with stage("before_first_event:silence") as scene:
        turn = asyncio.create_task(meet(scene.proxy.base_url, "c", stream=True))
        await eventually(lambda: scene.generations("c"))
        scene.link.half_close()
        async with asyncio.timeout(LIMIT_S):
            met = await turn

        assert (met.status, met.code) == (502, "upstream_outcome_unknown")
        await assert_nothing_is_left(scene)


# ── The synchronous SDK ──────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("order", "stream", "expected"),
    [
        ("before_first_event:reset", False, (502, "upstream_outcome_unknown")),
        ("mid_stream:eof", False, (502, "upstream_disconnected")),
        ("mid_stream:eof", True, (0, "upstream_disconnected")),
        ("before_first_event:error=rate_limit_exceeded", True, (429, "rate_limit_exceeded")),
    ],
)
async def test_the_synchronous_sdk_meets_the_same(
    order: str, stream: bool, expected: tuple[int, str]
) -> None:
    async with stage(order) as scene, asyncio.timeout(LIMIT_S):
        met = await asyncio.to_thread(
            meet_in_thread, scene.proxy.base_url, "c", stream=stream, retries=0
        )
        await assert_nothing_is_left(scene)

    assert (met.status, met.code) == expected
    assert met.requests == 1


async def test_the_synchronous_sdk_retries_and_succeeds() -> None:
    async with stage("before_first_event:reset") as scene, asyncio.timeout(LIMIT_S):
        met = await asyncio.to_thread(
            meet_in_thread, scene.proxy.base_url, "c", stream=False, retries=2
        )

        assert met.text.startswith("items=1")
        assert met.requests == scene.generations("c") == 2


def spelled_out(body: object) -> object:
    """A frame leaves out a `param` that is null, an HTTP body does not (protocol.md §3.4)."""
    return {"param": None, **body} if isinstance(body, dict) else body


def _over_http(order: str) -> list[Fault]:
    return [replace(parse_fault(order), over="http")]
