"""What a client reads: heads, events, numbers, errors, and connections that break (contract §2)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.scenarios.conftest import Start
from tests.worlds import Item, World, user
from wsproxy.simulator import Rules


def numbers(events: list[Item]) -> list[int]:
    return [event["sequence_number"] for event in events]


async def second_turn(scene: World, **fields: Any) -> Any:
    """The answer to a conversation's second turn."""
    first = await scene.turn([user("one")])
    items = [user("one"), *first.response()["output"], user("two")]
    return await scene.turn(items, **fields)


# ── Heads ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("stream", [False, True], ids=["json", "sse"])
async def test_the_status_line_waits_for_the_first_event(scene: World, stream: bool) -> None:
    scene.sim.faults.order("before_first_event:silence")
    task = asyncio.ensure_future(scene.turn([user("hello")], stream=stream))
    done, _ = await asyncio.wait({task}, timeout=0.3)
    assert not done, "a head was written before upstream had said anything"

    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await scene.quiet()


async def test_a_stream_has_the_head_and_the_form_of_the_api(scene: World) -> None:
    answer = await scene.turn([user("hello")], stream=True)

    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert [name for name, _ in answer.frames()] == [e["type"] for e in answer.events()]
    assert numbers(answer.events()) == list(range(len(answer.events())))
    assert b"[DONE]" not in answer.body
    assert b'"stream_id"' not in answer.body


@pytest.mark.parametrize("stream", [False, True], ids=["json", "sse"])
@pytest.mark.parametrize(
    ("fail", "status"),
    [
        ("rate_limit_exceeded", 429),
        ("invalid_api_key", 401),
        ("unsupported_country", 403),
        ("model_not_found", 404),
        ("conflict", 409),
        ("unprocessable", 422),
        ("server_error", 500),
        ("server_is_overloaded", 503),
    ],
)
async def test_an_error_before_the_first_event_is_an_http_error(
    scene: World, fail: str, status: int, stream: bool
) -> None:
    answer = await scene.turn([user("hello")], stream=stream, metadata={"sim.fail": fail})

    assert answer.status == status
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["error"]["code"] == fail
    assert answer.headers["x-wsproxy-turn"]
    if status == 429:
        assert answer.headers["retry-after"] == "7"
        assert answer.headers["x-ratelimit-limit-requests"] == "500"
        assert "headers" not in answer.json()["error"]


async def test_announced_headers_reach_the_client_and_their_frames_do_not(start: Start) -> None:
    scene = await start(Rules(noise=True), lanes="on", continuation="on")
    answer = await scene.turn([user("hello")], stream=True)

    assert answer.headers["openai-model"] == "gpt-5.6-sim"
    assert answer.headers["x-models-etag"] == '"sim-models-1"'
    assert answer.headers["x-codex-turn-state"] == "sim-turn-state"
    assert answer.headers["x-reasoning-included"] == "true"
    assert "x-oai-request-id" not in answer.headers, "not on the allow-list"
    types = {name for name, _ in answer.frames()}
    assert not {t for t in types if t.startswith(("codex.", "responsesapi."))}
    assert "response.metadata" not in types


# ── Edits ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("stream", [False, True], ids=["json", "sse"])
@pytest.mark.parametrize("fields", [{}, {"previous_response_id": None}], ids=["absent", "null"])
async def test_the_parent_that_we_named_is_not_shown(
    scene: World, fields: dict[str, Any], stream: bool
) -> None:
    answer = await second_turn(scene, stream=stream, **fields)

    assert answer.route == "delta"
    shown = (
        [e["response"] for e in answer.events() if "response" in e] if stream else [answer.json()]
    )
    assert {response["previous_response_id"] for response in shown} == {None}
    assert scene.seen[1].previous_response_id is not None


async def test_names_inside_values_are_left_alone(scene: World) -> None:
    inner = {"stream_id": "mine", "sequence_number": 9, "previous_response_id": "resp_mine"}
    tool = {
        "type": "function",
        "name": "f",
        "parameters": {"type": "object", "properties": {name: {} for name in inner}},
    }
    answer = await second_turn(
        scene, stream=True, tools=[tool], reasoning={"effort": "low", **inner}
    )

    shown = answer.response()
    assert shown["tools"] == [tool]
    assert shown["reasoning"] == {"effort": "low", **inner}


