"""Faults on order: read, matched, counted, performed."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

import aiohttp
import pytest

from tests.canary import secret
from wsproxy.simulator import Fault, FaultError, parse_fault
from wsproxy.simulator.faults import Faults
from wsproxy.simulator.log import Faulted

READ = {
    "handshake:status=503": Fault("handshake", "status", "503"),
    "before_first_event:close=1011:2": Fault("before_first_event", "close", "1011", 2),
    "mid_stream:reset": Fault("mid_stream", "reset"),
    "after_terminal:garbage=json:-1": Fault("after_terminal", "garbage", "json", -1),
}


@pytest.mark.parametrize(("text", "fault"), READ.items(), ids=READ.keys())
def test_an_order_is_read(text: str, fault: Fault) -> None:
    assert parse_fault(text) == fault


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nowhere:reset",
        "mid_stream:explode",
        "handshake:close=1000",
        "mid_stream:close",
        "mid_stream:close=soon",
        "mid_stream:garbage=tea",
        "mid_stream:reset:often",
    ],
)
def test_an_order_off_the_menu_is_refused(text: str) -> None:
    with pytest.raises(FaultError):
        parse_fault(text)


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("nowhere:reset", "choose from handshake, before_first_event, mid_stream, after_terminal"),
        ("handshake:close", "choose from eof, hang, reset, status"),
        ("mid_stream:garbage=tea", "choose from binary, frame, json, masked, object, rsv, type, "),
    ],
    ids=["place", "fault", "garbage"],
)
def test_what_is_on_the_menu_is_told_in_words(text: str, choice: str) -> None:
    with pytest.raises(FaultError, match=choice):
        parse_fault(text)


def test_orders_are_matched_by_place_transport_and_canary_and_counted_down() -> None:
    faults = Faults()
    faults.order("mid_stream:reset:2", Fault("mid_stream", "eof", canary="c", over="any"))

    taken = [
        faults.take("before_first_event", "ws"),
        faults.take("mid_stream", "http"),
        faults.take("mid_stream", "http", "c"),
        faults.take("mid_stream", "ws"),
        faults.take("mid_stream", "ws"),
        faults.take("mid_stream", "ws"),
    ]

    kinds = [fault and fault.what for fault in taken]
    assert kinds == [None, None, "eof", "reset", "reset", None]
    assert len(faults) == 0


CODES = [1000, 1001, 1008, 1009, 1011, 1012, 1013, 4000]


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("where", ["before_first_event", "mid_stream", "after_terminal"])
async def test_a_close_frame_comes_where_it_was_ordered(
    start: Any, connect: Any, where: str, code: int
) -> None:
    socket = await connect(await start(faults=(f"{where}:close={code}",)))

    await socket.send(input="x")
    messages = [await socket.ws.receive(timeout=5)]
    while messages[-1].type is aiohttp.WSMsgType.TEXT:
        messages.append(await socket.ws.receive(timeout=5))

    texts = [message.data for message in messages[:-1]]
    assert (messages[-1].type, messages[-1].data) == (aiohttp.WSMsgType.CLOSE, code)
    assert bool(texts) == (where != "before_first_event")
    assert any("response.completed" in text for text in texts) == (where == "after_terminal")


@pytest.mark.parametrize("what", ["reset", "eof", "cut"])
@pytest.mark.parametrize("where", ["before_first_event", "mid_stream"])
async def test_the_road_can_break(start: Any, connect: Any, where: str, what: str) -> None:
    simulator = await start(faults=(f"{where}:{what}",))
    socket = await connect(simulator)

    await socket.send(input="x")
    message = await socket.ws.receive(timeout=5)
    while message.type is aiohttp.WSMsgType.TEXT:
        message = await socket.ws.receive(timeout=5)

    assert message.type in {aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR}
    assert socket.ws.close_code == 1006
    assert [record.what for record in simulator.log.of(Faulted)] == [what]


REFUSALS = {"status=403": 403, "status=426": 426, "status=503": 503}


@pytest.mark.parametrize(("what", "status"), REFUSALS.items(), ids=REFUSALS.keys())
async def test_one_upgrade_is_refused_and_the_next_is_not(
    start: Any, connect: Any, what: str, status: int
) -> None:
    simulator = await start(faults=(f"handshake:{what}",))

    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await connect(simulator)

    assert refused.value.status == status
    assert await (await connect(simulator)).response(input="x")


@pytest.mark.parametrize("what", ["reset", "eof"])
async def test_the_road_can_break_in_the_handshake(start: Any, connect: Any, what: str) -> None:
    simulator = await start(faults=(f"handshake:{what}:-1",))

    with pytest.raises(aiohttp.ClientError):
        await connect(simulator)


async def test_silence_holds_one_turn_and_not_its_neighbours(start: Any, connect: Any) -> None:
    simulator = await start()
    simulator.faults.order(Fault("mid_stream", "silence", canary="mute", after=3))
    socket = await connect(simulator)

    await socket.send(input="x", stream_id="a", metadata={"canary": "mute"})
    for _ in range(3):
        await socket.receive()
    await socket.send(input="x", stream_id="b")
    await socket.until_end()

    assert {event["stream_id"] for event in socket.seen[3:]} == {"b"}
    with pytest.raises(asyncio.TimeoutError):
        await socket.ws.receive(timeout=0.05)


@pytest.mark.parametrize(
    ("what", "bad"),
    [
        ("garbage=json", aiohttp.WSMsgType.TEXT),
        ("garbage=object", aiohttp.WSMsgType.TEXT),
        ("garbage=type", aiohttp.WSMsgType.TEXT),
        ("garbage=untyped", aiohttp.WSMsgType.TEXT),
        ("garbage=rsv", aiohttp.WSMsgType.ERROR),
        ("garbage=masked", aiohttp.WSMsgType.TEXT),
        ("garbage=binary", aiohttp.WSMsgType.BINARY),
        ("garbage=utf8", aiohttp.WSMsgType.ERROR),
        ("garbage=frame", aiohttp.WSMsgType.ERROR),
    ],
)
async def test_garbage_stands_before_the_first_event(
    start: Any, connect: Any, what: str, bad: aiohttp.WSMsgType
) -> None:
    socket = await connect(await start(faults=(f"before_first_event:{what}",)))

    await socket.send(input="x")
    message = await socket.ws.receive(timeout=5)

    assert message.type is bad
    if bad is aiohttp.WSMsgType.TEXT:
        assert "response.created" not in message.data
        assert (await socket.until_end())[-1]["type"] == "response.completed"


async def test_stray_events_and_gaps_come_between_the_good_ones(start: Any, connect: Any) -> None:
    orders = ("mid_stream:wrong_lane", "after_terminal:late_event", "mid_stream:sequence_gap")
    socket = await connect(await start(faults=orders))

    await socket.response(input="x", stream_id="a")
    stray = [event for event in socket.seen if event["stream_id"] != "a"]
    late = await socket.receive()
    await socket.response(input="x", stream_id="a")

    numbers = [event["sequence_number"] for event in socket.seen]
    steps = {after - before for before, after in pairwise(numbers)}
    assert len(stray) == 1
    assert late["stream_id"] == "a"
    assert 4 in steps


async def test_one_huge_event_can_be_ordered(start: Any, connect: Any) -> None:
    socket = await connect(await start(faults=("before_first_event:big=3000000",)))

    await socket.send(input="x")
    message = await socket.ws.receive(timeout=5)

    assert len(message.data) > 3_000_000


CODES_ON_ORDER = ["previous_response_not_found", "rate_limit_exceeded", "server_error"]


@pytest.mark.parametrize("code", CODES_ON_ORDER)
@pytest.mark.parametrize("where", ["before_first_event", "mid_stream"])
async def test_an_error_code_can_be_ordered(
    start: Any, connect: Any, where: str, code: str
) -> None:
    socket = await connect(await start(faults=(f"{where}:error={code}",)))

    error = await socket.refusal(input="x", stream_id="a")

    assert (error["error"]["code"], error["stream_id"]) == (code, "a")
    assert (len(socket.seen) > 1) == (where == "mid_stream")
    assert await socket.response(input="x", stream_id="a")


async def test_a_connection_error_names_no_lane_and_closes(start: Any, connect: Any) -> None:
    order = "before_first_event:connection_error=websocket_connection_limit_reached"
    socket = await connect(await start(faults=(order,)))

    error = await socket.refusal(input="x", stream_id="a")
    message = await socket.ws.receive(timeout=5)

    assert "stream_id" not in error
    assert message.type is aiohttp.WSMsgType.CLOSE


async def test_orders_are_given_and_cleared_over_http(start: Any, connect: Any, http: Any) -> None:
    simulator = await start()
    control = f"http://127.0.0.1:{simulator.port}/_simulator"
    orders = ["mid_stream:reset", {"where": "mid_stream", "what": "error=server_error", "count": 3}]

    given = await (await http.post(control + "/faults", json=orders)).json()
    bad = await http.post(control + "/faults", json=["mid_stream:explode"])
    cleared = await (await http.delete(control + "/faults")).json()
    await (await connect(simulator)).response(input="x")
    records = await (await http.get(control + "/log")).json()

    assert (given, bad.status, cleared) == ({"open": 2}, 400, {"open": 0})
    assert {"Opened", "Create", "Run", "Ended"} <= {record["record"] for record in records}
    assert secret("") not in str(records)


@pytest.mark.parametrize("what", ["reset", "eof"])
async def test_an_http_answer_can_be_cut(start: Any, http: Any, what: str) -> None:
    simulator = await start()
    simulator.faults.order(Fault("mid_stream", what, over="http"))
    body = {"model": "gpt-5.6", "input": "x", "stream": True}

    answer = await http.post(simulator.base_url + "/responses", json=body)
    with pytest.raises(aiohttp.ClientError):
        await answer.read()
