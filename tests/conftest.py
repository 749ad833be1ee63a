"""What every test runs under: a log that raises where a line would lose a field, and a state
folder of its own."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from wsproxy import logs

LogLines = Callable[[], list[dict[str, Any]]]


class Nowhere(io.StringIO):
    """Keeps nothing, so that a long run stays small."""

    def write(self, text: str) -> int:
        return len(text)


@pytest.fixture(scope="session", autouse=True)
def _strict_log() -> None:
    logs.configure("debug", "json", stream=Nowhere(), is_strict=True)


@pytest.fixture(scope="session", autouse=True)
def _own_state_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Daemons of tests, processes of their own too, leave the user's traces alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture
def log_lines() -> Iterator[LogLines]:
    """Gives a function that returns the log lines written so far in this test, parsed."""
    stream = io.StringIO()
    logs.configure("debug", "json", stream=stream, is_strict=True)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    logs.configure("debug", "json", stream=Nowhere(), is_strict=True)