@pytest.mark.parametrize(
    ("rules", "fault"),
    [
        (Rules(sequence_per_connection=True), None),
        (Rules(), "mid_stream:sequence_gap"),
        (Rules(noise=True, keepalive=True), None),
    ],
    ids=["per connection", "gap", "keepalive"],
)
async def test_events_are_numbered_from_zero_without_gaps(
    start: Start, rules: Rules, fault: str | None
) -> None:
    scene = await start(rules, lanes="on", continuation="on")
    await scene.turn([user("before")], stream=True)
    if fault:
        scene.sim.faults.order(fault)
    answer = await scene.turn([user("hello")], stream=True)

    assert numbers(answer.events()) == list(range(len(answer.events())))


async def test_events_of_an_unknown_type_pass(scene: World) -> None:
    scene.sim.faults.order("mid_stream:unknown_event")
    answer = await scene.turn([user("hello")], stream=True)

    assert ("response.sim.unknown", '{"type":"response.sim.unknown"}') in answer.frames()
    assert answer.events()[-1]["type"] == "response.completed"


# ── Ends ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["incomplete", "failed"])
@pytest.mark.parametrize("stream", [False, True], ids=["json", "sse"])
async def test_incomplete_and_failed_are_answers_and_continue_nothing(
    scene: World, kind: str, stream: bool
) -> None:
    answer = await scene.turn([user("hello")], stream=stream, metadata={"sim.fail": kind})
    assert (answer.status, answer.response()["status"]) == (200, kind)

    items = [user("hello"), *answer.response()["output"], user("more")]
    again = await scene.turn([i for i in items if i["type"] == "message"])
    assert again.route == "full"


async def test_an_error_in_mid_stream_is_a_flat_event_and_a_regular_end(scene: World) -> None:
    orders = {"sim.fail": "after_created:server_error"}
    answer = await scene.turn([user("hello")], stream=True, metadata=orders)

    assert (answer.status, answer.is_cut) == (200, False)
    *before, last = answer.events()
    assert last.keys() == {"type", "code", "message", "param", "sequence_number"}
    assert (last["type"], last["code"]) == ("error", "server_error")
    assert last["sequence_number"] == len(before)


async def test_an_error_in_mid_stream_is_a_status_for_a_client_that_does_not_stream(
    scene: World,
) -> None:
    orders = {"sim.fail": "after_created:server_error"}
    answer = await scene.turn([user("hello")], metadata=orders)

    assert answer.status == 500
    assert answer.json()["error"]["code"] == "server_error"


BREAKS = ["eof", "reset", "cut", "close=1000", "close=1011", "garbage=json", "garbage=frame"]


@pytest.mark.parametrize("fault", BREAKS)
async def test_a_connection_lost_in_mid_stream_breaks_honestly(scene: World, fault: str) -> None:
    scene.sim.faults.order(f"mid_stream:{fault}")
    answer = await scene.turn([user("hello")], stream=True)

    assert answer.is_cut, "the body must not look complete"
    *before, last = answer.events()
    assert last["type"] == "error"
    assert last["code"].startswith("upstream_")
    assert last["sequence_number"] == len(before)
    assert not {e["type"] for e in before} & {"response.completed", "response.failed"}
    await scene.quiet()


@pytest.mark.parametrize("fault", BREAKS)
async def test_a_connection_lost_is_502_for_a_client_that_does_not_stream(
    scene: World, fault: str
) -> None:
    scene.sim.faults.order(f"mid_stream:{fault}")
    answer = await scene.turn([user("hello")])

    assert (answer.status, answer.is_cut) == (502, False)
    assert answer.json()["error"]["code"].startswith("upstream_")
    assert answer.headers["x-wsproxy-outcome"] == "started"
    assert answer.route == "none"
    await scene.quiet()


async def test_a_turn_that_may_have_started_is_never_sent_again(scene: World) -> None:
    scene.sim.faults.order("before_first_event:eof")
    answer = await scene.turn([user("hello")], stream=True)

    assert answer.status == 502
    assert answer.headers["x-wsproxy-outcome"] == "unknown"
    assert len(scene.seen) == 1


async def test_the_next_turn_after_a_break_goes_in_full_and_reads_right(scene: World) -> None:
    first = await scene.turn([user("one")])
    items = [user("one"), *first.response()["output"], user("two")]
    scene.sim.faults.order("mid_stream:eof")
    assert (await scene.turn(items, stream=True)).is_cut
    again = await scene.turn(items, stream=True)

    assert (again.status, again.route) == (200, "full")
    assert again.response()["output"][0]["content"][0]["text"].startswith("items=3")
