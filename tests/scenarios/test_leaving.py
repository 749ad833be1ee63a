"""Clients that leave before the end, and what stays behind: nothing (contract §6)."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.worlds import KEY, World, ask, eventually, user
from wsproxy.simulator import Fault
from wsproxy.simulator.log import Closed, Ended

#: Longer than anything else here takes, on a busy machine too.
THINKING = {"sim.think_ms": "400"}


async def leave(scene: World, *, after_bytes: bool, **fields: Any) -> None:
    """Ask, wait until upstream works on it (or the first bytes came), and go away."""
    body = {"model": "sim", "store": False, "stream": True, "input": [user("leaving")], **fields}
    before = len(scene.sim.log.creates())
    reader, writer = await send(scene, body)
    if after_bytes:
        assert b"200" in await reader.readline()
        await reader.readuntil(b"response.created")
    else:
        await eventually(lambda: len(scene.sim.log.creates()) > before)
    writer.close()
    await writer.wait_closed()


async def send(
    scene: World, body: dict[str, Any]
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Ask on a connection of its own, to be closed at will."""
    port = int(scene.proxy.base_url.removesuffix("/v1").rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    raw = json.dumps(body).encode()
    head = (
        f"POST /v1/responses HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
        f"Authorization: Bearer {KEY}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(raw)}\r\n\r\n"
    )
    writer.write(head.encode() + raw)
    return reader, writer


def closed(scene: World) -> list[int]:
    return [c.connection for c in scene.sim.log.of(Closed) if c.via == "ws"]


@pytest.mark.parametrize("after_bytes", [False, True], ids=["before the first byte", "mid-stream"])
async def test_a_turn_alone_on_its_connection_is_cancelled_by_closing_it(
    scene: World, after_bytes: bool
) -> None:
    where = "mid_stream" if after_bytes else "before_first_event"
    scene.sim.faults.order(Fault(where, "silence", after=1))
    await leave(scene, after_bytes=after_bytes)

    await eventually(lambda: closed(scene), scene.core)
    assert [e.outcome for e in scene.sim.log.of(Ended)] == ["abandoned"]
    await scene.quiet()
    assert (await scene.turn([user("next")])).status == 200


@pytest.mark.parametrize("after_bytes", [False, True], ids=["before the first byte", "mid-stream"])
async def test_a_sibling_on_the_connection_hears_its_own_answer_to_the_end(
    scene: World, after_bytes: bool
) -> None:
    await scene.turn([user("first")])
    sibling = asyncio.ensure_future(
        scene.turn([user("staying")], stream=True, metadata={**THINKING, "canary": "stays"})
    )
    await eventually(lambda: len(scene.sim.log.creates()) == 2)
    await leave(scene, after_bytes=after_bytes, metadata={**THINKING, "canary": "leaves"})
    answer = await sibling

    assert answer.events()[-1]["type"] == "response.completed"
    assert b"canary=stays " in answer.body
    assert b"leaves" not in answer.body
    assert closed(scene) == []
    await scene.quiet()


async def test_a_turn_that_was_left_is_never_continued(scene: World) -> None:
    await scene.turn([user("first")])
    sibling = asyncio.ensure_future(scene.turn([user("staying")], metadata=THINKING))
    await eventually(lambda: len(scene.sim.log.creates()) == 2)
    fields = {"model": "sim", "store": False, "input": [user("leaving")], "metadata": THINKING}
    await leave(scene, after_bytes=True, **fields)
    await sibling
    await scene.quiet()
    answer = await ask(scene.client, scene.sim.base_url, json.dumps(fields).encode())
    items = [user("leaving"), *answer.response()["output"], user("go on")]

    assert (await scene.turn(items)).reason == "new_conversation"


async def test_the_next_turn_of_an_abandoned_conversation_reads_right(scene: World) -> None:
    first = await scene.turn([user("one")])
    items = [user("one"), *first.response()["output"], user("two")]
    sibling = asyncio.ensure_future(scene.turn([user("staying")], metadata=THINKING))
    await eventually(lambda: len(scene.sim.log.creates()) == 2)
    await leave(scene, after_bytes=True, input=items, metadata=THINKING)
    again = await scene.turn(items)

    assert again.response()["output"][0]["content"][0]["text"].startswith("items=3")
    await sibling
    await scene.quiet()


async def test_many_who_leave_at_any_moment_leave_nothing_behind(scene: World) -> None:
    async def come_and_go(number: int) -> None:
        turn = scene.turn([user(f"hello {number}")], stream=True, metadata={"sim.think_ms": "10"})
        task = asyncio.ensure_future(turn)
        await asyncio.wait({task}, timeout=number * 0.0015)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    await asyncio.gather(*(come_and_go(number) for number in range(20)))

    await scene.quiet()
    assert (await scene.turn([user("next")])).status == 200


async def test_a_client_that_leaves_after_the_terminal_event_abandons_nothing(
    scene: World,
) -> None:
    items = [user("one")]
    items += [*(await scene.turn(items)).response()["output"], user("two")]
    fields = {"model": "sim", "store": False, "input": items}
    answer = await ask(scene.client, scene.sim.base_url, json.dumps(fields).encode())
    reader, writer = await send(scene, {**fields, "stream": True})
    await reader.readuntil(b"event: response.completed")
    writer.close()
    await writer.wait_closed()
    await scene.quiet()

    items += [*answer.response()["output"], user("three")]
    assert (await scene.turn(items)).route == "delta"
    assert closed(scene) == []
