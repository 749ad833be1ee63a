"""Upstreams that are not OpenAI's: each rule changed, as a client meets it."""

from __future__ import annotations

import json
from typing import Any

import aiohttp
import pytest

TOOL = {"type": "function", "name": "f", "parameters": {"type": "object", "properties": {}}}
CALLS = {"tools": [TOOL], "metadata": {"sim.tool_calls": "1"}}


async def test_ignored_lanes_are_not_echoed_and_run_one_at_a_time(start: Any, connect: Any) -> None:
    socket = await connect(await start(lanes="ignored"))
    for lane in ("a", "b"):
        await socket.send(input="hi", stream_id=lane, metadata={"sim.tokens_per_s": "1000"})
    for _ in range(2):
        await socket.until_end()

    ends = {"response.created", "response.completed"}
    kinds = [event["type"] for event in socket.seen if event["type"] in ends]
    assert kinds == ["response.created", "response.completed"] * 2
    assert not [event for event in socket.seen if "stream_id" in event]


async def test_refused_lanes_are_an_unknown_parameter(start: Any, connect: Any) -> None:
    socket = await connect(await start(lanes="refused"))

    error = await socket.refusal(input="hi", stream_id="a")

    assert (error["error"]["code"], error["error"]["param"]) == ("unknown_parameter", "stream_id")
    assert "stream_id" not in error
    assert await socket.response(input="hi")


@pytest.mark.parametrize("mode", ["ignored_null", "ignored_echoed"])
async def test_an_ignored_chain_answers_200_and_has_forgotten(
    start: Any, connect: Any, mode: str
) -> None:
    simulator = await start(continuation=mode)
    socket = await connect(simulator)

    answer = {"type": "function_call_output", "call_id": "c", "output": "x"}
    response = await socket.response(input=[answer], previous_response_id="resp_never_seen")

    shown = response["previous_response_id"]
    assert shown == (None if mode == "ignored_null" else "resp_never_seen")
    assert simulator.transcripts[response["id"]] == [answer]


@pytest.mark.parametrize("loss", ["silent", "silent_null", "refused"])
async def test_a_chain_can_be_forgotten_after_some_turns(
    start: Any, connect: Any, loss: str
) -> None:
    simulator = await start(chain_turns=2, chain_loss=loss)
    socket = await connect(simulator)
    one = await socket.response(input="one")
    two = await socket.response(input="two", previous_response_id=one["id"])
    assert len(simulator.transcripts[two["id"]]) == 3

    event = await socket.turn(input="three", previous_response_id=two["id"])

    if loss == "refused":
        assert event["error"]["code"] == "previous_response_not_found"
    else:
        assert len(simulator.transcripts[event["response"]["id"]]) == 1
        shown = event["response"]["previous_response_id"]
        assert shown == (two["id"] if loss == "silent" else None)


async def test_numbers_can_run_over_the_whole_connection(start: Any, connect: Any) -> None:
    socket = await connect(await start(sequence_per_connection=True))

    for lane in ("a", "b"):
        await socket.response(input="hi", stream_id=lane)

    numbers = [event["sequence_number"] for event in socket.seen]
    assert numbers == list(range(len(numbers)))


