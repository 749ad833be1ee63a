"""The rules of the WebSocket, each as a client meets it."""

from __future__ import annotations

import json
from typing import Any

import aiohttp
import pytest

from tests.canary import secret
from wsproxy.simulator.log import Create, Ended

USER = {"role": "user", "content": "go"}


async def test_every_event_of_a_named_lane_carries_its_name(start: Any, connect: Any) -> None:
    socket = await connect(await start())

    await socket.send(input="hi", stream_id="agent.1_x-Y")
    named = await socket.until_end()
    await socket.send(input="hi")
    default = await socket.until_end()

    assert {event.get("stream_id") for event in named} == {"agent.1_x-Y"}
    assert not [event for event in default if "stream_id" in event]
    assert [event["sequence_number"] for event in named] == list(range(len(named)))
    assert default[0]["sequence_number"] == 0


async def test_a_refusal_on_a_named_lane_carries_its_name(start: Any, connect: Any) -> None:
    socket = await connect(await start())

    error = await socket.refusal(input=[], previous_response_id="resp_x", stream_id="a")

    assert error == {
        "type": "error",
        "status": 400,
        "error": {
            "type": "invalid_request_error",
            "code": "previous_response_not_found",
            "message": "Previous response with id 'resp_x' not found.",
            "param": "previous_response_id",
        },
        "stream_id": "a",
    }


@pytest.mark.parametrize("name", ["", "a b", "é", "x" * 257, 5, None], ids=repr)
async def test_a_bad_stream_id_is_refused_without_being_echoed(
    start: Any, connect: Any, name: object
) -> None:
    socket = await connect(await start())

    error = await socket.refusal(input="hi", stream_id=name)

    assert error["error"]["code"] == "invalid_stream_id"
    assert "stream_id" not in error


async def test_the_thirty_third_name_is_refused_by_that_name(start: Any, connect: Any) -> None:
    socket = await connect(await start())
    for number in range(32):
        await socket.response(input="hi", stream_id=f"lane{number}")

    error = await socket.refusal(input="hi", stream_id="one_too_many")

    assert error["error"]["code"] == "websocket_stream_limit_reached"
    assert error["stream_id"] == "one_too_many"
    assert await socket.response(input="hi", stream_id="lane0")
    assert await socket.response(input="hi")


async def test_sixteen_run_at_once_and_the_rest_wait(start: Any, connect: Any) -> None:
    socket = await connect(await start())
    slow = {"metadata": {"sim.think_ms": "100"}}
    for number in range(18):
        await socket.send(input="hi", stream_id=f"lane{number}", **slow)

    await socket.until_end()
    begun = [e["stream_id"] for e in socket.seen if e["type"] == "response.created"]

    assert begun == [f"lane{number}" for number in range(16)]
    for _ in range(17):
        assert (await socket.until_end())[-1]["type"] == "response.completed"


async def test_lanes_interleave_and_one_lane_never_overlaps(start: Any, connect: Any) -> None:
    socket = await connect(await start())
    paced = {"metadata": {"sim.tokens_per_s": "400"}}
    for lane in ("a", "b", "a"):
        await socket.send(input="hi", stream_id=lane, **paced)
    for _ in range(3):
        await socket.until_end()

    ends = {"response.created", "response.completed"}
    marks = [(e["stream_id"], e["type"]) for e in socket.seen if e["type"] in ends]
    of_a = [kind for lane, kind in marks if lane == "a"]
    assert of_a == ["response.created", "response.completed"] * 2
    assert [lane for lane, _ in marks][:2] == ["a", "b"]


async def test_only_the_latest_response_of_a_lane_can_be_continued(
    start: Any, connect: Any
) -> None:
    socket = await connect(await start())
    first = await socket.response(input="one", stream_id="a")
    second = await socket.response(input="two", stream_id="a", previous_response_id=first["id"])

    error = await socket.refusal(input="x", stream_id="b", previous_response_id=first["id"])
    third = await socket.response(input="three", stream_id="b", previous_response_id=second["id"])

    assert error["error"]["code"] == "previous_response_not_found"
    assert third["previous_response_id"] == second["id"]


async def test_a_fresh_response_replaces_what_the_lane_remembered(start: Any, connect: Any) -> None:
    socket = await connect(await start())
    first = await socket.response(input="one", stream_id="a")
    await socket.response(input="fresh", stream_id="a")

    error = await socket.refusal(input="x", previous_response_id=first["id"], stream_id="a")

    assert error["error"]["code"] == "previous_response_not_found"


