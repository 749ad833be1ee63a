"""What every test runs under: a log that raises where a line would lose a field, a state folder
of its own, and a canary that may appear in nothing a proxy leaves behind (`tests/canary.py`)."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import printed
from tests.canary import SECRET, WATCH
from tests.journals import replayed
from tests.logged import Watched, use_log

LogLines = Callable[[], list[dict[str, Any]]]


def pytest_configure(config: pytest.Config) -> None:
    """Markers of our own."""
    config.addinivalue_line("markers", "keeps_texts: its traces may hold what users said")
    config.addinivalue_line("markers", "prints_texts: its agent prints what it said or was told")


@pytest.fixture(scope="session", autouse=True)
def _strict_log() -> None:
    """For daemons that outlive a test."""
    use_log(Watched(keeps_lines=False))


@pytest.fixture(scope="module", autouse=True)
def _few_objects() -> None:
    """What is alive before a module's first test is not looked at again after each of them."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _own_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """For them, too: the user's traces are left alone, and so is the user's key:
    every child gets the canary. Whatever it prints is heard."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        patch.setenv("OPENAI_API_KEY", SECRET)
        printed.listen(patch)
        yield


@pytest.fixture(autouse=True)
def _leaves_no_canary_and_journals_that_replay(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[None]:
    """A state folder a test. What stands in it: no secret, no text, and the core's own story."""
    use_log(Watched(keeps_lines=False))  # commands that a test ran in here have set up their own
    state = tmp_path_factory.getbasetemp() / "states" / f"{id(request.node):x}"
    monkeypatch.setenv("XDG_STATE_HOME", str(state))
    told = request.getfixturevalue("tmp_path") if "tmp_path" in request.fixturenames else None
    marked = {marker.name for marker in request.node.iter_markers()}
    WATCH.begin(keeps_texts="keeps_texts" in marked, prints_texts="prints_texts" in marked)
    yield
    WATCH.look_at_files(path for path in _left_behind(state, told) if path.is_file())
    WATCH.look_at_printed()
    assert WATCH.leaks == []
    assert replayed(state / "wsproxy" / "traces") == []


def _left_behind(state: Path, told: Path | None) -> Iterator[Path]:
    """All of the state, and all that daemons left in another folder that they were told."""
    for folder in (state, told):
        if folder is not None and folder.exists():
            yield from folder.rglob("*")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What libraries printed, and children that outlived their test, is only known now."""
    report = yield
    if report.when == "teardown" and report.passed:
        for title, text in report.sections:
            WATCH.hear(title, text)
        WATCH.look_at_printed()
        if WATCH.leaks:
            report.outcome, report.longrepr = "failed", "; ".join(WATCH.leaks)
    return report


@pytest.fixture
def log_lines() -> Iterator[LogLines]:
    """Gives a function that returns the log lines written so far in this test, parsed."""
    stream = Watched(keeps_lines=True)
    use_log(stream)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    use_log(Watched(keeps_lines=False))
