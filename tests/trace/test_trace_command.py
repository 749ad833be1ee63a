"""`wsproxy trace` as people and programs meet it."""

from __future__ import annotations

import ast
import json
import re
from io import StringIO
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.console import Console

from tests.trace.trace_stage import AT, connection, run, turn, written
from wsproxy.cli.main import main
from wsproxy.trace import lists, turn_picture, waterfall
from wsproxy.trace.advice import REASONS, explain
from wsproxy.trace.amounts import duration
from wsproxy.trace.reader import read_traces
from wsproxy.trace.record import Bodies, Content
from wsproxy.trace.report import by_day, by_session

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
        (["show", "t"], "3 ids begin with 't'", 1),
        (["show", "--bodies"], "--bodies needs the id of a turn", 2),
        (["stats", "t000000000001"], "is a turn, not a session", 1),
        (["shw"], "there is no command 'shw'", 2),
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


def pictures(folder: Path, width: int) -> str:
    traces = read_traces(folder)
    out = Console(file=StringIO(), width=width)
    out.print(lists.session_list(traces.newest_first(), width))
    out.print(waterfall.session_picture(traces, traces.latest, width))
    out.print(lists.all_statistics(by_day(traces), by_session([traces.latest]), width))
    out.print(turn_picture.turn_picture(traces.latest.turns[1], width))
    assert isinstance(out.file, StringIO)
    return out.file.getvalue()


@pytest.mark.parametrize("width", [60, 80, 120, 160])
def test_in_a_short_line_ids_numbers_and_times_stay_whole(width: int, folder: Path) -> None:
    shown = pictures(folder, width)
    lines = shown.splitlines()
    assert max(map(len, lines)) <= width
    assert any(re.match("t000000000003 .*full his.* [0-9]+ ms .*█", line) for line in lines)
    assert re.search(r"^5e551011 +[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2} ", shown, re.M)
    assert not re.search("[0-9.k]…", shown)
    assert ("a wider terminal shows also: " in shown) is (width < 160)
    assert any("full history_edited" in line for line in lines) is (width >= 80)


def test_a_failed_turn_keeps_its_status_where_its_reason_is_cut(tmp_path: Path) -> None:
    failed = {"route": "none", "reason": "upstream_outcome_unknown", "outcome": "refused"}
    folder = written(tmp_path / "traces", [run(), turn(1), turn(2, status=502, **failed)])
    assert re.search(r"none \(502\) .*…", pictures(folder, 50))


def test_columns_that_no_terminal_shows_reach_a_pipe(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    assert "spared" in shown(["stats"], folder, capsys)
    assert "first event p50" in shown(["stats"], folder, capsys)
    assert "https" in shown(["list"], folder, capsys)
    assert " conv " in shown(["show"], folder, capsys)


def test_json_has_what_the_tables_have(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (row,) = json.loads(shown(["list", "--json"], folder, capsys))
    assert (row["name"], row["last_turn_at"], row["model"]) == ("5e551011", AT + 3, "gpt-5.6")
    assert row["figures"]["saved_share"] == 0.5
    session = json.loads(shown(["show", "--json"], folder, capsys))
    assert [one["turn"] for one in session["turns"]] == [turn(n).turn for n in (1, 2, 3)]
    assert session["connections"][0]["change"] == "opened"
    assert session["figures"]["cached_share"] == 0.8
    one = json.loads(shown(["show", "t000000000003", "--json"], folder, capsys))
    assert one["reason"] == "history_edited"
    assert "Input item 4" in one["explanation"]["why"]
    stats = json.loads(shown(["stats", "--json"], folder, capsys))
    assert stats["days"][0]["figures"]["first_event_p99_s"] == 0.1


def test_the_texts_of_a_turn_have_json_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = [Content("00ff", msgspec.Raw(b'"hello"')), Content("00aa", msgspec.Raw(b"[1,]"))]
    with_texts = turn(1, bodies=Bodies(input=["00ff", "00aa"], output=["gone"]))
    folder = written(tmp_path / "traces", [run(), *told, with_texts])
    texts = json.loads(shown(["show", "t", "--bodies", "--json"], folder, capsys))["texts"]
    assert texts == [
        {"place": "input 0", "json": "hello"},
        {"place": "input 1", "json": None},
        {"place": "output 0", "json": None},
    ]


@pytest.mark.parametrize(
    ("name", "problem"),
    [("missing", "missing does not exist"), ("empty", "no traces yet in"), ("file", "no turns in")],
)
def test_a_folder_that_was_named_is_to_be_checked(
    name: str, problem: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    assert main(["trace", "list", "--dir", str(tmp_path / name)]) == 1
    first, second = capsys.readouterr().err.splitlines()
    assert problem in first
    assert "check --dir" in second


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
