"""The HTTP side: SSE, JSON, errors, stored responses, models, and things to pass through."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from typing import Any

import pytest
from aiohttp import ClientTimeout
from yarl import URL

from tests.canary import secret
from wsproxy.simulator.log import Ended, HttpRequest, Opened

BODY = {"model": "gpt-5.6", "input": "Olá", "metadata": {"canary": "c-1"}}


async def post(http: Any, simulator: Any, **fields: Any) -> Any:
    return await http.post(simulator.base_url + "/responses", json={**BODY, **fields})


def events_of(text: str) -> list[dict[str, Any]]:
    """Parse SSE as strictly as the format is written."""
    assert text.endswith("\n\n")
    found = []
    for block in text[:-2].split("\n\n"):
        first, second = block.split("\n")
        event = json.loads(second.removeprefix("data: "))
        assert first == "event: " + event["type"]
        found.append(event)
    return found


async def test_a_stream_has_the_recorded_format_and_no_done_marker(start: Any, http: Any) -> None:
    simulator = await start()

    answer = await post(http, simulator, stream=True)
    events = events_of(await answer.text())

    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    kinds = [event["type"] for event in events if not event["type"].endswith(".delta")]
    assert kinds == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]


async def test_members_of_an_event_come_in_the_recorded_order(start: Any, http: Any) -> None:
    answer = await post(http, await start(), stream=True)
    events = {event["type"]: event for event in events_of(await answer.text())}

    assert ",".join(events["response.output_text.delta"]) == (
        "type,content_index,delta,item_id,logprobs,obfuscation,output_index,sequence_number"
    )
    assert ",".join(events["response.completed"]) == "type,response,sequence_number"
    assert ",".join(events["response.completed"]["response"]) == (
        "id,object,created_at,status,background,completed_at,error,frequency_penalty,"
        "incomplete_details,instructions,max_output_tokens,max_tool_calls,model,moderation,output,"
        "parallel_tool_calls,presence_penalty,previous_response_id,prompt_cache_key,"
        "prompt_cache_retention,reasoning,safety_identifier,service_tier,store,temperature,text,"
        "tool_choice,tools,top_logprobs,top_p,truncation,usage,user,metadata"
    )


@pytest.mark.parametrize("stream", [False, None, ...], ids=["false", "null", "absent"])
async def test_without_streaming_the_answer_is_the_terminal_object(
    start: Any, http: Any, stream: object
) -> None:
    simulator = await start()
    streamed = events_of(await (await post(http, simulator, stream=True)).text())

    answer = await post(http, simulator, **({} if stream is ... else {"stream": stream}))
    raw = await answer.read()
    document = json.loads(raw)

    assert raw.startswith(b'{\n  "id"')
    assert raw.isascii()
    assert document.pop("billing") == {"payer": "developer"}
    assert document == streamed[-1]["response"]


@pytest.mark.parametrize("obfuscate", [True, False])
async def test_obfuscation_can_be_switched_off(start: Any, http: Any, obfuscate: bool) -> None:
    options = {"include_obfuscation": obfuscate}

    answer = await post(http, await start(), stream=True, stream_options=options)

    assert ('"obfuscation"' in await answer.text()) == obfuscate


REFUSED = {
    "not json": (b"{", 400, None),
    "not an object": (b"[]", 400, None),
    "frame member type": ({"type": "response.create"}, 400, "unknown_parameter"),
    "frame member stream_id": ({"stream_id": "a"}, 400, "unknown_parameter"),
    "frame member generate": ({"generate": False}, 400, "unknown_parameter"),
    "unknown parent": ({"previous_response_id": "r"}, 400, "previous_response_not_found"),
    "unknown model": ({"model": "missing-1"}, 404, "model_not_found"),
    "rate limit": ({"metadata": {"sim.fail": "rate_limit_exceeded"}}, 429, "rate_limit_exceeded"),
    "overload": ({"metadata": {"sim.fail": "server_is_overloaded"}}, 503, "server_is_overloaded"),
}


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize(("change", "status", "code"), REFUSED.values(), ids=REFUSED.keys())
async def test_a_refusal_is_a_status_and_an_error_body(
    start: Any, http: Any, change: Any, status: int, code: str | None, stream: bool
) -> None:
    simulator = await start()
    fields = {**BODY, "stream": stream}
    data = change if isinstance(change, bytes) else json.dumps({**fields, **change})

    answer = await http.post(simulator.base_url + "/responses", data=data)
    error = (await answer.json())["error"]

    assert answer.status == status
    assert list(error) == ["message", "type", "param", "code"]
    assert error["code"] == code
    assert ("retry-after" in answer.headers) == (status == 429)


async def test_an_error_after_the_first_event_is_flat(start: Any, http: Any) -> None:
    metadata = {"sim.fail": "after_created:server_is_overloaded"}

    streamed = await post(http, await start(), stream=True, metadata=metadata)
    events = events_of(await streamed.text())

    assert streamed.status == 200
    assert [event["type"] for event in events] == ["response.created", "error"]
    assert events[1] == {
        "type": "error",
        "code": "server_is_overloaded",
        "message": "Our servers are currently overloaded.",
        "param": None,
        "sequence_number": 1,
    }


@pytest.mark.parametrize(
    ("coding", "encode"),
    [("identity", bytes), ("gzip", gzip.compress), ("deflate", zlib.compress)],
)
async def test_content_codings_of_a_body_are_undone(
    start: Any, http: Any, coding: str, encode: Any
) -> None:
    simulator = await start()
    url = simulator.base_url + "/responses"
    raw = json.dumps(BODY).encode()

    answer = await http.post(url, data=encode(raw), headers={"Content-Encoding": coding})
    unknown = await http.post(url, data=raw, headers={"Content-Encoding": "br"})

    assert answer.status == 200
    assert (await answer.json())["metadata"] == BODY["metadata"]
    assert unknown.status == 415


async def test_a_zstd_body_is_read(start: Any, http: Any) -> None:
    zstandard = pytest.importorskip("zstandard")
    simulator = await start()
    data = zstandard.ZstdCompressor().compress(json.dumps(BODY).encode())

    answer = await http.post(
        simulator.base_url + "/responses", data=data, headers={"Content-Encoding": "zstd"}
    )

    assert answer.status == 200


async def test_stored_responses_can_be_read_listed_replayed_and_deleted(
    start: Any, http: Any
) -> None:
    simulator = await start()
    streamed = await (await post(http, simulator, stream=True)).text()
    done = events_of(streamed)[-1]["response"]
    url = f"{simulator.base_url}/responses/{done['id']}"

    assert await (await http.get(url)).json() == done
    assert await (await http.get(url + "?stream=true")).text() == streamed
    items = await (await http.get(url + "/input_items")).json()
    assert [item["content"] for item in items["data"]] == ["Olá"]
    assert (await (await http.delete(url)).json())["deleted"] is True
    assert (await http.get(url)).status == 404
    chained = await post(http, simulator, previous_response_id=done["id"])
    assert (await chained.json())["error"]["code"] == "previous_response_not_found"


async def test_what_was_not_stored_or_is_anothers_is_not_found(start: Any, http: Any) -> None:
    simulator = await start()
    passing = await (await post(http, simulator, store=False)).json()
    stored = await (await post(http, simulator)).json()
    base = simulator.base_url + "/responses/"

    assert (await http.get(base + passing["id"])).status == 404
    other = {"Authorization": f"Bearer {secret('two')}"}
    assert (await http.get(base + stored["id"], headers=other)).status == 404
    assert (await http.get(base + stored["id"])).status == 200


async def test_a_background_response_completes_by_itself(start: Any, http: Any) -> None:
    simulator = await start()

    queued = await (await post(http, simulator, background=True)).json()
    url = f"{simulator.base_url}/responses/{queued['id']}"
    shown = queued
    while shown["status"] == "queued":
        shown = await (await http.get(url)).json()

    assert queued["status"] == "queued"
    assert (shown["status"], shown["background"]) == ("completed", True)


async def test_a_background_response_can_be_cancelled(start: Any, http: Any) -> None:
    simulator = await start()
    slow = {"sim.think_ms": "10000"}
    queued = await (await post(http, simulator, background=True, metadata=slow)).json()

    url = f"{simulator.base_url}/responses/{queued['id']}/cancel"
    cancelled = await (await http.post(url)).json()

    assert cancelled["status"] == "cancelled"


async def test_a_conversation_holds_the_items_of_its_turns(start: Any, http: Any) -> None:
    simulator = await start()

    first = await (await post(http, simulator, conversation="conv_1")).json()
    await post(http, simulator, conversation={"id": "conv_1"})

    longest = max(simulator.transcripts.values(), key=len)
    assert [item.get("content") for item in longest][::2] == ["Olá", "Olá"]
    assert longest[1] == first["output"][0]


async def test_models_are_listed_and_revalidated(start: Any, http: Any) -> None:
    simulator = await start(models=("m-1", "m-2"))
    url = simulator.base_url + "/models"

    listed = await http.get(url)
    again = await http.get(url, headers={"If-None-Match": listed.headers["etag"]})
    one = await http.get(url + "/m-2")

    assert [model["id"] for model in (await listed.json())["data"]] == ["m-1", "m-2"]
    assert (again.status, await again.read()) == (304, b"")
    assert (await one.json())["id"] == "m-2"
    assert (await http.get(url + "/m-3")).status == 404


async def test_bodies_pass_through_byte_for_byte(start: Any, http: Any) -> None:
    simulator = await start()
    data = bytes(range(256)) * 3000

    place = URL(simulator.base_url + "/echo/some/place?q=%2F", encoded=True)
    answer = await http.put(place, data=data)
    shown = await (
        await http.get(simulator.base_url + "/echo/headers", headers={"X-A": "b"})
    ).json()
    download = await http.get(simulator.base_url + "/bytes?n=100001")
    ticks = await http.get(simulator.base_url + "/sse/ticks?n=2")

    assert await answer.read() == data
    assert answer.headers["x-echo-method"] == "PUT"
    assert answer.headers["x-echo-target"] == "/v1/echo/some/place?q=%2F"
    assert ["X-A", "b"] in shown
    assert len(await download.read()) == 100_001
    assert await ticks.text() == "id: 0\ndata: tick 0\n\nid: 1\ndata: tick 1\n\n"
    for status in (204, 304, 418, 503):
        assert (await http.get(f"{simulator.base_url}/status/{status}")).status == status


async def test_an_unrelated_websocket_says_back_what_it_hears(start: Any, http: Any) -> None:
    simulator = await start()

    async with http.ws_connect(simulator.base_url + "/realtime") as ws:
        await ws.send_str("hello")
        await ws.send_bytes(b"\x00\x01")
        heard = [(await ws.receive(timeout=5)).data for _ in range(2)]

    assert heard == ["hello", b"\x00\x01"]


async def test_answers_carry_the_headers_of_the_api(start: Any, http: Any) -> None:
    answer = await post(http, await start())

    assert answer.headers["x-request-id"].startswith("req_")
    assert answer.headers["openai-version"] == "2020-10-01"
    for name in ("openai-processing-ms", "openai-organization", "x-ratelimit-limit-requests"):
        assert name in answer.headers


async def test_one_connection_serves_many_requests_unless_told_otherwise(
    start: Any, http: Any
) -> None:
    simulator = await start()

    for _ in range(3):
        await (await post(http, simulator)).read()
    assert len(simulator.log.of(Opened)) == 1
    await http.get(simulator.base_url + "/models", headers={"Connection": "close"})
    await http.get(simulator.base_url + "/models")

    assert len(simulator.log.of(Opened)) == 2
    assert len(simulator.log.of(HttpRequest)) == 5


@pytest.mark.parametrize(
    ("raw", "status"),
    [(b"nonsense\r\n\r\n", 400), (b"GET / HTTP/1.1\r\nA: b\r\n\r\n", 400)],
    ids=["no http", "no host"],
)
async def test_garbage_is_answered_with_400_and_a_close(
    start: Any, raw: bytes, status: int
) -> None:
    simulator = await start()
    reader, writer = await asyncio.open_connection("127.0.0.1", simulator.port)

    writer.write(raw)
    answer = await asyncio.wait_for(reader.read(), 5)
    writer.close()

    assert answer.startswith(b"HTTP/1.1 %d" % status)


@pytest.mark.parametrize("path", ["/", "/responses", "/v1/nothing", "/v1/responses/x/y", "/v1"])
async def test_an_unknown_path_is_404_with_an_error_body(start: Any, http: Any, path: str) -> None:
    simulator = await start()

    answer = await http.post(f"http://127.0.0.1:{simulator.port}{path}", json=BODY)

    assert answer.status == 404
    assert "message" in (await answer.json())["error"]


async def test_a_client_that_leaves_a_silent_model_ends_the_run(start: Any, http: Any) -> None:
    simulator = await start()
    body = {**BODY, "metadata": {"sim.think_ms": "20000"}}

    with pytest.raises(TimeoutError):
        await http.post(
            simulator.base_url + "/responses", json=body, timeout=ClientTimeout(total=0.1)
        )
    async with asyncio.timeout(5):
        while not simulator.log.of(Ended):
            await (await http.get(simulator.base_url + "/models")).read()

    assert [ended.outcome for ended in simulator.log.of(Ended)] == ["abandoned"]
