"""The road a request takes: WebSocket, HTTPS instead, or straight through (contract §1, §4)."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest
from yarl import URL

from tests.canary import TEXT
from tests.differential.upstreams import REFUSALS, SHORT_HANDSHAKE_S
from tests.scenarios.conftest import Start
from tests.worlds import KEY, World, ask, user
from wsproxy.simulator import Rules

AUTH = {"Authorization": f"Bearer {KEY}"}


# ── Turns over HTTPS ─────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("status", REFUSALS)
async def test_a_refused_upgrade_sends_turns_over_https(start: Start, status: int) -> None:
    scene = await start(Rules(refuse_upgrade=status))
    answers = [await scene.turn([user("hello")], stream=stream) for stream in (True, False)]

    assert [answer.status for answer in answers] == [200, 200]
    assert {answer.headers["x-wsproxy-route"] for answer in answers} == {
        "http; reason=no_websocket"
    }
    assert answers[0].headers["x-request-id"], "upstream's own headers are relayed"
    assert [create.via for create in scene.seen] == ["http", "http"]


async def test_an_upgrade_that_hangs_costs_a_turn_the_handshake_wait_once(start: Start) -> None:
    scene = await start(Rules(hang_upgrade=True), handshake_wait_s=SHORT_HANDSHAKE_S)
    began = time.monotonic()
    answer = await scene.turn([user("hello")])

    assert (answer.status, answer.headers["x-wsproxy-route"]) == (200, "http; reason=no_websocket")
    assert SHORT_HANDSHAKE_S <= time.monotonic() - began < 2


async def test_no_websocket_is_not_for_ever(start: Start) -> None:
    scene = await start(no_websocket_url_s=0.02)
    scene.sim.faults.order("handshake:status=426:1")
    routes = [(await scene.turn([user("hello")])).route]
    while routes[-1] == "http" and len(routes) < 100:
        await asyncio.sleep(0.01)
        routes.append((await scene.turn([user("hello")])).route)

    assert routes[0] == "http"
    assert routes[-1] == "full"


async def test_nobody_listening_is_a_clear_502(start: Start) -> None:
    scene = await start()
    await scene.sim.stop()
    answer = await scene.turn([user("hello")])

    assert answer.status == 502
    assert answer.json()["error"]["code"]
    assert answer.headers["x-wsproxy-turn"]


RAW = b'{"model":"sim","store":false,"input":%b%%b}' % json.dumps(TEXT).encode()


@pytest.mark.parametrize(
    ("body", "headers", "reason"),
    [
        (RAW % b',"background":true', {}, "background"),
        (RAW % b',"generate":false', {}, "reserved_member"),
        (RAW % b',"stream_id":"l01"', {}, "reserved_member"),
        (RAW % b',"type":"response.create"', {}, "reserved_member"),
        (RAW % b',"model":"sim"', {}, "unparsed"),
        (RAW % b',"top_p":NaN', {}, "unparsed"),
        (b"[]", {}, "unparsed"),
        (b"", {}, "unparsed"),
        (RAW % b"", {"idempotency-key": "one"}, "idempotency_key"),
        (RAW % b"", {"Content-Type": "text/plain"}, "content_type"),
        (RAW % (b',"user":"%b"' % (b"x" * 5000)), {}, "too_large"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_what_a_frame_cannot_carry_goes_over_https_verbatim(
    start: Start, body: bytes, headers: dict[str, str], reason: str
) -> None:
    scene = await start(max_turn_json_bytes=4096)
    through = await ask(scene.client, scene.proxy.base_url, body, headers=headers)
    direct = await ask(scene.client, scene.sim.base_url, body, headers=headers)

    assert through.headers["x-wsproxy-route"] == f"http; reason={reason}"
    assert (through.status, through.body) == (direct.status, direct.body)
    assert through.headers["x-request-id"]


async def test_transport_http_never_opens_a_websocket(start: Start) -> None:
    scene = await start(transport="http")
    answer = await scene.turn([user("hello")])

    assert answer.headers["x-wsproxy-route"] == "http; reason=transport_http"
    assert scene.sim.log.websockets() == []


# ── A client's own chain ─────────────────────────────────────────────────────────────────────


async def test_a_parent_named_by_the_client_goes_to_the_lane_that_owns_it(scene: World) -> None:
    first = await scene.turn([user("one")])
    await scene.turn([user("beside")])
    parent = first.response()["id"]
    second = await scene.turn([user("two")], previous_response_id=parent)

    assert second.response()["previous_response_id"] == parent
    assert second.response()["output"][0]["content"][0]["text"].startswith("items=3")
    one, _, three = scene.seen
    assert (three.connection, three.lane) == (one.connection, one.lane)


async def test_a_parent_that_upstream_does_not_know_is_upstreams_to_refuse(scene: World) -> None:
    answer = await scene.turn([user("two")], previous_response_id="resp_never")

    assert answer.status == 400
    assert answer.json()["error"]["code"] == "previous_response_not_found"
    assert len(scene.sim.log.creates()) == 1, "never sent again from our state"


async def test_a_conversation_goes_in_full_over_the_websocket(scene: World) -> None:
    answers = [
        await scene.turn([user(f"say {number}")], conversation="conv_1") for number in (1, 2)
    ]

    assert [(answer.route, answer.status) for answer in answers] == [("full", 200)] * 2
    assert answers[1].response()["output"][0]["content"][0]["text"].startswith("items=3")


# ── Saying how ───────────────────────────────────────────────────────────────────────────────


async def test_every_answer_to_a_turn_says_who_it_is_and_how_it_went(scene: World) -> None:
    first = await scene.turn([user("one")])
    items = [user("one"), *first.response()["output"], user("two")]
    answers = [
        first,
        await scene.turn(items),
        await scene.turn([user("three")], idempotency=1, headers={"idempotency-key": "k"}),
        await scene.turn([user("four")], metadata={"sim.fail": "server_error"}),
        await scene.turn(5),
    ]
    scene.sim.faults.order("before_first_event:eof")
    answers.append(await scene.turn([user("five")]))

    routes = [answer.headers["x-wsproxy-route"] for answer in answers]
    assert routes[:3] == ["full; reason=new_conversation", "delta", "http; reason=idempotency_key"]
    assert routes[-1].startswith("none; reason=upstream_outcome_unknown")
    ids = [answer.headers["x-wsproxy-turn"] for answer in answers]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"model": "gpt-5.6"}, "full; reason=fields_changed; fields=model"),
        (
            {"instructions": "new", "user": "u"},
            "full; reason=fields_changed; fields=instructions,user",
        ),
        ({"temperature": 0.1, "top_p": 0.2, "metadata": {"a": "b"}}, "delta"),
    ],
    ids=["model", "two", "free"],
)
async def test_a_changed_field_is_named_unless_it_may_change(
    scene: World, change: dict[str, Any], told: str
) -> None:
    first = await scene.turn([user("one")])
    items = [user("one"), *first.response()["output"], user("two")]

    assert (await scene.turn(items, **change)).headers["x-wsproxy-route"] == told


async def test_an_edited_item_is_named(scene: World) -> None:
    first = await scene.turn([user("one"), user("two")])
    items = [user("one"), user("TWO"), *first.response()["output"], user("three")]
    answer = await scene.turn(items)

    assert answer.headers["x-wsproxy-route"] == "full; reason=history_edited; index=1; type=message"


# ── Not turns ────────────────────────────────────────────────────────────────────────────────


async def test_a_websocket_client_is_told_to_use_http(scene: World) -> None:
    url = f"{scene.proxy.base_url}/responses"
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    async with scene.client.get(url, headers=AUTH | upgrade) as response:
        document = json.loads(await response.read())

    assert response.status == 426
    assert document["error"]["message"]
    assert scene.sim.log.websockets() == []


async def test_another_websocket_is_tunnelled(scene: World) -> None:
    url = f"{scene.proxy.base_url}/realtime?model=m"
    async with scene.client.ws_connect(url, headers=AUTH) as socket:
        await socket.send_str("said")
        await socket.send_bytes(b"\x00\x01")
        assert (await socket.receive_str(), await socket.receive_bytes()) == ("said", b"\x00\x01")


async def test_uploads_and_downloads_pass_untouched(scene: World) -> None:
    body = bytes(range(256)) * 4096
    headers = AUTH | {"Content-Type": "application/x-tar", "Content-Encoding": "zstd"}
    url = URL(f"{scene.proxy.base_url}/files?purpose=a%2Fb&x=1", encoded=True)
    async with scene.client.put(url, data=body, headers=headers) as response:
        assert await response.read() == body

    assert response.headers["content-encoding"] == "zstd"
    assert response.headers["x-echo-method"] == "PUT"
    assert response.headers["x-echo-target"] == "/v1/files?purpose=a%2Fb&x=1"


async def test_other_event_streams_arrive_event_by_event(scene: World) -> None:
    async with scene.client.get(f"{scene.proxy.base_url}/sse/ticks?n=4", headers=AUTH) as response:
        parts = [part async for part in response.content.iter_any()]

    assert b"".join(parts).count(b"data: tick") == 4
    assert len(parts) > 1, "nothing may be gathered on the way"


async def test_stored_responses_are_read_replayed_and_deleted(scene: World) -> None:
    answer = await scene.turn([user("hello")], store=True)
    url = f"{scene.proxy.base_url}/responses/{answer.response()['id']}"
    async with scene.client.get(f"{url}?stream=true&starting_after=1", headers=AUTH) as replay:
        assert b"response.completed" in await replay.read()
    async with scene.client.delete(url, headers=AUTH) as deleted:
        assert json.loads(await deleted.read())["deleted"] is True
    async with scene.client.get(url, headers=AUTH) as gone:
        assert gone.status == 404


async def test_a_background_response_is_polled_to_its_end(scene: World) -> None:
    answer = await scene.turn([user("hello")], store=True, background=True)
    assert answer.headers["x-wsproxy-route"] == "http; reason=background"
    url = f"{scene.proxy.base_url}/responses/{answer.json()['id']}"

    async def is_completed() -> bool:
        async with scene.client.get(url, headers=AUTH) as response:
            return bool(json.loads(await response.read())["status"] == "completed")

    for _ in range(200):
        if await is_completed():
            break
    assert await is_completed()


async def test_models_are_fetched_once(scene: World) -> None:
    url = f"{scene.proxy.base_url}/models"

    async def models() -> bytes:
        async with scene.client.get(url, headers=AUTH) as response:
            return await response.read()

    found = await asyncio.gather(*(models() for _ in range(10)))
    assert len(set(found)) == 1
    assert len([r for r in scene.sim.log if getattr(r, "target", "") == "/v1/models"]) <= 2


@pytest.mark.parametrize("path", ["/responses", "/v1/v1/responses", "/v1/responses/"])
async def test_a_wrong_base_url_is_told_the_right_one(scene: World, path: str) -> None:
    origin = scene.proxy.base_url.removesuffix("/v1")
    async with scene.client.post(origin + path, json={}, headers=AUTH) as response:
        assert response.status == 404
        assert scene.proxy.base_url in (await response.text())
