"""The watch itself: a canary is seen however it is spelled and wherever it is left."""

from __future__ import annotations

import asyncio
import base64
import gc
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final
from urllib.parse import quote

import pytest
from msgspec import Raw

from tests.canary import SECRET, TEXT, WATCH, Watch, secret
from tests.faults.process import serving
from tests.journals import replayed
from tests.worlds import user, world
from wsproxy.core.api.request import UnfitError
from wsproxy.core.api.spans import EventError
from wsproxy.core.commands import Note
from wsproxy.trace.record import Content, encode

ROOT: Final = Path(__file__).parents[1]
PATIENCE_S: Final = 50.0
JSON: Final = json.dumps(f"he said {TEXT}!")


@pytest.fixture
def watch() -> Iterator[Watch]:
    """The one that everything reports to, clean again afterwards."""
    yield WATCH
    gc.collect()  # what was planted is gone before the next test looks
    WATCH.begin()


@pytest.mark.parametrize(
    "content",
    [
        TEXT,
        TEXT.upper(),
        JSON,
        json.dumps(TEXT, ensure_ascii=False),
        json.dumps({"error": JSON}),
        repr(TEXT.encode()),
        quote(TEXT),
        TEXT.replace("ry", "ry\\\n   "),
        "".join(f"\\u{ord(one):04x}" for one in TEXT),
    ],
    ids=["raw", "upper", "json", "utf8", "twice", "repr", "url", "wrapped", "all escaped"],
)
def test_a_canary_is_seen_in_every_spelling(content: str) -> None:
    watch = Watch()
    watch.look("somewhere", f"before {content} after")
    watch.look("somewhere", content.encode())
    assert watch.leaks == ["the text is in somewhere"]


@pytest.mark.parametrize("name", ["one", "two"])
def test_every_secret_is_seen_and_what_is_none_is_not(name: str) -> None:
    watch = Watch()
    watch.look("a line", "key 4f2a, canary, secret, text, cnry7")
    watch.look("a line", base64.b64encode(b"x" * 60))
    assert watch.leaks == []
    watch.look("a line", f"Bearer {secret(name)}")
    assert watch.leaks == ["the secret is in a line"]


def test_an_expected_error_is_heard_and_so_is_what_lies_behind_it(watch: Watch) -> None:
    with pytest.raises(EventError):
        raise EventError(SECRET)
    with pytest.raises(ValueError, match="odd"):
        raise ValueError("odd") from UnfitError(f"no {TEXT}")
    assert watch.leaks == [
        "the secret is in an error, EventError",
        "the text is in an error, UnfitError",
    ]


def test_texts_may_stand_where_a_test_asked_for_them_but_never_a_secret(tmp_path: Path) -> None:
    journal = tmp_path / "kept.jsonl"
    WATCH.plant(journal, "")
    texts = [encode(Content("00ff", Raw(json.dumps(said).encode()))) for said in (TEXT, SECRET)]
    watch = Watch()
    watch.begin(keeps_texts=True)
    journal.write_bytes(texts[0])
    watch.look_at_files([journal])
    assert watch.leaks == []
    journal.write_bytes(texts[1] + b'{"kind":"turn","model":' + JSON.encode() + b"}\n")
    watch.look_at_files([journal])
    assert watch.leaks == [f"the {what} is in {journal.name}" for what in ("secret", "text")]


async def test_a_proxy_that_tells_a_secret_is_found_out(watch: Watch) -> None:
    async with world(lanes="on") as scene:
        await scene.turn([user("hello")])
        kept = Note("turn.sent", detail=SECRET)
        scene.proxy.settings = type(scene.proxy.settings)(upstream=f"http://{SECRET}/v1")
    assert kept.detail == SECRET
    assert "the secret is in the repr of a Note" in watch.leaks
    assert "the secret is in /_wsproxy/pools" in watch.leaks


async def test_a_journal_that_does_not_replay_is_found_out(tmp_path: Path) -> None:
    async with world(continuation="on", trace_dir=tmp_path / "traces") as scene:
        await scene.turn([user("hello")])
    assert replayed(tmp_path / "traces") == []
    (journal,) = (tmp_path / "traces").glob("journal-*")
    told = journal.read_text()
    journal.write_text(told.replace('"route":"FULL"', '"route":"FORK"'))
    assert [outcome.difference is None for outcome in replayed(tmp_path / "traces")] == [False]


