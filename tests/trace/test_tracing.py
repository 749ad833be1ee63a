"""Traces of real runs: simulator, proxy, and what `wsproxy trace` makes of them."""

from __future__ import annotations

import asyncio
import json
import stat
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from tests.canary import SECRET, secret
from tests.conftest import LogLines
from tests.worlds import TOOL, World, answers, eventually, user, world
from wsproxy.cli.main import main
from wsproxy.core.accounts import ConnectionChange, TurnAccount
from wsproxy.simulator import Rules
from wsproxy.trace.advice import explain
from wsproxy.trace.journal import MAX_QUEUED
from wsproxy.trace.reader import Traces, read_traces
from wsproxy.trace.record import TurnRecord
from wsproxy.trace.replay import outcomes

SAID = "the canary sang at midnight"


@asynccontextmanager
async def traced(folder: Path, **settings: Any) -> AsyncIterator[World]:
    given = {"trace_dir": folder, "trace_min_free_bytes": 0, "continuation": "on", **settings}
    rules = given.pop("rules", Rules())
    async with world(rules, faults=given.pop("faults", ()), **given) as running:
        yield running


async def tool_loop(w: World, calls: int = 3, **body: Any) -> None:
    """One agent: a question, some tool calls, an answer."""
    items = [user(SAID)]
    given = {"tools": [TOOL], "metadata": {"sim.tool_calls": str(calls)}, "stream": True, **body}
    for _ in range(calls + 1):
        answer = await w.turn(items, key=SECRET, **given)
        assert answer.status == 200
        output = answer.response()["output"]
        items += [*output, *answers(output)]


def turns_of(traces: Traces) -> list[TurnRecord]:
    return [turn for session in traces.sessions.values() for turn in session.turns]


async def test_a_turn_is_told_with_its_phases_sizes_and_tokens(tmp_path: Path) -> None:
    async with traced(tmp_path / "traces") as w:
        await tool_loop(w)
        await w.quiet()
        frames = [create.size for create in w.sim.log.creates()]
    first, *others = turns_of(read_traces(tmp_path / "traces"))
    assert (first.route, first.reason, first.items_sent) == ("full", "new_conversation", 1)
    assert [turn.route for turn in others] == ["delta"] * 3
    assert [turn.bytes_up for turn in [first, *others]] == frames
    last = others[-1]
    assert last.items_sent == 1 < last.items
    assert last.bytes_http > last.bytes_up > 0
    assert (last.status, last.outcome, last.transport) == (200, "completed", "websocket")
    assert last.tokens_cached
    assert last.tokens_out
    assert last.events > 5
    phases = last.phases
    steps = [phases.matched, phases.placed, phases.sent, phases.first_event]
    steps += [phases.first_output, phases.done]
    assert None not in steps
    assert steps == sorted(steps)  # type: ignore[type-var]
    assert len({(t.session, t.conversation, t.connection) for t in [first, *others]}) == 1


async def test_neither_secret_nor_text_is_written(tmp_path: Path, log_lines: LogLines) -> None:
    async with traced(tmp_path / "traces") as w:
        await tool_loop(w, prompt_cache_key=SAID, instructions=SAID)
        await w.turn([user(SAID)], key=SECRET, headers={"session-id": SAID}, unknown=SAID)
    written = b"".join(path.read_bytes() for path in (tmp_path / "traces").iterdir())
    for canary in (SECRET, SAID, "canary", "sk-"):
        assert canary.encode() not in written
        assert canary not in json.dumps(log_lines())


@pytest.mark.keeps_texts
@pytest.mark.prints_texts
async def test_bodies_are_written_only_when_asked_redacted_and_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    long = "x" * 100_000
    async with traced(tmp_path / "traces", trace_bodies=True) as w:
        await tool_loop(w, instructions=f"{long} and the key {SECRET}")
    written = b"".join(path.read_bytes() for path in (tmp_path / "traces").iterdir())
    assert written.count(SAID.encode()) == 1
    assert written.count(long.encode()) == 1
    assert SECRET.encode() not in written
    last = turns_of(read_traces(tmp_path / "traces"))[-1]
    assert last.bodies is not None
    assert "authorization" not in last.bodies.headers
    assert len(last.bodies.input) == last.items
    assert main(["trace", "show", last.turn, "--bodies", "--dir", str(tmp_path / "traces")]) == 0
    first, *_ = capsys.readouterr().out.splitlines()
    assert first.startswith("input 0: {")
    assert SAID in first


async def test_folder_and_files_are_the_owners_alone(tmp_path: Path) -> None:
    async with traced(tmp_path / "traces") as w:
        await w.turn([user("hello")])
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "traces").iterdir()]
    assert stat.S_IMODE((tmp_path / "traces").stat().st_mode) == 0o700
    assert modes == [0o600, 0o600]