BAD = {"input": [{"type": "function_call_output", "call_id": "nobody", "output": "x"}]}
FAILING = {
    "pairing": BAD,
    "server": {"input": "x", "metadata": {"sim.fail": "server_is_overloaded"}},
    "mid stream": {"input": "x", "metadata": {"sim.fail": "after_created:server_error"}},
}


@pytest.mark.parametrize("bad", FAILING.values(), ids=FAILING.keys())
async def test_a_refused_continuation_evicts_the_parent_of_its_own_lane(
    start: Any, connect: Any, bad: dict[str, Any]
) -> None:
    socket = await connect(await start())
    parent = await socket.response(input="one", stream_id="a")

    await socket.refusal(**bad, stream_id="a", previous_response_id=parent["id"])
    error = await socket.refusal(input="x", stream_id="a", previous_response_id=parent["id"])

    assert error["error"]["code"] == "previous_response_not_found"


async def test_a_refused_fork_leaves_the_shared_parent_alone(start: Any, connect: Any) -> None:
    socket = await connect(await start())
    parent = await socket.response(input="one", stream_id="a")

    await socket.refusal(**BAD, stream_id="fork", previous_response_id=parent["id"])

    assert await socket.response(input="x", stream_id="a", previous_response_id=parent["id"])


@pytest.mark.parametrize("order", ["failed", "incomplete"])
async def test_what_did_not_complete_cannot_be_continued(
    start: Any, connect: Any, order: str
) -> None:
    socket = await connect(await start())

    event = await socket.turn(input="hi", metadata={"sim.fail": order})
    response = event["response"]
    error = await socket.refusal(input="x", previous_response_id=response["id"])

    assert event["type"] == f"response.{order}"
    assert response["status"] == order
    assert error["error"]["code"] == "previous_response_not_found"


async def test_stored_responses_continue_on_any_connection_of_the_same_key_only(
    start: Any, connect: Any
) -> None:
    simulator = await start()
    first, second = await connect(simulator), await connect(simulator)
    stranger = await connect(simulator, headers={"Authorization": f"Bearer {secret('two')}"})
    stored = await first.response(input="one", store=True)
    passing = await first.response(input="two")

    assert await second.response(input="x", previous_response_id=stored["id"])
    for socket, parent in ((second, passing), (stranger, stored)):
        error = await socket.refusal(input="x", previous_response_id=parent["id"])
        assert error["error"]["code"] == "previous_response_not_found"


async def test_a_warm_up_has_no_output_and_can_be_continued(start: Any, connect: Any) -> None:
    socket = await connect(await start())

    await socket.send(input=[], instructions="be brief", generate=False)
    events = await socket.until_end()
    warm = events[-1]["response"]
    chained = await socket.response(input=[USER], previous_response_id=warm["id"])
    whole = await socket.response(input=[USER])

    kinds = [event["type"] for event in events]
    assert kinds == ["response.created", "response.in_progress", "response.completed"]
    assert warm["output"] == []
    assert warm["usage"]["output_tokens"] == 0
    assert chained["output"] == whole["output"]


async def test_the_chain_probe_is_answered_as_the_service_would(start: Any, connect: Any) -> None:
    socket = await connect(await start())

    error = await socket.refusal(input="x", generate=False, previous_response_id="resp_" + "0" * 50)

    assert (error["status"], error["error"]["code"]) == (400, "previous_response_not_found")


REFUSED = {
    "stream": ({"input": "x", "stream": True}, "unknown_parameter", "stream"),
    "background": ({"input": "x", "background": False}, "unknown_parameter", "background"),
    "no model": ({"input": "x", "model": None}, "missing_required_parameter", None),
    "unknown model": ({"input": "x", "model": "missing-1"}, "model_not_found", "model"),
    "input number": ({"input": 5}, "invalid_type", "input"),
    "no input": ({}, "missing_required_parameter", "input"),
    "empty input": ({"input": []}, "missing_required_parameter", "input"),
    "item number": ({"input": [5]}, "invalid_type", "input[0]"),
    "store text": ({"input": "x", "store": "no"}, "invalid_type", "store"),
    "tools object": ({"input": "x", "tools": {}}, "invalid_type", "tools"),
    "two parents": (
        {"input": "x", "previous_response_id": "r", "conversation": "c"},
        "mutually_exclusive_parameters",
        None,
    ),
    "event type": ({"type": "response.append"}, "invalid_value", "type"),
}