TELLS: Final = [sys.executable, "-c", "import sys; print(sys.argv[1], file=sys.stderr)", TEXT]


def read_whole() -> None:
    subprocess.run(TELLS, capture_output=True, check=True)


def read_by_lines() -> None:
    with subprocess.Popen(TELLS, stderr=subprocess.PIPE, text=True) as child:
        assert child.stderr is not None
        assert len(list(child.stderr)) > 1, "the canary lies across two lines"


def left_unread() -> None:
    with subprocess.Popen(TELLS, stderr=subprocess.PIPE) as child:
        child.wait(PATIENCE_S)


def left_behind_one_line() -> None:
    with subprocess.Popen(TELLS, stderr=subprocess.PIPE, text=True) as child:
        assert child.stderr is not None
        assert child.stderr.readline()


def printed_into_a_file() -> None:
    with tempfile.TemporaryFile() as file, subprocess.Popen(TELLS, stderr=file) as child:
        child.wait(PATIENCE_S)


def read_in_a_loop() -> None:
    async def read() -> None:
        pipe = asyncio.subprocess.PIPE
        child = await asyncio.create_subprocess_exec(*TELLS, stderr=pipe)
        assert child.stderr is not None
        assert await child.stderr.readline()
        await child.wait()

    asyncio.run(read())


@pytest.mark.parametrize(
    "reads",
    [
        *(read_whole, read_by_lines, left_unread, left_behind_one_line),
        *(printed_into_a_file, read_in_a_loop),
    ],
    ids=lambda each: each.__name__.replace("_", " "),
)
def test_what_a_child_prints_is_heard_however_it_is_read(
    watch: Watch, reads: Callable[[], None]
) -> None:
    reads()
    watch.look_at_printed()
    (leak,) = watch.leaks
    assert leak.startswith("the text is in ")


def test_a_texts_place_may_be_an_agents_screen_but_a_secrets_never(watch: Watch) -> None:
    watch.begin(prints_texts=True)
    for part in (TEXT[:7], TEXT[7:], SECRET[:9], SECRET[9:]):
        watch.hear("a screen", part)
    watch.look_at_printed()
    assert watch.leaks == ["the secret is in a screen"]


async def test_a_child_whose_pages_tell_a_secret_is_found_out(watch: Watch) -> None:
    async with serving(f"https://{SECRET}/v1"):
        pass
    assert "the secret is in /_wsproxy/pools" in watch.leaks


LEAKS: Final = """
import os, subprocess, sys
from pathlib import Path
from tests.canary import SECRET, TEXT, WATCH
from wsproxy import logs

def test_log():
    logs.get_logger().info("turn.sent", detail=TEXT)

def test_file():
    folder = Path(os.environ["XDG_STATE_HOME"])
    folder.mkdir(parents=True)
    (folder / "cache").write_text(SECRET)

def test_told_folder(tmp_path):
    (tmp_path / "wsproxy.log").write_text(SECRET)

def test_planted(tmp_path):
    WATCH.plant(tmp_path / "token", SECRET)

def test_captured(capsys):
    print(TEXT)
    assert capsys.readouterr().out

def test_uncaptured(capsys):
    print(TEXT)

def test_piped():
    command = [sys.executable, "-c", "import sys; print(sys.argv[1])", TEXT]
    subprocess.run(command, capture_output=True)

def test_child():
    subprocess.run([sys.executable, "-c", "import sys; print(sys.argv[1], file=sys.stderr)", TEXT])

def test_nothing():
    logs.get_logger().info("turn.sent")
"""


#: The tests among these that leave nothing behind.
CLEAN: Final = {"test_planted", "test_nothing"}


def test_a_test_that_leaks_fails_at_its_end(tmp_path: Path, watch: Watch) -> None:
    (tmp_path / "test_leaks.py").write_text(LEAKS)
    options = ["-q", "-p", "tests.conftest", "-p", "no:cacheprovider", "-rE", "--tb=line"]
    told = subprocess.run(
        [sys.executable, "-m", "pytest", *options, f"--rootdir={tmp_path}", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    ).stdout
    names = re.findall(r"def (\w+)", LEAKS)
    assert f"{len(names)} passed, {len(names) - len(CLEAN)} errors" in told, told
    assert set(re.findall(r"^ERROR .*::(\w+)", told, re.MULTILINE)) == set(names) - CLEAN