async def test_a_turn_over_https_is_told_with_its_status(tmp_path: Path) -> None:
    async with traced(tmp_path / "traces", transport="http") as w:
        await w.turn([user("hello")])
        refused = await w.turn(5)
    first, second = turns_of(read_traces(tmp_path / "traces"))
    assert (first.route, first.reason, first.transport) == ("http", "transport_http", "https")
    assert (first.status, first.outcome, first.connection) == (200, "completed", None)
    assert first.bytes_up == first.bytes_http > 0
    assert (first.model, first.items, first.items_sent) == ("sim", 1, 1)
    assert first.bytes_down > 0
    phases = first.phases
    assert phases.sent is not None
    assert phases.first_event is not None
    assert phases.done is not None
    assert phases.sent <= phases.first_event <= phases.done
    assert second.status == refused.status >= 400
    assert second.outcome == "error"


async def test_of_a_turn_that_never_left_no_byte_is_counted(tmp_path: Path) -> None:
    async with traced(tmp_path / "traces", upstream="http://127.0.0.1:9/v1") as w:
        answer = await w.turn([user("hello")])
    traces = read_traces(tmp_path / "traces")
    (turn,) = turns_of(traces)
    assert (answer.status, answer.headers["x-wsproxy-outcome"]) == (502, "not_sent")
    assert (turn.bytes_up, turn.bytes_http, turn.phases.sent) == (0, 0, None)
    told = explain(turn, traces)
    assert "nothing of it could be sent" in told.what
    assert "in upstream's place: status 502, upstream_unreachable" in told.end


@pytest.mark.parametrize(
    ("headers", "body"),
    [({"idempotency-key": "k"}, {}), ({}, {"background": True}), ({}, {"stream": 1})],
    ids=["idempotency key", "background", "odd member"],
)
async def test_a_turn_that_only_https_can_carry_stands_in_its_own_agents_session(
    headers: dict[str, str], body: dict[str, Any], tmp_path: Path
) -> None:
    async with traced(tmp_path / "traces") as w:
        for name in ("one", "two"):
            who = {"key": secret(name), "headers": {"session-id": name}}
            await w.turn([user("hello")], **who)
            who["headers"] = {**headers, "session-id": name}
            await w.turn([user("hello")], **who, **body)
    traces = read_traces(tmp_path / "traces")
    assert len(traces.sessions) == 2
    for session in traces.sessions.values():
        assert [turn.route for turn in session.turns] == ["full", "http"]
        assert len({turn.key for turn in session.turns}) == 1


@pytest.mark.parametrize(
    ("fault", "outcome", "status", "faults"),
    [
        ("before_first_event:close=1011", "refused", 502, ["F11"]),
        ("mid_stream:reset", "broken", None, ["F01"]),
        ("before_first_event:error=server_error", "error", 500, ["F28"]),
    ],
)
async def test_what_broke_is_told(
    fault: str, outcome: str, status: int | None, faults: list[str], tmp_path: Path
) -> None:
    async with traced(tmp_path / "traces", faults=[fault]) as w:
        await w.turn([user("hello")], stream=True)
    traces = read_traces(tmp_path / "traces")
    (turn,) = turns_of(traces)
    assert (turn.outcome, turn.status, turn.faults) == (outcome, status, faults)
    changes = [record.change for record in traces.connections]
    assert changes[0] == "opened"
    assert changes[-1] in ("lost", "closed", "opened")


async def test_a_client_that_leaves_is_told(tmp_path: Path) -> None:
    async with traced(tmp_path / "traces", rules=Rules(tokens_per_s=5)) as w:
        asking = asyncio.ensure_future(w.turn([user("hello")], stream=True))
        await eventually(
            lambda: any(t.stream and t.stream.is_started for t in w.core.turns.values())
        )
        asking.cancel()
        await w.quiet()
    (turn,) = turns_of(read_traces(tmp_path / "traces"))
    assert (turn.outcome, turn.code, turn.status) == ("client_left", "F38", None)


async def test_a_client_that_leaves_a_turn_over_https_is_told_too(tmp_path: Path) -> None:
    rules = Rules(tokens_per_s=5)
    async with traced(tmp_path / "traces", rules=rules, transport="http") as w:
        asking = asyncio.ensure_future(w.turn([user("hello")], stream=True))
        await eventually(lambda: any(create.via == "http" for create in w.sim.log.creates()))
        asking.cancel()
        await w.quiet()
        recorder = w.proxy.recorder
        assert recorder is not None
        await eventually(lambda: recorder.names is not None, recorder)
    (turn,) = turns_of(read_traces(tmp_path / "traces"))
    assert (turn.route, turn.outcome, turn.code, turn.status) == (
        "http",
        "client_left",
        "F38",
        None,
    )


async def test_an_answer_over_https_after_refused_tries_has_its_own_figures(
    tmp_path: Path,
) -> None:
    order = "before_first_event:error=websocket_connection_limit_reached"
    async with traced(tmp_path / "traces", faults=[order] * 3, lanes="on") as w:
        answer = await w.turn([user("hello")], stream=True)
    assert answer.route == "http"
    (turn,) = turns_of(read_traces(tmp_path / "traces"))
    assert turn.bytes_down >= len(answer.body)
    assert turn.phases.first_event is not None
    assert turn.retries > 0


