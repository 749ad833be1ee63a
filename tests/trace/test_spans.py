"""A running daemon and its collector of spans: told of each turn, never waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tests.canary import WATCH
from tests.conftest import LogLines
from tests.trace.collector import Receiver, receiving
from tests.worlds import World, eventually, user, world
from wsproxy.config.addresses import CollectorUrl
from wsproxy.core.accounts import TurnAccount
from wsproxy.core.ids import TurnId
from wsproxy.trace.spans import Spans


@pytest.fixture
def collector() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


async def talk(w: World, turns: int = 3) -> None:
    items = [user("hello")]
    for number in range(turns):
        answer = await w.turn(items, instructions="be brief", prompt_cache_key="mine")
        assert answer.status == 200
        items += [*answer.response()["output"], user(f"and {number}?")]


@pytest.mark.parametrize("trace", ["on", "off"])
async def test_each_finished_turn_is_a_span_that_decodes(collector: Receiver, trace: str) -> None:
    async with world(continuation="on", trace=trace, otlp_endpoint=collector.endpoint) as w:
        await talk(w)
        await w.quiet()
    assert {content_type for content_type, _ in collector.got} == {"application/json"}
    spans = sorted(collector.spans(), key=lambda span: span.start_time_unix_nano)
    about = [{pair.key: pair.value for pair in span.attributes} for span in spans]
    assert [each["wsproxy.route"].string_value for each in about] == ["full", "delta", "delta"]
    assert {each["gen_ai.request.model"].string_value for each in about} == {"sim"}
    assert all(each["gen_ai.usage.input_tokens"].int_value for each in about)
    assert all(span.end_time_unix_nano > span.start_time_unix_nano for span in spans)
    assert len({span.trace_id for span in spans}) == 1
    assert len({span.span_id for span in spans}) == 3
    for _, body in collector.got:
        WATCH.look("a span", body)


@pytest.mark.keeps_texts
async def test_traces_with_bodies_and_spans_do_not_take_from_each_other(
    collector: Receiver,
) -> None:
    given = {"trace_bodies": True, "trace_min_free_bytes": 0}
    async with world(continuation="on", otlp_endpoint=collector.endpoint, **given) as w:
        await talk(w, 2)
        await w.quiet()
        assert w.proxy.recorder is not None
    assert w.proxy.recorder.journal.dropped == 0
    assert len(collector.spans()) == 2
    for _, body in collector.got:
        WATCH.look("a span", body)


@pytest.mark.parametrize(
    ("path", "problem"),
    [("/elsewhere", "did not take it: it answered 404"), (None, "nothing listens there")],
    ids=["404", "nobody listens"],
)
async def test_a_collector_that_refuses_changes_no_turn_and_is_told_once(
    collector: Receiver, path: str | None, problem: str, log_lines: LogLines
) -> None:
    url = "http://127.0.0.1:9/v1/traces" if path is None else collector.url + path
    async with world(continuation="on", otlp_endpoint=url) as w:
        assert w.proxy.spans is not None
        await talk(w)
        await eventually(lambda: w.proxy.spans is not None and w.proxy.spans.dropped == 3)
        await talk(w)
        origin = w.proxy.base_url.removesuffix("/v1")
        async with w.client.get(f"{origin}/_wsproxy/metrics") as page:
            assert "wsproxy_spans_dropped_total 3.0" in await page.text()
    told = [line for line in log_lines() if line["event"].startswith("spans.")]
    assert [line["event"] for line in told] == ["spans.stopped"]
    assert problem in told[0]["error"]
    assert w.proxy.spans.dropped == 6


async def test_a_collector_that_hangs_holds_up_neither_turns_nor_the_end(
    collector: Receiver,
) -> None:
    collector.gate.clear()
    spans = Spans(collector.endpoint, lambda *_: None, gather_s=0.0, flush_s=0.1)
    spans.start()
    account = TurnAccount(TurnId("t1"), 0.0, 100, done=1.0, outcome="completed")
    spans.turn_ended(account)
    await eventually(lambda: collector.got)
    for _ in range(5_000):
        spans.turn_ended(account)
    assert spans.dropped > 500
    async with asyncio.timeout(4.0):
        await spans.close()


@pytest.mark.parametrize(
    "url",
    ["ftp://x", "127.0.0.1:4318", "http://", "http://a:b@c/v1", "http://c/v1?key=1", 5],
    ids=str,
)
def test_an_endpoint_must_be_a_plain_url(url: object) -> None:
    with pytest.raises(ValueError, match=r"URL|must end"):
        CollectorUrl().parse(url)
    assert CollectorUrl().parse("") == ""
