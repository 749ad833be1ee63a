"""`/_wsproxy/metrics`: every turn once, by names of ours only, and all that the dashboard shows."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Final

from prometheus_client.parser import text_string_to_metric_families

from tests.worlds import World, user, world
from wsproxy.simulator import Rules

DASHBOARD: Final = Path(__file__).parents[2] / "config" / "grafana.json"

#: Sample name and labels, sorted → value.
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


async def scrape(proxy: World) -> Samples:
    origin = proxy.proxy.base_url.rsplit("/", 1)[0]
    async with proxy.client.get(f"{origin}/_wsproxy/metrics") as answer:
        assert answer.content_type == "text/plain"
        text = await answer.text()
    families = text_string_to_metric_families(text)
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples.get((f"wsproxy_{name}", tuple(sorted(labels.items()))), 0.0)


async def test_a_turn_is_counted_once_however_many_events_it_has() -> None:
    async with world(continuation="on", lanes="on") as proxy:
        first = await proxy.turn([user("hello")], stream=True)
        items = [user("hello"), *first.response()["output"], user("again")]
        second = await proxy.turn(items, stream=True)
        events = len(first.events()) + len(second.events())
        samples = await scrape(proxy)
    assert events > 10
    assert value(samples, "turns_total", route="full", outcome="completed") == 1
    assert value(samples, "turns_total", route="delta", outcome="completed") == 1
    assert value(samples, "turn_reasons_total", route="full", reason="new_conversation") == 1
    assert value(samples, "events_total") == events
    assert value(samples, "turn_seconds_count", route="delta") == 1
    assert value(samples, "first_event_seconds_count", route="delta") == 1
    assert value(samples, "overhead_seconds_count") == 2
    assert value(samples, "handshake_seconds_count") == 1


async def test_bytes_that_were_saved_are_those_that_http_would_have_sent_too() -> None:
    async with world(continuation="on", lanes="on") as proxy:
        items = [user("x" * 10_000)]
        answer = await proxy.turn(items)
        await proxy.turn([*items, *answer.response()["output"], user("again")])
        samples = await scrape(proxy)
        saved = proxy.proxy.tally
    assert value(samples, "http_bytes_total") == saved.bytes_http
    assert value(samples, "up_bytes_total") == saved.bytes_up
    assert 10_000 < value(samples, "saved_bytes_total") < 12_000


async def test_faults_connections_and_turns_over_https_are_counted() -> None:
    async with world(Rules(refuse_upgrade=404)) as proxy:
        await proxy.turn([user("hello")])
        samples = await scrape(proxy)
    assert value(samples, "turns_total", route="http", outcome="completed") == 1
    assert value(samples, "connection_changes_total", change="refused") == 1
    assert value(samples, "faults_total", fault="F35") >= 1
    assert value(samples, "url_without_websocket_seconds") > 0
    assert value(samples, "downstream_connections") == 1
    assert value(samples, "downstream_connections_accepted_total") == 1


async def test_what_a_client_writes_makes_no_new_series() -> None:
    async def odd_turn(proxy: World, number: int) -> None:
        body = {"metadata": {"n": str(number)}, "safety_identifier": f"client-{number}"}
        await proxy.turn(f"hello {number}", headers={"x-client-request-id": str(number)}, **body)

    async with world(continuation="on", lanes="on") as proxy:
        await odd_turn(proxy, 0)
        before = set(await scrape(proxy))
        for number in range(1, 6):
            await odd_turn(proxy, number)
        assert set(await scrape(proxy)) == before


async def test_every_number_of_the_dashboard_exists() -> None:
    panels = json.loads(DASHBOARD.read_text("utf-8"))["panels"]
    asked = [target["expr"] for panel in panels for target in panel["targets"]]
    names = {name for expr in asked for name in re.findall(r"wsproxy_\w+", expr)}
    async with world(continuation="on", faults=["before_first_event:close=1011"]) as proxy:
        await proxy.turn([user("hello")])
        await proxy.turn([user("hello")])
        known = {name for name, _ in await scrape(proxy)}
    assert len(panels) == 12
    assert names <= known