@pytest.mark.parametrize("place", ["first", "middle", "last"])
async def test_the_lane_can_stand_anywhere(start: Any, connect: Any, place: str) -> None:
    socket = await connect(await start(lane_place=place))

    await socket.response(input="hi", stream_id="a")

    delta = next(e for e in socket.seen if e["type"] == "response.output_text.delta")
    where = list(delta).index("stream_id")
    assert where == {"first": 0, "middle": len(delta) // 2, "last": len(delta) - 1}[place]


async def test_frames_can_be_spaced(start: Any, connect: Any) -> None:
    socket = await connect(await start(spaced_json=True))

    await socket.send(input="hi")
    message = await socket.ws.receive(timeout=5)

    assert message.data.startswith('{"type": "response.created", "response": {"id": "resp_')


INNER = {"type", "code", "message"}
SHAPES = {
    "a": ({"type", "status", "error"}, INNER | {"headers"}),
    "b": ({"type", "error"}, INNER),
    "c": ({"type", "status_code", "error"}, INNER),
    "d": ({"type", "status", "error", "headers"}, INNER),
    "e": ({"type", "error", "sequence_number", "status"}, INNER | {"headers"}),
    "f": ({"type", "code", "message"}, None),
    "g": ({"type", "status", "error"}, {"type", "message"}),
    "h": ({"type", "body", "status"}, None),
}


@pytest.mark.parametrize(("shape", "members"), SHAPES.items(), ids=SHAPES.keys())
async def test_errors_come_in_every_shape_that_was_seen(
    start: Any, connect: Any, shape: str, members: tuple[set[str], set[str] | None]
) -> None:
    socket = await connect(await start(error_shape=shape))

    error = await socket.refusal(
        input="x", stream_id="a", metadata={"sim.fail": "rate_limit_exceeded"}
    )

    outer, inner = members
    assert set(error) == outer | {"stream_id"}
    if inner is not None:
        assert set(error["error"]) == inner


async def test_completed_output_can_be_empty_over_frames_and_full_in_json(
    start: Any, connect: Any, http: Any
) -> None:
    simulator = await start(empty_completed_output=True)
    socket = await connect(simulator)

    framed = await socket.response(input="hi")
    body = {"model": "gpt-5.6", "input": "hi", "store": False}
    whole = await (await http.post(simulator.base_url + "/responses", json=body)).json()

    assert framed["output"] == []
    done = [e["item"] for e in socket.seen if e["type"] == "response.output_item.done"]
    assert whole["output"] == done


@pytest.mark.parametrize("again", [True, False])
async def test_reencryption_is_a_rule(start: Any, connect: Any, again: bool) -> None:
    socket = await connect(await start(reencrypt_reasoning=again))

    response = await socket.response(input="hi", metadata={"sim.reasoning": "encrypted"})

    done = [e["item"] for e in socket.seen if e["type"] == "response.output_item.done"]
    assert (done != response["output"]) == again


async def test_noise_stands_between_events_and_outside_their_numbers(
    start: Any, connect: Any
) -> None:
    socket = await connect(await start(noise=True))

    await socket.response(input="hi", stream_id="a")
    await socket.response(input="hi", stream_id="a")

    numbered = [e["sequence_number"] for e in socket.seen if "sequence_number" in e]
    noise = [e["type"] for e in socket.seen if "sequence_number" not in e]
    assert numbered.count(0) == 2
    assert noise[:3] == ["codex.rate_limits", "response.metadata", "codex.rate_limits"]
    assert "responsesapi.websocket_timing" in noise


async def test_keepalives_are_numbered_on_both_roads(start: Any, connect: Any, http: Any) -> None:
    simulator = await start(keepalive=True)
    socket = await connect(simulator)

    await socket.response(input="hi")
    body = {"model": "gpt-5.6", "input": "hi", "stream": True, "store": False}
    text = await (await http.post(simulator.base_url + "/responses", json=body)).text()

    framed = [json.dumps(event, ensure_ascii=False, separators=(",", ":")) for event in socket.seen]
    assert framed == [line[6:] for line in text.split("\n") if line.startswith("data: ")]
    assert '{"type":"keepalive","sequence_number":2}' in framed


@pytest.mark.parametrize("status", [401, 403, 404, 405, 426, 429, 500, 503])
async def test_upgrades_can_be_refused_with_any_status(start: Any, http: Any, status: int) -> None:
    simulator = await start(refuse_upgrade=status, retry_after_s=7)

    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await http.ws_connect(simulator.ws_url)
    answer = await http.post(
        simulator.base_url + "/responses", json={"model": "gpt-5.6", "input": "hi"}
    )

    assert refused.value.status == status
    assert refused.value.headers is not None
    assert refused.value.headers["retry-after"] == "7"
    assert answer.status == 200


async def test_an_upgrade_can_be_left_without_an_answer(start: Any, http: Any) -> None:
    simulator = await start(hang_upgrade=True)

    with pytest.raises(TimeoutError):
        await http.get(
            simulator.base_url + "/responses",
            headers={"Upgrade": "websocket", "Connection": "Upgrade"},
            timeout=aiohttp.ClientTimeout(total=0.1),
        )


async def test_unknown_members_can_be_refused(start: Any, connect: Any) -> None:
    socket = await connect(await start(refuse_unknown_fields=True))

    error = await socket.refusal(input="x", brand_new=1)

    assert (error["error"]["code"], error["error"]["param"]) == ("unknown_parameter", "brand_new")


async def test_stream_in_a_frame_can_be_tolerated(start: Any, connect: Any) -> None:
    socket = await connect(await start(strict_fields=False))

    assert await socket.response(input="x", stream=True)


async def test_unanswered_calls_are_refused_unless_the_rule_is_off(
    start: Any, connect: Any
) -> None:
    strict, lax = await connect(await start()), await connect(await start(check_pairing=False))
    for socket in (strict, lax):
        called = await socket.response(input="go", **CALLS)
        event = await socket.turn(input="x", previous_response_id=called["id"], **CALLS)
        refused = socket is strict
        assert (event["type"] == "error") == refused
        if refused:
            assert event["error"]["message"].startswith("No tool output found for function call")


async def test_a_short_limit_ends_the_text_as_incomplete(start: Any, connect: Any) -> None:
    socket = await connect(await start())

    event = await socket.turn(input="hi", max_output_tokens=3)

    assert event["type"] == "response.incomplete"
    assert event["response"]["incomplete_details"] == {"reason": "max_output_tokens"}
    assert event["response"]["output"][-1]["status"] == "incomplete"
