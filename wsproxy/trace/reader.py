"""Reading a trace folder back: its records, its sessions, and what a given id means.

A damaged line is counted and skipped: the last line of a killed daemon is torn.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Final, assert_never

import msgspec

from wsproxy.trace.folder import FolderError, journals, lines_of
from wsproxy.trace.record import (
    ConnectionRecord,
    Content,
    Core,
    Door,
    Dropped,
    Record,
    Run,
    TurnRecord,
    decode,
)

#: Most lines are doors, which only the replay reads, or contents.
_SKIPPED: Final = (b'{"kind":"door",', b'{"kind":"content",')
#: How often `tail` looks for new lines.
LOOK_S: Final = 0.2


class TraceError(Exception):
    """What was asked for cannot be shown; `advice` says what to do."""

    def __init__(self, problem: str, advice: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.advice = advice


class NoTracesError(TraceError):
    """Nothing was recorded yet, or elsewhere."""


@dataclass(slots=True)
class Session:
    """The turns of one session, in the order in which they came."""

    id: str
    turns: list[TurnRecord] = field(default_factory=list)

    @property
    def began_at(self) -> float:
        """Wall clock of its first turn."""
        return self.turns[0].at

    @property
    def ended_at(self) -> float:
        """Wall clock of its last turn's end, as far as is known."""
        return max(turn.at + turn.took_s for turn in self.turns)


@dataclass(slots=True)
class Traces:
    """Everything that a folder tells."""

    runs: dict[str, Run] = field(default_factory=dict)
    sessions: dict[str, Session] = field(default_factory=dict)
    turns: dict[str, TurnRecord] = field(default_factory=dict)
    connections: list[ConnectionRecord] = field(default_factory=list)
    damaged: int = 0
    dropped: int = 0

    def add(self, record: Record) -> None:
        """Take one record."""
        match record:
            case TurnRecord():
                self.turns[record.turn] = record
                session = self.sessions.setdefault(record.session, Session(record.session))
                session.turns.append(record)
            case ConnectionRecord():
                self.connections.append(record)
            case Run():
                self.runs[record.run] = record
            case Dropped():
                self.dropped += record.count
            case Content() | Core() | Door():
                pass  # read by those who need them
            case _:
                assert_never(record)

    @property
    def latest(self) -> Session:
        """The session in which something happened last."""
        return max(self.sessions.values(), key=lambda session: session.turns[-1].at)

    def newest_first(self) -> list[Session]:
        """All sessions."""
        return sorted(self.sessions.values(), key=lambda s: s.turns[-1].at, reverse=True)


def connections_of(traces: Traces, sessions: Sequence[Session]) -> list[ConnectionRecord]:
    """What became of the connections that these sessions used."""
    used = {(turn.run, turn.connection) for session in sessions for turn in session.turns}
    return [c for c in traces.connections if (c.run, c.connection) in used]


def read_traces(folder: Path) -> Traces:
    """Read a folder's journals, or one file. Raises `TraceError` where there is nothing to read."""
    traces = Traces()
    for line in journal_lines(folder):
        if line.startswith(_SKIPPED):
            continue
        try:
            traces.add(decode(line))
        except (msgspec.DecodeError, UnicodeDecodeError):
            traces.damaged += 1
    for session in traces.sessions.values():
        session.turns.sort(key=lambda turn: turn.at)  # they are written as they end
    if not traces.sessions:
        raise NoTracesError(f"no turns in {folder} yet", _HOW_TO_BEGIN)
    return traces


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of a turn's body: `input 0`, `instructions`, `output 1`; its JSON, None if gone."""

    place: str
    json: bytes | None


def texts_of(folder: Path, turn: TurnRecord) -> list[Text]:
    """The texts of one turn in the order of its body. Raises `TraceError` where none was kept."""
    if turn.bodies is None:
        raise TraceError(f"no texts were kept of {turn.turn}", "set trace_bodies = true first")
    places = [(f"input {at}", name) for at, name in enumerate(turn.bodies.input)]
    places += turn.bodies.members.items()
    places += [(f"output {at}", name) for at, name in enumerate(turn.bodies.output)]
    wanted = {name for _, name in places}
    found: dict[str, bytes] = {}
    for line in journal_lines(folder):
        if line.startswith(_SKIPPED[1]):
            record = _decoded(line)
            if isinstance(record, Content) and record.name in wanted:
                found[record.name] = bytes(record.body)
    return [Text(place, found.get(name)) for place, name in places]


def journal_lines(folder: Path) -> Iterator[bytes]:
    """All lines of all journals, oldest first. Raises `TraceError`."""
    for path in _journals(folder):
        yield from _lines(path, is_named=path == folder)


def _journals(folder: Path) -> list[Path]:
    """Those of a folder; a file stands for itself: a copy has whatever name it was given."""
    if folder.is_file():
        return [folder]
    try:
        found = journals(folder)
    except FileNotFoundError:
        raise NoTracesError(f"no traces yet: {folder} does not exist", _HOW_TO_BEGIN) from None
    except OSError as error:
        raise TraceError(f"{folder} cannot be read: {error.strerror}", _HOW_TO_READ) from None
    if not found:
        raise NoTracesError(f"no traces yet in {folder}", _HOW_TO_BEGIN)
    return found


