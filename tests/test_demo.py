"""`wsproxy demo`: what it shows is measured, compared for real, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import pytest
from rich.console import Console

from tests.canary import SECRET, TEXT, WATCH
from wsproxy.cli.main import main
from wsproxy.demo import agent, children, story, table
from wsproxy.demo.agent import Loop, Turn
from wsproxy.demo.costs import FREE, REAL
from wsproxy.demo.sightings import Sightings, count
from wsproxy.demo.story import Report, Run

#: The command as it is, but for what its agent says.
DEMO: Final = f"""import sys
from wsproxy.cli.main import main
from wsproxy.demo import agent
agent.API_KEY, agent.TASK = {SECRET!r}, {TEXT!r}
sys.exit(main(["demo", "--calls", "300"]))"""
PATIENCE_S: Final = 30.0


def run_of(text: str, cached_tokens: int = 0, wall_s: float = 2.0) -> Run:
    usage = {"input_tokens": 9, "input_tokens_details": {"cached_tokens": cached_tokens}}
    delta = {"type": "response.output_text.delta", "delta": text}
    end = {"type": "response.completed", "response": {"id": "resp_1", "usage": usage}}
    loop = Loop(wall_s, [Turn(0.25, [delta, end])])
    return Run(loop, Sightings(1, 1, deltas=0, bytes_up=1000, connections=1, websockets=0))


def shown(report: Report) -> str:
    console = Console(width=100, force_terminal=False)
    with console.capture() as capture:
        table.print_report(console, report)
    return capture.get()


@contextmanager
def looked_at(upstream: str, *flags: str) -> Iterator[str]:
    """The demo's proxy; its pages are looked at when the agent is done."""
    with children.proxy(upstream, *flags) as base_url:
        yield base_url
        asyncio.run(WATCH.look_at_child(base_url))


def test_the_demo_sends_deltas_over_one_connection_and_gets_the_same_answers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(agent, "API_KEY", SECRET)
    monkeypatch.setattr(agent, "TASK", TEXT)
    monkeypatch.setattr(story, "proxy", looked_at)
    monkeypatch.setattr(signal, "signal", lambda *_: None)

    assert main(["demo", "--plain", "--json", "--calls", "3"]) == 0

    told = capsys.readouterr()
    report = json.loads(told.out)
    assert report["answers_identical"] is True
    assert report["direct"]["turns"] == report["through"]["turns"] == 4
    assert report["direct"]["deltas"] == 0
    assert report["through"]["deltas"] == 3
    assert report["through"]["connections"] == report["through"]["websockets"] == 1
    assert report["through"]["bytes_up"] < report["direct"]["bytes_up"] / 4
    assert "through wsproxy: 4 of 4 turns" in told.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda each: each.name)
def test_an_interrupted_demo_leaves_no_process_behind_and_ends_as_in_a_shell(
    number: signal.Signals,
) -> None:
    command = [sys.executable, "-c", DEMO]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as demo:
        assert demo.stderr is not None
        assert "7 of 301 turns" in demo.stderr.readline()
        children = children_of(demo.pid)
        demo.send_signal(number)
        assert demo.wait(PATIENCE_S) == 128 + number
        assert "interrupted" in demo.stderr.read()
    assert len(children) == 2
    assert children.isdisjoint(all_processes())


def all_processes() -> dict[int, int]:
    """Each process id with its parent's."""
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, check=True)
    pairs = [line.split() for line in listed.stdout.splitlines()]
    return {int(pid): int(parent) for pid, parent in pairs}


def children_of(pid: int) -> set[int]:
    return {child for child, parent in all_processes().items() if parent == pid}


@pytest.mark.parametrize(
    ("other", "is_identical"),
    [(run_of("Hello"), True), (run_of("Hello", cached_tokens=7), True), (run_of("Hallo"), False)],
    ids=["same", "only cached tokens differ", "one letter differs"],
)
def test_answers_are_the_same_if_all_but_cached_tokens_is(other: Run, is_identical: bool) -> None:
    report = Report(1, FREE, run_of("Hello"), other, None)
    assert report.are_answers_identical is is_identical
    assert report.as_json()["answers_identical"] is is_identical


def test_a_difference_is_shown_and_nobody_is_told_how_to_go_on() -> None:
    text = shown(Report(1, FREE, run_of("Hello"), run_of("Hallo"), None))
    assert "NO" in text
    assert "OPENAI_BASE_URL" not in text


def test_the_table_tells_what_is_saved_and_what_a_warm_cache_would_leave_of_it() -> None:
    direct, through, cached = (run_of("Hello", wall_s=wall_s) for wall_s in (2.0, 1.0, 1.25))
    text = shown(Report(1, REAL, direct, through, cached))
    assert "50 %" in text
    assert "1.25 s (measured too), and 20 % of that would be saved." in in_one_line(text)
    assert text.rstrip().endswith("export OPENAI_BASE_URL=http://127.0.0.1:8787/v1")


def test_what_took_more_is_called_more_and_never_a_negative_saving() -> None:
    direct, through, cached = (run_of("Hello", wall_s=wall_s) for wall_s in (2.0, 2.4, 2.0))
    text = in_one_line(shown(Report(1, REAL, direct, through, cached)))
    assert "2.40 s │ 20 % more │" in text
    assert "2.00 s (measured too), and wsproxy took 20 % more." in text
    assert "-20" not in text


def test_a_loss_that_rounds_to_nothing_is_nothing() -> None:
    direct, through = run_of("Hello", wall_s=2.0), run_of("Hello", wall_s=2.001)
    assert "2.00 s │ 0 % │" in in_one_line(shown(Report(1, FREE, direct, through, None)))


def test_on_a_terminal_no_part_of_a_word_stands_out() -> None:
    console = Console(width=100, force_terminal=True, highlight=False)
    with console.capture() as capture:
        table.print_opening(console, 20, REAL)
    assert "\x1b[" not in capture.get()


def in_one_line(text: str) -> str:
    return " ".join(text.split())


def test_looking_at_the_log_is_not_counted() -> None:
    opened: dict[str, Any] = {"record": "Opened", "via": "http"}
    create = {"record": "Create", "via": "ws", "wire_size": 70, "previous_response_id": None}
    seen = count(
        [
            {**opened, "target": "/v1/responses", "via": "ws"},
            {**opened, "target": "/_simulator/log"},
            {**create, "via": "http"},
            {**create, "previous_response_id": "resp_1", "wire_size": 3},
            {"record": "Run"},
        ]
    )
    assert seen == Sightings(2, http_turns=1, deltas=1, bytes_up=73, connections=1, websockets=1)


def test_without_openai_the_demo_says_what_to_do() -> None:
    hide = "import sys; sys.modules['openai'] = None; from wsproxy.cli.main import main; "
    ran = subprocess.run(
        [sys.executable, "-c", hide + "sys.exit(main(['demo']))"],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert ran.returncode == 2
    assert ran.stderr.splitlines()[1].strip() == "pip install openai"


def test_a_loop_of_no_calls_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--calls", "0"]) == 2
    assert "--calls" in capsys.readouterr().err
