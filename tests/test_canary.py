"""The watch itself: a canary is seen however it is spelled and wherever it is left."""

from __future__ import annotations

import base64
import gc
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import quote

import pytest
from msgspec import Raw

from tests.canary import SECRET, TEXT, WATCH, Watch, secret
from tests.journals import replayed
from tests.worlds import user, world
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


def test_texts_may_stand_where_a_test_asked_for_them_but_never_a_secret(tmp_path: Path) -> None:
    journal = tmp_path / "kept.jsonl"
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


LEAKS: Final = """
import os, subprocess, sys
from pathlib import Path
from tests.canary import SECRET, TEXT
from wsproxy import logs

def test_log():
    logs.get_logger().info("turn.sent", detail=TEXT)

def test_file():
    folder = Path(os.environ["XDG_STATE_HOME"])
    folder.mkdir(parents=True)
    (folder / "cache").write_text(SECRET)

def test_child():
    subprocess.run([sys.executable, "-c", "import sys; print(sys.argv[1], file=sys.stderr)", TEXT])

def test_nothing():
    logs.get_logger().info("turn.sent")
"""


def test_a_test_that_leaks_fails_at_its_end(tmp_path: Path) -> None:
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
    assert "4 passed, 3 errors" in told, told
    for name in ("test_log", "test_file", "test_child"):
        assert f"::{name}" in told, told