@pytest.mark.parametrize(("fields", "code", "param"), REFUSED.values(), ids=REFUSED.keys())
async def test_a_create_that_breaks_the_rules_is_refused(
    start: Any, connect: Any, fields: dict[str, Any], code: str, param: str | None
) -> None:
    socket = await connect(await start())

    error = (await socket.refusal(**fields, stream_id="a"))["error"]

    assert (error["code"], error.get("param")) == (code, param)
    assert await socket.response(input="still here", stream_id="a")


@pytest.mark.parametrize("text", ["{", "[]", '{"a":NaN}', '"x"', ""], ids=repr)
async def test_a_message_that_is_no_json_object_is_an_error_frame(
    start: Any, connect: Any, text: str
) -> None:
    socket = await connect(await start())

    await socket.ws.send_str(text)
    (event,) = await socket.until_end()

    assert event["status"] == 400
    assert "stream_id" not in event
    assert await socket.response(input="still here")


@pytest.mark.parametrize("compress", [0, 15], ids=["plain", "deflated"])
async def test_a_message_over_the_limit_closes_with_1009_and_no_error(
    start: Any, connect: Any, compress: int
) -> None:
    simulator = await start(max_message_bytes=100_000)
    socket = await connect(simulator, compress=compress)
    assert await socket.response(input="x" * 99_000)

    await socket.send(input="x" * 100_000)
    message = await socket.ws.receive(timeout=5)

    assert (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, 1009)


async def test_an_old_connection_is_told_so_and_closed_in_mid_response(
    start: Any, connect: Any
) -> None:
    socket = await connect(await start(connection_life_s=0.1))
    await socket.send(input="x", stream_id="a", metadata={"sim.think_ms": "5000"})

    events = await socket.until_end()
    message = await socket.ws.receive(timeout=5)

    assert events[-1]["error"]["code"] == "websocket_connection_limit_reached"
    assert "stream_id" not in events[-1]
    assert message.type is aiohttp.WSMsgType.CLOSE


@pytest.mark.parametrize("offered", [0, 15], ids=["not offered", "offered"])
@pytest.mark.parametrize("accepted", [True, False], ids=["on", "off"])
async def test_deflate_is_used_only_where_offered_and_allowed(
    start: Any, connect: Any, offered: int, accepted: bool
) -> None:
    simulator = await start(deflate=accepted)
    socket = await connect(simulator, compress=offered)

    await socket.response(input="x" * 10_000)
    create = simulator.log.of(Create)[-1]

    assert bool(socket.ws.compress) == bool(offered and accepted)
    assert create.size > 10_000
    assert (create.wire_size < 1_000) == bool(offered and accepted)


async def test_without_a_key_the_upgrade_is_a_plain_401(start: Any, http: Any) -> None:
    simulator = await start()

    for value in ("", "Basic abc", "Bearer "):
        answer = await http.get(
            simulator.base_url + "/responses",
            headers={"Authorization": value, "Upgrade": "websocket", "Connection": "Upgrade"},
        )
        assert answer.status == 401
        assert (await answer.json())["error"]["type"] == "invalid_request_error"


async def test_a_client_that_leaves_ends_its_runs(start: Any, connect: Any) -> None:
    simulator = await start()
    socket = await connect(simulator)
    await socket.send(input="x", metadata={"sim.think_ms": "10000"})
    await socket.receive()

    await socket.ws.close()
    await simulator.stop()

    assert [run.outcome for run in simulator.log.of(Ended)] == ["abandoned"]


@pytest.mark.parametrize("kind", ["steer", "interrupt"])
async def test_client_events_without_support_are_declined(
    start: Any, connect: Any, kind: str
) -> None:
    socket = await connect(await start())

    await socket.ws.send_str(json.dumps({"type": f"response.{kind}", "response_id": "r"}))
    event = await socket.receive()

    assert event["type"] == f"response.{kind}.failed"


async def test_pings_are_answered_and_sent(start: Any, connect: Any) -> None:
    socket = await connect(await start(ping_interval_s=0.02), autoping=False)

    await socket.ws.ping(b"me")
    messages = [await socket.ws.receive(timeout=5) for _ in range(2)]

    assert {message.type for message in messages} == {
        aiohttp.WSMsgType.PONG,
        aiohttp.WSMsgType.PING,
    }
