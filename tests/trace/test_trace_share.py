"""A shared copy holds nothing by which anybody could be recognised."""

from __future__ import annotations

import json
import re
from pathlib import Path

import msgspec
import pytest

from tests.canary import TEXT, WATCH
from tests.trace.trace_stage import AT, connection, run, turn, written
from wsproxy.cli.main import main
from wsproxy.trace.reader import read_traces
from wsproxy.trace.record import Bodies, Content

SECRETS = {
    "upstream": "https://llm.acme.internal/v1",
    "field": "x_acme_project",
    "model": "acme-secret-model",
    "type": "acme_item",
    "own model": "gpt-acme-secret-project-x",
    "code": "no_such_acme_thing",
    "about": "acme words",
    "text": TEXT,
}

pytestmark = pytest.mark.keeps_texts  # the original; the copies are looked at as if it were not


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A journal with everything in it that a copy must not have."""
    text = msgspec.Raw(msgspec.json.encode(SECRETS["text"]))
    records = [
        run(upstream=SECRETS["upstream"]),
        connection(),
        Content("00ff", text),
        turn(1, model=SECRETS["model"], bodies=Bodies(input=["00ff"])),
        turn(2, reason="fields_changed", about={"fields": f"tools,{SECRETS['field']}"}),
        turn(3, reason="foreign_item", about={"index": "3", "type": SECRETS["type"]}),
        turn(4, model=SECRETS["own model"], code=SECRETS["code"], about={"x": SECRETS["about"]}),
    ]
    return written(tmp_path / "traces", records)


def test_a_copy_is_a_journal_without_what_was_removed(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "copy").mkdir(mode=0o700)
    target = tmp_path / "copy" / "journal-000001.jsonl"
    assert main(["trace", "share", "--dir", str(folder), "-o", str(target)]) == 0
    text = target.read_text()
    WATCH.look("the copy", text)
    original = [*SECRETS.values(), "5e551011", "0badcafe", "aaaa0001", turn(1).turn, "4711"]
    assert [word for word in original if word in text] == []
    told = capsys.readouterr().err
    for words in ("bodies", "upstream URLs", "names of unknown fields", "unknown models", "dates"):
        assert words in told
    copy = read_traces(tmp_path / "copy")
    (session,) = copy.newest_first()
    assert [t.at for t in session.turns] == [0, 1, 2, 3]
    assert session.turns[1].about == {"fields": "tools,other"}
    assert session.turns[0].phases == turn(1).phases


def test_two_copies_cannot_be_joined(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = []
    for _ in range(2):
        assert main(["trace", "share", "--dir", str(folder)]) == 0
        texts.append(capsys.readouterr().out)
    ids = [{word for word in text.split('"') if len(word) in (8, 13)} for text in texts]
    common = ids[0] & ids[1] - {"bytes_up"}
    assert not {word for word in common if all(c in "t0123456789abcdef" for c in word)}


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    """A shared file under a name of its own, of a daemon that began before the session did."""
    written(folder, [run(at=AT - 9), connection(at=AT - 5)], number=2)
    target = tmp_path / "shared.jsonl"
    assert main(["trace", "share", "--dir", str(folder), "-o", str(target)]) == 0
    return target


@pytest.mark.parametrize(
    "arguments", [["list"], ["show"], ["show", "t"], ["explain", "t"], ["stats"], ["export"]]
)
def test_a_copy_can_be_read_by_name_and_has_no_dates(
    arguments: list[str], copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    turn_id = next(iter(read_traces(copy).turns))
    which = [turn_id if word == "t" else word for word in arguments]
    assert main(["trace", *which, "--dir", str(copy)]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    assert "1970" not in shown.out
    if arguments[0] in ("list", "stats"):
        assert re.search(r"^(\w{8} +)?- ", shown.out, re.MULTILINE)


def test_a_copy_has_nothing_to_replay(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["trace", "replay", "--dir", str(copy)]) == 1
    problem, advice = capsys.readouterr().err.splitlines()
    assert "nothing to replay" in problem
    assert "replay the original" in advice


def test_a_turn_is_shared_alone(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trace", "share", turn(2).turn, "--dir", str(folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    turns = [json.loads(line) for line in lines if '"kind":"turn"' in line]
    assert [one["reason"] for one in turns] == ["fields_changed"]


def test_dates_are_not_kept(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trace", "share", "--dir", str(folder)]) == 0
    assert str(int(AT))[:6] not in capsys.readouterr().out
