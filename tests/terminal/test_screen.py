"""The screen of `pools` and `top` in short lines, and where nobody answers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from io import StringIO

import pytest
from rich.console import Console

from wsproxy.console.asking import AskError
from wsproxy.console.screen import screen
from wsproxy.console.top import follow
from wsproxy.core.multiplex.snapshot import ConnectionRow, KeyRow, SessionRow, Snapshot
from wsproxy.metrics.report import ModelAnswers, Remembered, Report, Saved

KEY, SESSION, WAIT = "0badcafe", "5e551011", "59m59s"


def report() -> Report:
    session = SessionRow(
        key=KEY, session=SESSION, in_flight_max=16, queued=12, longest_wait_s=3599.0
    )
    connection = ConnectionRow(
        connection=17,
        key=KEY,
        sessions=[SESSION, "77777777"],
        state="open",
        age_s=3599.0,
        lanes="on",
        lanes_used=12,
        lanes_max=32,
        lanes_warm=12,
        in_flight=12,
        in_flight_max=16,
        heard_s=0.3,
    )
    key = KeyRow(key=KEY, lanes="unknown", chains="unknown", no_websocket_s=59.0, fault="F32")
    pool = Snapshot(
        turns=0,
        queued=12,
        longest_wait_s=3599.0,
        url_no_websocket_s=0.0,
        sessions=[session],
        connections=[connection],
        keys=[key],
    )
    return Report(
        version="0.1.0",
        pid=4711,
        up_s=59.0,
        upstream="https://api.example/v1",
        is_draining=False,
        downstream_connections=1,
        downstream_accepted=1,
        pool=pool,
        models=ModelAnswers(),
        history=Remembered(),
        saved=Saved(),
    )


def drawn(width: int) -> str:
    out = Console(file=StringIO(), width=width, highlight=False)
    out.print(screen(report(), width=width))
    assert isinstance(out.file, StringIO)
    return out.file.getvalue()


@pytest.mark.parametrize("width", [40, 50, 60, 70, 80, 100])
def test_ids_and_numbers_of_the_pools_are_never_cut(width: int) -> None:
    shown = drawn(width)
    assert "…" not in shown
    assert max(map(len, shown.splitlines())) <= width
    assert re.search(rf"^{SESSION} .*12 +{WAIT}", shown, re.MULTILINE)
    assert re.search(rf"^ +17 .*{SESSION} \+1 +open", shown, re.MULTILINE)
    assert ("a wider terminal shows also: " in shown) is (width < 80)


def test_what_a_pipe_gets_has_every_column() -> None:
    (row,) = [line for line in drawn(1000).splitlines() if line.startswith(SESSION)]
    assert row.split() == [SESSION, KEY, "0", "-", "0/0", "0/16", "12", WAIT, "websocket", "-"]


def nobody() -> Iterator[Report]:
    raise AskError("no wsproxy answers", "start one")
    yield


def test_the_screen_is_left_alone_where_nobody_answers() -> None:
    terminal = Console(file=StringIO(), force_terminal=True)
    with pytest.raises(AskError):
        follow(terminal, nobody())
    assert isinstance(terminal.file, StringIO)
    assert terminal.file.getvalue() == ""
