"""`wsproxy trace` as people and programs meet it."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.trace.trace_stage import AT, connection, run, turn, written
from wsproxy.cli.main import main
from wsproxy.trace import picture
from wsproxy.trace.advice import REASONS, explain
from wsproxy.trace.amounts import duration
from wsproxy.trace.reader import read_traces

ROOT = Path(__file__).parents[2]
#: Everything that moves a cursor, changes colours or turns the direction of writing.
ESCAPES = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    edited = {"reason": "history_edited", "about": {"index": "4", "type": "function_call_output"}}
    return written(
        tmp_path / "traces",
        [run(), connection(), turn(1), turn(2), turn(3, route="full", **edited)],
    )


def shown(arguments: list[str], folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["trace", *arguments, "--dir", str(folder)]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [["list"], ["show"], ["show", "t000000000002"], ["explain", "t000000000003"], ["stats"]],
    ids=" ".join,
)
def test_every_view_has_json_too(
    arguments: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert json.loads(shown([*arguments, "--json"], folder, capsys))


def test_into_a_pipe_goes_plain_text_and_nothing_is_cut(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = shown(["show"], folder, capsys)
    assert not ESCAPES.search(text)
    assert "…" not in text
    assert "full history_edited" in text


def test_explain_names_the_item_that_differed(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = shown(["explain", "t000000000003"], folder, capsys)
    assert "Input item 4 (type function_call_output) is not what the conversation had" in text
    assert "→ Send earlier items as they were." in text


@pytest.mark.parametrize("words", [[], ["nonsense"]], ids=["nothing", "nonsense"])
def test_explain_without_a_turn_says_where_turns_are_listed(
    words: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["trace", "explain", *words, "--dir", str(folder)]) != 0
    assert "`wsproxy trace show` lists" in capsys.readouterr().err.splitlines()[1]


def test_a_turn_tells_its_faults_in_words_and_one_item_as_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = turn(1, route="full", faults=["F01", "F99"], retries=0, items=1, items_sent=1, events=1)
    folder = written(tmp_path / "traces", [run(), told])
    text = shown(["show", "t000000000001"], folder, capsys)
    assert re.search(r"^faults +F01 TCP reset *\n +F99 *$", text, re.MULTILINE)
    assert "retries" not in text
    assert "All of the input was sent (1 item)" in text
    assert re.search(r"in 1 event *$", text, re.MULTILINE)


HOSTILE = "\x1b[2J\x1b]0;title\x07\u202e\x9b31m"


def test_nothing_of_the_journal_reaches_the_terminal_raw(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hostile: dict[str, Any] = dict.fromkeys(("session", "model", "lane", "reason", "code"), HOSTILE)
    hostile |= {"outcome": HOSTILE, "about": {"fields": HOSTILE}, "faults": [HOSTILE]}
    change = connection(change=HOSTILE, fault=HOSTILE)
    records = [run(), change, turn(1, route="full", **hostile)]
    records.append(turn(2, **{**hostile, "route": "full", "reason": "fields_changed"}))
    folder = written(tmp_path / "traces", records)
    for arguments in (
        ["list"], ["show"], ["show", "t000000000001"], ["explain", "t000000000002"], ["stats"],
        ["list", "--json"], ["show", "--json"],
    ):  # fmt: skip
        assert not ESCAPES.search(shown(arguments, folder, capsys)), arguments


@pytest.mark.parametrize(
    ("arguments", "problem", "exit_code"),
    [
        (["show", "nonsense"], "there is no session or turn 'nonsense'", 1),
        (["show", "5e551012"], "there is no session or turn", 1),
        (["explain", "5e551011"], "is a session, not a turn", 1),
        (["explain"], "missing argument", 2),
        (["export", "--format", "pdf"], "'pdf' is not one of", 2),
        (["export", "--to", "http://127.0.0.1:1"], "--to goes with --format otlp", 2),
        (["export", "--format", "otlp", "--to", "file:///x"], "no http or https URL", 1),
        (["shw"], "no such command 'shw'", 2),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_errors_say_what_is_wrong_and_what_to_do(
    arguments: list[str],
    problem: str,
    exit_code: int,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    where = [] if arguments == ["shw"] else ["--dir", str(folder)]
    assert main(["trace", *arguments, *where]) == exit_code
    told = capsys.readouterr()
    first, second = told.err.splitlines()
    assert problem in first
    assert second.startswith("  ")
    assert told.out == ""


def test_an_export_never_overwrites_a_file(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "out.har"
    arguments = ["trace", "export", "--format", "har", "-o", str(target), "--dir", str(folder)]
    assert main(arguments) == 0
    assert target.stat().st_mode & 0o777 == 0o600
    assert main(arguments) == 1
    assert "is there already" in capsys.readouterr().err


def test_damage_and_losses_are_told_and_stop_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lost = b'{"kind":"dropped","at":1.0,"count":7}\n'
    folder = written(tmp_path / "traces", [run(), turn(1)], tail=lost + b"torn")
    assert main(["trace", "list", "--dir", str(folder)]) == 0
    assert capsys.readouterr().err.splitlines() == [
        f"wsproxy: 1 damaged line in {folder}",
        f"wsproxy: 7 lost records in {folder}",
    ]


def reasons_in_the_code() -> set[str]:
    """Every token that `Why` or `UnfitError` is made with somewhere in the core and the driver."""
    found = set()
    for path in [*(ROOT / "wsproxy" / "core").rglob("*.py"), ROOT / "wsproxy" / "driver.py"]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                is_reason = node.func.id in ("Why", "UnfitError") and node.args
                if is_reason and isinstance(node.args[0], ast.Constant):
                    found.add(str(node.args[0].value))
    return found


def test_every_reason_that_the_core_gives_is_explained() -> None:
    reasons = reasons_in_the_code()
    assert "new_conversation" in reasons
    assert reasons - REASONS.keys() == set()


def test_a_reason_of_a_later_wsproxy_is_named_at_least() -> None:
    told = explain(turn(2, route="full", reason="invented"))
    assert "invented" in told.why


@pytest.mark.parametrize("width", [80, 120, 160])
def test_a_picture_fits_its_line(width: int, folder: Path) -> None:
    traces = read_traces(folder)
    console = picture.console()
    console.width = width
    with console.capture() as capture:
        console.print(picture.session_list(traces.newest_first(), width))
        console.print(picture.session_picture(traces, traces.latest, width))
    lines = capture.get().splitlines()
    assert max(map(len, lines)) <= width
    assert any("t000000000003" in line and "history_edited" in line for line in lines)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (0.0, "0.0 ms"),
        (0.09996, "100 ms"),
        (0.9996, "1.0 s"),
        (61.0, "61.0 s"),
        (3601.0, "60 m 01 s"),
    ],
    ids=str,
)
def test_durations_have_a_unit(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


def test_the_time_of_a_session_is_that_of_its_first_turn(folder: Path) -> None:
    assert read_traces(folder).latest.began_at == AT + 1