@pytest.mark.parametrize("kind", ["a file in its place", "no room", "a symbolic link"])
async def test_a_disk_that_refuses_changes_no_turn_and_is_told_once(
    kind: str, tmp_path: Path, log_lines: LogLines
) -> None:
    folder, free = tmp_path / "traces", 0
    if kind == "no room":
        free = 1 << 40
    elif kind == "a file in its place":
        folder.write_text("")
    else:
        folder.symlink_to(tmp_path)
    async with traced(folder, trace_min_free_bytes=free) as w:
        await tool_loop(w)
        recorder = w.proxy.recorder
        assert recorder is not None
    assert recorder.journal.is_stopped
    assert recorder.journal.dropped >= 4
    told = [line for line in log_lines() if line["event"].startswith("trace.")]
    assert [line["event"] for line in told] == ["trace.stopped"]
    assert told[0]["error"]


async def test_an_overrun_queue_changes_no_turn_is_told_once_and_named_by_the_replay(
    tmp_path: Path, log_lines: LogLines
) -> None:
    async with traced(tmp_path / "traces") as w:
        assert w.proxy.recorder is not None
        journal = w.proxy.recorder.journal
        await w.turn([user("before")])
        journal._max_queued = 0  # nothing fits
        await tool_loop(w)
        journal._max_queued = MAX_QUEUED
        await w.turn([user("after")])
        await w.quiet()
    assert journal.dropped >= 4
    told = [line for line in log_lines() if line["event"].startswith("trace.")]
    assert [line["event"] for line in told] == ["trace.overrun"]
    assert 0 < told[0]["count"] <= journal.dropped  # told early, however many follow
    (outcome,) = outcomes(tmp_path / "traces")
    assert outcome.difference is None
    assert f"was not recorded; {journal.dropped} records were lost" in outcome.missing


async def calls_of_a_turn(w: World, tokens: int) -> tuple[int, int]:
    """How often code of the trace is called on the loop's thread during one turn, and its events.

    A call is where an allocation or a system call of the trace could be.
    """
    calls: list[str] = []

    def on_call(frame: FrameType, event: str, _: object) -> None:
        name = frame.f_code.co_filename
        if event == "call" and ("/wsproxy/trace/" in name or name.endswith("/accounts.py")):
            calls.append(name)

    sys.setprofile(on_call)
    try:
        told = await w.turn([user("hello")], stream=True, metadata={"sim.text_tokens": str(tokens)})
    finally:
        sys.setprofile(None)
    return len(calls), len(told.events())


async def test_tracing_costs_nothing_for_an_event_of_an_answer(tmp_path: Path) -> None:
    async with traced(tmp_path / "traces") as w:
        await w.turn([user("the connection is opened")])
        few_calls, few_events = await calls_of_a_turn(w, 5)
        many_calls, many_events = await calls_of_a_turn(w, 200)
    assert many_events > few_events + 50
    assert many_calls == few_calls > 0


class Seen:
    """A tracer that only counts."""

    def __init__(self) -> None:
        self.turns: list[TurnAccount] = []
        self.changes: list[str] = []

    def turn_ended(self, account: TurnAccount) -> None:
        self.turns.append(account)

    def connection_changed(self, change: ConnectionChange) -> None:
        self.changes.append(change.change)


async def test_an_account_lets_go_of_the_turn_it_was_kept_for(tmp_path: Path) -> None:
    async with traced(tmp_path / "traces") as w:
        seen = Seen()
        w.proxy.driver._accounts._tracers = [seen]
        await tool_loop(w)
        await w.quiet()
        assert w.proxy.driver._accounts._running == {}
        assert len(w.proxy.driver._accounts._connections) == len(w.core.pool.connections)
    assert all(account.turn is None and account.stream is None for account in seen.turns)
    assert len(seen.turns) == 4


async def test_the_run_can_be_listed_shown_and_explained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "traces"
    async with traced(folder) as w:
        await tool_loop(w)
        await w.turn([user(SAID), user("edited")], key=SECRET, instructions="others")
    where = ["--dir", str(folder)]
    last = turns_of(read_traces(folder))[-1].turn
    for arguments, words in (
        (["list"], ["turns", "5"]),
        (["show"], ["new_conversation", "delta", "connection 1 opened"]),
        (["show", last], ["first event", "frame sent", "tokens"]),
        (["explain", last], ["All of the input was sent (2 items)", "conversation"]),
        (["stats"], ["day", "session", "p99"]),
    ):
        assert main(["trace", *arguments, *where]) == 0
        shown = capsys.readouterr()
        assert all(word in shown.out for word in words), shown.out
        assert SAID not in shown.out
        assert shown.err == ""
