"""`explain`: why a turn went as it did, with what else the traces tell of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.trace.trace_stage import AT, connection, run, turn, written
from wsproxy.core.multiplex.recovery import Fault
from wsproxy.trace.advice import explain
from wsproxy.trace.reader import Traces, read_traces

HTTP = {"route": "http", "reason": "no_websocket", "transport": "https", "connection": None}


def traces(folder: Path, *records: Any) -> Traces:
    return read_traces(written(folder, [run(), turn(3, **HTTP), *records]))


@pytest.mark.parametrize(
    ("chains", "why", "advice"),
    [
        ("", "not known yet", 'continuation = "on" skips it'),
        ("refuted", "does not keep", "would lose what came before"),
        ("off", 'continuation = "off"', 'continuation = "auto"'),
    ],
)
def test_no_upstream_that_lost_its_chains_is_recommended_to_be_trusted(
    chains: str, why: str, advice: str
) -> None:
    about = {"chains": chains} if chains else {}
    told = explain(turn(2, route="full", reason="chains_unproven", about=about))
    assert why in told.why
    assert advice in told.advice


@pytest.mark.parametrize(
    ("refusal", "why"),
    [
        ({"status": 426, "fault": Fault.UPGRADE_UNSUPPORTED.value}, "was answered with 426"),
        ({"fault": Fault.UNREACHABLE.value}, Fault.UNREACHABLE.what),
        ({"at": AT + 60, "status": 426}, "failed or took too long"),
        ({"key": "another1", "status": 426}, "failed or took too long"),
        ({"run": "another1", "status": 426}, "failed or took too long"),
    ],
    ids=["refused", "unreachable", "a later one", "of another key", "of another run"],
)
def test_a_turn_without_websocket_is_told_why_there_was_none(
    refusal: dict[str, Any], why: str, tmp_path: Path
) -> None:
    found = traces(tmp_path / "t", connection(change="refused", **refusal))
    told = explain(found.turns["t000000000003"], found)
    assert why in told.why
    assert "`wsproxy doctor --upstream https://api.example/v1`" in told.advice


def test_of_several_refusals_the_last_before_the_turns_end_is_told(tmp_path: Path) -> None:
    refusals = [connection(change="refused", at=AT + n, status=500 + n) for n in (1, 2)]
    found = traces(tmp_path / "t", *refusals)
    assert "502" in explain(found.turns["t000000000003"], found).why


@pytest.mark.parametrize(
    ("ending", "end"),
    [
        ({}, ""),
        ({"outcome": "incomplete"}, ""),
        ({"outcome": "error", "status": 400, "code": "odd"}, "refused it, .*status 400, odd"),
        ({"outcome": "broken", "status": None, "code": "upstream_disconnected"}, "broken off"),
        ({"outcome": "client_left", "status": None, "code": "F37"}, "The agent left"),
        ({"outcome": "failed"}, "response failed"),
        ({"outcome": "passed", "status": 404}, "answered with status 404"),
    ],
    ids=["completed", "incomplete", "refused", "broken", "left", "failed", "over HTTPS"],
)
def test_a_turn_that_ended_otherwise_is_never_told_as_a_good_one(
    ending: dict[str, Any], end: str
) -> None:
    told = explain(turn(1, **ending)).end
    assert re.fullmatch(f".*{end}.*" if end else "", told)
