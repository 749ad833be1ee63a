"""Reading traces back: damage is counted, ids are forgiving, errors say what to do."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from tests.trace.trace_stage import AT, connection, run, turn, written
from wsproxy.trace.reader import (
    NoTracesError,
    TraceError,
    chosen,
    find,
    find_session,
    find_turn,
    follow,
    read_traces,
)
from wsproxy.trace.record import Content, Dropped, Phases, TurnRecord, decode, encode
from wsproxy.trace.report import by_day, figures, percentile, spans

RECORDS = [
    run(),
    turn(),
    turn(2, phases=Phases(), conversation=None, tokens_in=None, faults=["F01"], about={"a": "b"}),
    connection(),
    Content("00ff", msgspec.Raw(b'{"a":[1.0]}')),
    Dropped(AT, 3),
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_a_record_is_one_line_and_comes_back_equal(record: TurnRecord) -> None:
    line = encode(record)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert decode(line) == record


def test_a_journal_of_a_newer_wsproxy_can_be_read() -> None:
    line = encode(turn()).replace(b'"lane"', b'"invented":{"x":1},"lane"')
    assert decode(line) == turn()


@pytest.mark.parametrize(
    "tail",
    [
        encode(turn(2))[:-20],
        b"\x00\xff\n",
        b"{}\n",
        b'{"kind":"turn","turn":7}\n',
        b"[" * 5000,
        b'{"kind":"turn","x":' + b"[" * 5000 + b"]" * 5000 + b"}\n",
        encode(turn(2, at=1e308)),
        encode(turn(2, phases=Phases(done=1e308))),
    ],
    ids=["torn", "binary", "no kind", "wrong type", "deep", "deep inside", "no date", "no time"],
)
def test_a_damaged_line_is_counted_and_skipped(tail: bytes, tmp_path: Path) -> None:
    folder = written(tmp_path / "traces", [run(), turn(1)], tail=tail)
    traces = read_traces(folder)
    assert list(traces.turns) == [turn(1).turn]
    assert traces.damaged == 1


def test_turns_stand_in_the_order_in_which_they_came(tmp_path: Path) -> None:
    folder = written(tmp_path / "traces", [turn(3), turn(1), turn(2)])
    (session,) = read_traces(folder).newest_first()
    assert [t.at - AT for t in session.turns] == [1, 2, 3]


def test_the_latest_session_is_the_one_where_something_happened_last(tmp_path: Path) -> None:
    folder = written(
        tmp_path / "traces", [turn(1, session="aaaa"), turn(2, session="bbbb"), turn(1)]
    )
    assert read_traces(folder).latest.id == "bbbb"


@pytest.mark.parametrize(
    ("word", "problem", "advice"),
    [
        ("5e551012", "there is no session or turn", "did you mean 5e551011?"),
        ("zzzzzzzz", "there is no session or turn", "`wsproxy trace list`"),
        ("t", "3 ids begin with 't': t000000000001, t000000000002", "give more of it"),
        ("", "there is no session or turn ''", ""),
        ("t0000…", "there is no session or turn 't0000…'", ""),
        ("\x1b[2J\u202e", "'\\x1b[2J\\u202e'", ""),
    ],
)
def test_an_id_that_says_too_little_is_answered_with_what_to_do(
    word: str, problem: str, advice: str, tmp_path: Path
) -> None:
    traces = read_traces(written(tmp_path / "traces", [turn(1), turn(2), turn(3)]))
    with pytest.raises(TraceError) as refusal:
        find(traces, word)
    assert problem in refusal.value.problem
    assert advice in refusal.value.advice


def test_the_beginning_of_an_id_is_enough(tmp_path: Path) -> None:
    traces = read_traces(written(tmp_path / "traces", [turn(1), turn(255)]))
    assert find(traces, "5") is find_session(traces, "5e5") is traces.latest
    assert find_turn(traces, "t0000000000f").turn == turn(255).turn
    with pytest.raises(TraceError, match="is a session, not a turn"):
        find_turn(traces, "5")
    with pytest.raises(TraceError, match="is a turn, not a session") as refusal:
        find_session(traces, "t0000000000f")
    assert "its session is 5e551011" in refusal.value.advice


def test_a_session_is_chosen_whole_and_a_turn_alone(tmp_path: Path) -> None:
    turns = [turn(n, session="5e551011" if n < 4 else "77777777") for n in range(1, 6)]
    traces = read_traces(written(tmp_path / "traces", turns))
    names = [turn(n).turn for n in range(1, 6)]
    both = chosen(traces, [names[2], "7", names[0], names[4]])
    assert [(s.id, [t.turn for t in s.turns]) for s in both] == [
        ("5e551011", [names[0], names[2]]),
        ("77777777", names[3:]),
    ]


def make_nothing(folder: Path) -> None:
    pass


def make_empty(folder: Path) -> None:
    folder.mkdir()


def make_idle(folder: Path) -> None:
    written(folder, [run()])


@pytest.mark.parametrize("make", [make_nothing, make_empty, make_idle])
def test_where_there_is_nothing_yet_it_says_how_to_begin(make: object, tmp_path: Path) -> None:
    assert callable(make)
    make(tmp_path / "traces")
    with pytest.raises(NoTracesError) as refusal:
        read_traces(tmp_path / "traces")
    assert "traces" in refusal.value.problem
    assert "`wsproxy serve`" in refusal.value.advice
    assert "`wsproxy run`" in refusal.value.advice


def test_following_gives_whole_new_lines_of_old_and_new_files(tmp_path: Path) -> None:
    folder = written(tmp_path / "traces", [turn(1)])
    following = follow(folder, look_s=0)
    assert next(following) is None
    with (folder / "journal-000001.jsonl").open("ab") as file:
        line = encode(turn(2))
        file.write(line[:40])
        file.flush()
        assert next(following) is None
        file.write(line[40:])
    assert next(following) == turn(2)
    written(folder, [turn(3)], number=2)
    assert [next(following), next(following)] == [None, turn(3)]


def test_figures_add_up() -> None:
    turns = [turn(n) for n in range(1, 5)]
    turns.append(turn(5, route="http", connection=None, bytes_up=5000, outcome="error", status=500))
    sums = figures(turns)
    assert (sums.turns, sums.deltas, sums.fulls, sums.over_https, sums.failed) == (5, 3, 1, 1, 1)
    assert (sums.connections, sums.upgrades_saved) == (1, 3)
    assert (sums.bytes_http, sums.bytes_up, sums.bytes_saved) == (15000, 9000, 6000)
    assert sums.cached_share == 0.8
    assert sums.first_event_p50_s == sums.first_event_p99_s == 0.1


@pytest.mark.parametrize(
    ("values", "rank", "expected"),
    [([], 50, None), ([7.0], 99, 7.0), (range(1, 101), 50, 50), (range(1, 101), 99, 99)],
    ids=["nothing", "one", "half", "nearly all"],
)
def test_percentiles_are_values_that_were_measured(
    values: list[float], rank: int, expected: float | None
) -> None:
    assert percentile(values, rank) == expected


def test_days_are_told_apart(tmp_path: Path) -> None:
    folder = written(tmp_path / "traces", [turn(1), turn(2, at=AT + 3 * 86400)])
    assert [row.figures.turns for row in by_day(read_traces(folder))] == [1, 1]


def test_pauses_are_cut_out_of_the_waterfall_and_overlaps_are_kept() -> None:
    took = Phases(done=1.0)
    turns = [turn(1, at=AT, phases=took), turn(2, at=AT + 0.5, phases=took)]
    turns.append(turn(3, at=AT + 100, phases=took))
    assert [(span.start, span.end) for span in spans(turns)] == [(0, 1), (0.5, 1.5), (1.5, 2.5)]
