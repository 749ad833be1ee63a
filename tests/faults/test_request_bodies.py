"""All request bodies together are bounded: what does not fit is told so, what is over is let go."""

from __future__ import annotations

import asyncio
import gc
import gzip
import json
from typing import Any

import pytest

from tests.canary import SECRET, TEXT, WATCH
from tests.faults.scene import Stage, meet, port_of, stage
from tests.worlds import Answer, ask, eventually
from wsproxy.core.api.request import Request

KIB = 1024
TOTAL = 100 * KIB
SILENT = "before_first_event:silence"


def body(size: int, **fields: Any) -> bytes:
    """A turn's body of at least that size."""
    asked = {"model": "sim", "store": False, "stream": True, **fields}
    return json.dumps({**asked, "input": TEXT + "x" * size}).encode()


def held(scene: Stage) -> int:
    """What the proxy's account says."""
    return scene.proxy.room.held_bytes


def is_refused(answer: Answer) -> bool:
    """Whether the client was told that there is no room, in our manner."""
    told = answer.headers
    return (
        (answer.status, answer.json()["error"]["code"]) == (503, "proxy_overloaded")
        and (told["retry-after"], told["x-should-retry"]) == ("1", "true")
        and told["x-wsproxy-route"] == "none; reason=proxy_overloaded"
    )


async def test_a_body_that_has_no_room_beside_the_others_is_refused_before_it_is_read() -> None:
    async with stage(SILENT, lanes="on", request_bodies_total_bytes=TOTAL) as scene:
        first = asyncio.create_task(ask(scene.client, scene.proxy.base_url, body(60 * KIB)))
        await eventually(lambda: held(scene) > 60 * KIB)
        port = port_of(scene.proxy.base_url)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = f"POST /v1/responses HTTP/1.1\r\nHost: localhost:{port}\r\n"
        head += f"Authorization: Bearer {SECRET}\r\nContent-Length: {60 * KIB}\r\n"
        writer.write(f"{head}Expect: 100-continue\r\n\r\n".encode())
        async with asyncio.timeout(5):
            answer = await reader.read()
        WATCH.look("an error of our own", answer)
        writer.close()

        assert answer.startswith(b"HTTP/1.1 503 "), "not even 100 Continue"
        scene.link.reset()
        assert (await first).status == 502
        assert (await scene.turn("hello")).status == 200
        await scene.quiet()
        assert held(scene) == 0


@pytest.mark.parametrize("coding", ["chunked", "gzip"])
async def test_a_body_whose_size_nobody_told_is_refused_where_it_no_longer_fits(
    coding: str,
) -> None:
    async def chunks() -> Any:
        for _ in range(10):
            yield bytes(20 * KIB)

    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {SECRET}"}
    async with stage(request_bodies_total_bytes=TOTAL) as scene:
        if coding == "chunked":
            sent: Any = chunks()
        else:
            sent, headers["Content-Encoding"] = gzip.compress(body(200 * KIB)), "gzip"
        url = f"{scene.proxy.base_url}/responses"
        async with scene.client.post(url, data=sent, headers=headers) as got:
            answer = Answer(got.status, got.headers, await got.read())
        WATCH.look("an error of our own", answer.body)

        assert is_refused(answer)
        await eventually(lambda: held(scene) == 0)
        assert scene.sim.log.runs() == {}


@pytest.mark.parametrize(
    ("orders", "fields", "settings"),
    [
        ([], {}, {}),
        ([], {"stream": False}, {}),
        (["before_first_event:error=server_error"], {}, {}),
        (["before_first_event:reset"], {}, {}),
        (["mid_stream:eof"], {}, {}),
        ([], {}, {"transport": "http"}),
        (["before_first_event:reset"], {}, {"transport": "http"}),
        ([], {}, {"trace_bodies": True}),
        ([SILENT], {}, {"first_event_timeout_s": 0.2}),
        ([], {"input": 1}, {}),
    ],
    ids=[
        *("streamed", "whole", "refused upstream", "lost", "cut", "over HTTPS", "lost over HTTPS"),
        *("traced", "too late", "not understood"),
    ],
)
@pytest.mark.keeps_texts
async def test_however_a_turn_ends_its_body_is_let_go(
    orders: list[str], fields: dict[str, Any], settings: dict[str, Any]
) -> None:
    async with stage(*orders, continuation="off", **settings) as scene:
        await ask(scene.client, scene.proxy.base_url, body(300 * KIB, **fields))
        await scene.quiet()
        assert held(scene) == 0


async def test_a_client_that_leaves_takes_its_body_with_it() -> None:
    async with stage(SILENT, lanes="on") as scene:
        turn = asyncio.create_task(meet(scene.proxy.base_url, "c", stream=True))
        await eventually(lambda: held(scene) and scene.generations("c"))
        turn.cancel()
        await eventually(lambda: held(scene) == 0)
        await scene.quiet()


@pytest.mark.parametrize(
    ("settings", "is_kept"), [({}, False), ({"trace_bodies": True}, True)], ids=["", "traced"]
)
@pytest.mark.keeps_texts
async def test_a_body_is_held_until_the_answer_begins(
    settings: dict[str, Any], is_kept: bool
) -> None:
    async with stage("mid_stream:silence", lanes="on", continuation="off", **settings) as scene:
        turn = asyncio.create_task(ask(scene.client, scene.proxy.base_url, body(300 * KIB)))
        await eventually(lambda: any(t.phase.name == "STARTED" for t in scene.core.turns.values()))
        await eventually(lambda: bool(held(scene)) is is_kept)

        assert any(is_large(one) for one in gc.get_objects()) is is_kept
        scene.link.reset()
        await turn
        await scene.quiet()
        assert held(scene) == 0


def is_large(found: object) -> bool:
    """Whether it is the request of that turn, with its members."""
    return isinstance(found, Request) and found.text is not None and len(found.text) > 300 * KIB


async def test_a_body_over_https_is_let_go_when_it_has_left() -> None:
    orders = ("mid_stream:silence",)
    async with stage(*orders, transport="http") as scene:
        turn = asyncio.create_task(ask(scene.client, scene.proxy.base_url, body(500 * KIB)))
        await eventually(lambda: scene.sim.log.runs() and held(scene) == 0)
        assert not turn.done()
        scene.link.reset()
        await turn
        await scene.quiet()