def _lines(path: Path, *, is_named: bool) -> Iterator[bytes]:
    """A file that the user named may be anybody's, or a link; a folder holds files of its own."""
    try:
        if is_named:
            with path.open("rb") as file:
                yield from file
        else:
            yield from lines_of(path)
    except FileNotFoundError:
        return  # rotated away meanwhile
    except FolderError as error:
        raise TraceError(error.problem, error.advice) from None
    except OSError as error:
        raise TraceError(f"{path} cannot be read: {error.strerror}", _HOW_TO_READ) from None


_HOW_TO_BEGIN: Final = (
    "point an agent at `wsproxy serve`, or start it with `wsproxy run` (setting trace = on)"
)
_HOW_TO_READ: Final = "read it as the user that runs the daemon, or check trace_dir"


# ── Ids ──────────────────────────────────────────────────────────────────────────────────────


def find(traces: Traces, word: str) -> Session | TurnRecord:
    """What an id, or the beginning of one, means. Raises `TraceError`."""
    known: dict[str, Session | TurnRecord] = {**traces.sessions, **traces.turns}
    if fits := _fits(word, known):
        return known[_only(word, fits)]
    hint = _near(word, known) or "`wsproxy trace list` names the sessions"
    raise TraceError(f"there is no session or turn {word!r}", hint)


def find_turn(traces: Traces, word: str) -> TurnRecord:
    """As `find`, for a turn alone."""
    if fits := _fits(word, traces.turns):
        return traces.turns[_only(word, fits)]
    if fits := _fits(word, traces.sessions):
        advice = f"`wsproxy trace show {_only(word, fits)}` lists its turns"
        raise TraceError(f"{word!r} is a session, not a turn", advice)
    hint = _near(word, traces.turns) or "`wsproxy trace show` lists the turns of a session"
    raise TraceError(f"there is no turn {word!r}", hint)


def find_session(traces: Traces, word: str) -> Session:
    """As `find`, for a session alone."""
    if fits := _fits(word, traces.sessions):
        return traces.sessions[_only(word, fits)]
    if fits := _fits(word, traces.turns):
        turn = traces.turns[_only(word, fits)]
        advice = f"its session is {turn.session}; `wsproxy trace show {turn.turn}` has its figures"
        raise TraceError(f"{word!r} is a turn, not a session", advice)
    hint = _near(word, traces.sessions) or "`wsproxy trace list` names the sessions"
    raise TraceError(f"there is no session {word!r}", hint)


def chosen(traces: Traces, words: Iterable[str]) -> list[Session]:
    """The sessions that ids name, whole where they name the session. Raises `TraceError`."""
    turns: dict[str, TurnRecord] = {}
    for found in (find(traces, word) for word in words):
        each = found.turns if isinstance(found, Session) else [found]
        turns.update((turn.turn, turn) for turn in each)
    sessions: dict[str, Session] = {}
    for turn in turns.values():
        sessions.setdefault(turn.session, Session(turn.session)).turns.append(turn)
    for session in sessions.values():
        session.turns.sort(key=lambda turn: turn.at)
    return list(sessions.values())


def _fits(word: str, ids: Collection[str]) -> list[str]:
    """The id itself, else those that begin so."""
    if word in ids:
        return [word]
    return [id_ for id_ in ids if word and id_.startswith(word)]


def _only(word: str, fits: Sequence[str]) -> str:
    """The one id that fits. Raises `TraceError` where there are several."""
    if len(fits) > 1:
        raise TraceError(f"{len(fits)} ids begin with {word!r}: {_some(fits)}", "give more of it")
    return fits[0]


def _near(word: str, ids: Iterable[str]) -> str:
    close = get_close_matches(word, list(ids), n=1, cutoff=0.5)
    return f"did you mean {close[0]}?" if close else ""


def _some(ids: Sequence[str]) -> str:
    shown = ", ".join(ids[:3])
    return shown if len(ids) <= 3 else f"{shown}, …"


# ── Following ────────────────────────────────────────────────────────────────────────────────


def follow(folder: Path, *, look_s: float = LOOK_S) -> Iterator[Record | None]:
    """New records as they are written, None whenever there is none. Raises `TraceError`."""
    places = {path: path.stat().st_size for path in _journals(folder)}
    while True:
        for path in _journals(folder):
            text, places[path] = _rest(path, places.get(path, 0))
            yield from filter(None, map(_decoded, text.splitlines(keepends=True)))
        yield None
        time.sleep(look_s)


def _rest(path: Path, start: int) -> tuple[bytes, int]:
    """What was written after `start`, up to its last whole line."""
    try:
        with path.open("rb") as file:
            file.seek(start)
            text = file.read()
    except FileNotFoundError:
        return b"", start
    whole = text[: text.rfind(b"\n") + 1]
    return whole, start + len(whole)


def _decoded(line: bytes) -> Record | None:
    try:
        return decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
