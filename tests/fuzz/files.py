"""What stands in files: settings in TOML and in the environment, and the journal of a daemon."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from io import StringIO
from pathlib import Path
from typing import Final

from rich.console import Console

from tests.fuzz.contract import CANARY, demand, has_canary
from wsproxy.config import SettingsError, load
from wsproxy.config.loading import FILE_VARIABLE
from wsproxy.trace import advice, lists, turn_picture, waterfall
from wsproxy.trace.export import FORMATS
from wsproxy.trace.folder import open_folder
from wsproxy.trace.reader import TraceError, Traces, connections_of, find, read_traces, texts_of
from wsproxy.trace.record import whole
from wsproxy.trace.replay import outcomes
from wsproxy.trace.report import by_day, by_session
from wsproxy.trace.share import Redaction

Check = Callable[[bytes], None]
_WIDTH: Final = 80
_CONTROLS: Final = frozenset(map(chr, (*range(10), *range(11, 32), 127))) | {"\u202e", "\u2066"}


@contextmanager
def _folder() -> Iterator[Path]:
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None  # a disk is ten times as slow
    with tempfile.TemporaryDirectory(prefix="wsproxy-fuzz-", dir=memory) as folder:
        yield Path(folder)


# ── Settings ─────────────────────────────────────────────────────────────────────────────────


@contextmanager
def settings() -> Iterator[Check]:
    """An input is a TOML file, and behind each NUL one variable, `NAME=value`."""
    with _folder() as folder:
        token = folder / "token"
        token.write_text(CANARY + "x" * 16)
        file = folder / "wsproxy.toml"

        def check(raw: bytes) -> None:
            toml, *variables = raw.split(b"\0")
            file.write_bytes(toml)
            environment = {"WSPROXY_TOKEN_FILE": str(token), **dict(map(_variable, variables))}
            environment.pop(FILE_VARIABLE, None)  # which may name any file of this machine
            try:
                loaded = load(environment=environment, file=file)
            except SettingsError as error:
                said = error.problem + error.advice
                demand(not has_canary(said), "the token is told")
                demand(
                    len(error.problem) > 10 and bool(said.isprintable()),
                    "no message, or one that moves the cursor",
                    said,
                )
            else:
                demand(not has_canary(repr(loaded)), "the token is shown")

        yield check


def _variable(raw: bytes) -> tuple[str, str]:
    name, _, value = os.fsdecode(raw).partition("=")
    return name, value


# ── Journal ──────────────────────────────────────────────────────────────────────────────────


@contextmanager
def _read_by(read: Callable[[Path], object]) -> Iterator[Check]:
    """An input is the one journal of a folder."""
    with _folder() as folder:
        traces = folder / "traces"
        open_folder(traces)
        file = traces / "journal-000001.jsonl"

        def check(raw: bytes) -> None:
            file.write_bytes(raw)
            with suppress(TraceError):
                read(traces)

        yield check


def journal() -> AbstractContextManager[Check]:
    """A journal, and whatever `trace list, show, stats, export, share` make of it."""
    return _read_by(lambda folder: _show(read_traces(folder), folder))


def replay() -> AbstractContextManager[Check]:
    """A journal, run again."""
    return _read_by(lambda folder: list(outcomes(folder)))


def _show(traces: Traces, folder: Path) -> None:
    console = Console(file=StringIO(), width=_WIDTH, force_terminal=False)
    sessions = traces.newest_first()
    console.print(lists.session_list(sessions, _WIDTH))
    for session in sessions:
        console.print(waterfall.session_picture(traces, session, _WIDTH))
        connections_of(traces, [session])
        find(traces, session.id)
        for turn in session.turns[:4]:
            console.print(turn_picture.turn_picture(turn))
            console.print(turn_picture.explanation(turn))
            console.print(waterfall.tail_line(turn), soft_wrap=True)
            whole(turn)
            advice.explain(turn)
            with suppress(TraceError):
                console.print(turn_picture.texts(texts_of(folder, turn)))
    console.print(lists.statistics(by_day(traces), "day", _WIDTH))
    console.print(lists.statistics(by_session(sessions), "session", _WIDTH))
    for lines in FORMATS.values():
        "".join(lines(traces, sessions)).encode()
    _check_copy(Redaction().copy(traces, sessions))
    assert isinstance(console.file, StringIO)
    shown = console.file.getvalue()
    demand(not _CONTROLS & set(shown), "a control character on a terminal", shown)


def _check_copy(lines: Sequence[str]) -> None:
    for line in lines:
        demand(not has_canary(line), "told to strangers", line)
