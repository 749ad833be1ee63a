"""`/_wsproxy/pools`, `wsproxy pools` and `wsproxy top`: what runs, what waits, what was saved."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest

from tests.canary import SECRET, TEXT, WATCH, secret
from tests.conftest import LogLines
from tests.worlds import World, eventually, user, world
from wsproxy.cli.main import main
from wsproxy.config import Settings, trace_folder
from wsproxy.daemon import running
from wsproxy.simulator import Rules
from wsproxy.trace.reader import read_traces

CANARY: Final = "canary-5e11"
#: One turn at a time, on one connection: the second one has to wait.
NARROW: Final[dict[str, Any]] = {
    "lanes": "off",
    "max_connections": 1,
    "queue_wait_s": 30.0,
    "continuation": "off",
}


async def page(proxy: World, name: str) -> str:
    origin = proxy.proxy.base_url.rsplit("/", 1)[0]
    async with proxy.client.get(f"{origin}/_wsproxy/{name}") as answer:
        assert answer.status == 200
        return await answer.text()


async def pools(proxy: World) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(await page(proxy, "pools"))
    return found


async def talk(proxy: World, turns: int, **body: Any) -> None:
    items = [user("hello")]
    for number in range(turns):
        answer = await proxy.turn(items, **body)
        items += [*answer.response()["output"], user(f"and {number}?")]


async def test_a_session_shows_its_connection_its_lanes_and_what_it_saved() -> None:
    async with world(continuation="on", lanes="on") as proxy:
        await talk(proxy, 4, prompt_cache_key="mine")
        shown = await pools(proxy)
    [row] = shown["pool"]["sessions"]
    assert row["connections"] == 1
    assert row["lanes_used"] == 1
    assert (row["lanes_max"], row["in_flight"], row["in_flight_max"]) == (32, 0, 16)
    assert (row["queued"], row["transport"]) == (0, "websocket")
    assert shown["pool"]["connections"][0]["lanes_warm"] == 1
    saved = shown["saved"]
    assert (saved["turns"], saved["continued"], saved["handshakes"]) == (4, 3, 1)
    assert saved["bytes_up"] < saved["bytes_http"]


async def test_sessions_have_the_names_under_which_their_traces_are_found() -> None:
    async with world(trace="on") as proxy:
        await talk(proxy, 2)
        await talk(proxy, 2, prompt_cache_key="mine")
        recorder = proxy.proxy.recorder
        assert recorder is not None
        await eventually(lambda: recorder.names is not None, recorder)
        rows = (await pools(proxy))["pool"]["sessions"]
        folder = trace_folder(proxy.proxy.settings)
    told = read_traces(folder)
    assert len(rows) == 2
    assert {row["session"] for row in rows} == told.sessions.keys()
    assert {row["key"] for row in rows} == {turn.key for turn in told.turns.values()}


async def test_a_turn_that_waits_is_shown_with_its_wait() -> None:
    async with world(Rules(round_trip_s=0.3), **NARROW) as proxy:
        running = [asyncio.create_task(proxy.turn([user(str(n))])) for n in range(3)]
        await eventually(lambda: len(proxy.core.waiting) == 2, proxy.core)
        shown = (await pools(proxy))["pool"]
        assert (shown["turns"], shown["queued"]) == (3, 2)
        assert shown["longest_wait_s"] > 0
        [row] = shown["sessions"]
        assert (row["in_flight"], row["in_flight_max"], row["queued"]) == (1, 1, 2)
        assert row["longest_wait_s"] == shown["longest_wait_s"]
        assert {(await task).status for task in running} == {200}


@pytest.mark.parametrize(
    ("status", "is_whole_upstream"), [(404, True), (403, False)], ids=["no such URL", "this key"]
)
async def test_an_upstream_without_websocket_shows_until_when_it_is_believed(
    status: int, is_whole_upstream: bool
) -> None:
    async with world(Rules(refuse_upgrade=status)) as proxy:
        await talk(proxy, 2)
        shown = await pools(proxy)
    assert shown["saved"]["over_https"] == 2
    assert (shown["pool"]["url_no_websocket_s"] > 0) is is_whole_upstream
    [key] = shown["pool"]["keys"]
    assert (key["no_websocket_s"] > 0) is not is_whole_upstream
    assert key["dial_failures"] == 1


async def test_keys_and_sessions_are_shown_as_8_hex_and_never_as_they_are() -> None:
    async with world() as proxy:
        body = {"prompt_cache_key": f"cache-{CANARY}", "metadata": {"canary": CANARY}}
        await proxy.turn(f"say {CANARY} {TEXT}", key=secret(CANARY), **body)
        headers = {"session-id": f"session-{CANARY}"}
        await proxy.turn([user("x")], key=secret(CANARY), headers=headers)
        texts = [await page(proxy, name) for name in ("pools", "metrics")]
    assert all(CANARY not in text for text in texts)
    pool = json.loads(texts[0])["pool"]
    names = [row[name] for row in pool["sessions"] for name in ("key", "session")]
    assert len(pool["sessions"]) == 2
    assert all(re.fullmatch("[0-9a-f]{8}", name) for name in names)


async def test_the_token_of_an_upstream_that_is_a_wsproxy_itself_is_not_shown(
    tmp_path: Path, log_lines: LogLines
) -> None:
    upstream = "http://127.0.0.1:9/t/4f2a-token/v1"
    settings = Settings(upstream=upstream, listen=("127.0.0.1:0",), trace_dir=tmp_path / "t")
    async with running(settings) as daemon, aiohttp.ClientSession() as client:
        headers = {"Authorization": f"Bearer {SECRET}"}
        async with client.post(f"{daemon.base_url}/responses", json={}, headers=headers) as answer:
            told = await answer.text()
        assert daemon.front is not None
        async with client.get(f"http://{daemon.front.addresses[0]}/_wsproxy/pools") as answer:
            shown = await answer.json()
    assert shown["upstream"] == "http://127.0.0.1:9/t/TOKEN/v1"
    journal = b"".join(path.read_bytes() for path in (tmp_path / "t").glob("journal-*"))
    assert b"/t/TOKEN/" in journal
    assert "4f2a-token" not in f"{told} {shown} {journal!r} {log_lines()}"
    assert "--upstream http://127.0.0.1:9/t/TOKEN/v1" in told


async def test_answers_of_the_model_cache_are_counted() -> None:
    async with world() as proxy:
        for _ in range(3):
            headers = {"Authorization": f"Bearer {secret('models')}"}
            async with proxy.client.get(f"{proxy.proxy.base_url}/models", headers=headers) as list_:
                assert list_.status == 200
        shown = await pools(proxy)
    assert shown["models"] == {"hits": 2, "misses": 1, "revalidations": 0, "stale_served": 0}


async def test_a_client_that_names_the_version_it_has_shares_the_line_of_all_others() -> None:
    async with world() as proxy:
        url, key = f"{proxy.proxy.base_url}/models", {"Authorization": f"Bearer {secret('models')}"}
        async with proxy.client.get(url, headers=key) as first:
            tag = first.headers["etag"]
        statuses = []
        for known in (tag, f"W/{tag}", '"another"'):
            async with proxy.client.get(url, headers={**key, "If-None-Match": known}) as answer:
                statuses.append(answer.status)
        shown = await pools(proxy)
    assert statuses == [304, 304, 200]
    assert (shown["models"]["hits"], shown["models"]["misses"]) == (3, 1)


# ── The console ──────────────────────────────────────────────────────────────────────────────


async def test_pools_prints_one_screen(capsys: pytest.CaptureFixture[str]) -> None:
    async with world(continuation="on", lanes="on") as proxy:
        await talk(proxy, 3, prompt_cache_key="mine")
        code = await asyncio.to_thread(main, ["pools", "--url", proxy.proxy.base_url])
    shown = capsys.readouterr().out
    assert code == 0
    assert "turns 3 · running 0 · queued 0" in shown
    assert re.search(r"session +key +conns +age +lanes +in-flight +queued +wait", shown)
    assert re.search(r"[0-9a-f]{8} [0-9a-f]{8} +1 +[0-9.]+ s +1/32 +0/16 +0 +- +websocket", shown)
    assert len(shown.splitlines()) < 12


async def test_pools_finds_the_daemon_by_its_listen_address(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with world() as proxy:
        assert proxy.proxy.front is not None
        address = str(proxy.proxy.front.addresses[0])
        code = await asyncio.to_thread(main, ["pools", "--json", "--listen", address])
    assert code == 0
    assert json.loads(capsys.readouterr().out)["addresses"] == [address]


async def test_a_daemon_with_a_token_is_asked_with_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    token = WATCH.plant(tmp_path / "token", secret("x" * 16))
    async with world(token_file=token) as proxy:
        assert proxy.proxy.front is not None
        address = str(proxy.proxy.front.addresses[0])
        settings = tmp_path / "wsproxy.toml"
        settings.write_text(f'listen = ["{address}"]\ntoken_file = "{token}"\n')
        by_settings = ["pools", "--json", "--config", str(settings)]
        by_url = ["pools", "--json", "--url", f"http://{address}/t/{token.read_text()}/v1"]
        without = ["pools", "--url", address]
        codes = [await asyncio.to_thread(main, each) for each in (by_settings, by_url, without)]
    shown = capsys.readouterr()
    assert codes == [0, 0, 1]
    assert "the daemon wants its token" in shown.err


async def test_top_prints_one_screen_after_another_where_it_is_piped(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with world() as proxy:
        await talk(proxy, 1)
        looks = ["--count", "2", "--interval", "0.1", "--url", proxy.proxy.base_url]
        assert await asyncio.to_thread(main, ["top", *looks]) == 0
        screens = capsys.readouterr().out
        assert await asyncio.to_thread(main, ["top", "--json", *looks]) == 0
    assert screens.count("wsproxy 0") == 2
    assert "turns 1 (0.0/s)" in screens
    reports = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert reports[0]["up_s"] < reports[1]["up_s"]


@pytest.mark.parametrize("command", ["pools", "top"])
def test_without_a_daemon_the_console_says_how_to_start_one(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, "--url", "http://127.0.0.1:9"]) == 1
    assert capsys.readouterr().err.splitlines() == [
        "wsproxy: no wsproxy answers at 127.0.0.1:9",
        "  start one: wsproxy serve",
    ]
