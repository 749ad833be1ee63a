"""Exports load where they should: HAR, Chrome trace events, OTLP, JSON lines."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from tests.trace.collector import Receiver, receiving
from tests.trace.trace_stage import AT, connection, run, turn, written
from wsproxy.cli.main import main
from wsproxy.trace.export import FORMATS
from wsproxy.trace.reader import read_traces


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two sessions: a tool loop, two turns at once over HTTPS, a refusal."""
    https = {"route": "http", "reason": "busy", "transport": "https", "connection": None}
    refused = {"route": "none", "outcome": "refused", "status": 502, "code": "proxy_bug"}
    turns = [turn(number) for number in range(1, 4)]
    turns += [turn(4, **https), turn(5, at=AT + 4.1, **https)]
    turns.append(turn(6, session="77777777", phases=turn().phases.__class__(done=0.1), **refused))
    return written(tmp_path / "traces", [run(), connection(), *turns])


def exported(folder: Path, form: str) -> str:
    traces = read_traces(folder)
    return "\n".join(FORMATS[form](traces, traces.newest_first()))


# ── HAR ──────────────────────────────────────────────────────────────────────────────────────

#: HAR 1.2: the members each object must have, and what they are.
HAR: Final[Mapping[str, Mapping[str, type | tuple[type, ...]]]] = {
    "log": {"version": str, "creator": dict, "entries": list},
    "creator": {"name": str, "version": str},
    "pages": {"startedDateTime": str, "id": str, "title": str, "pageTimings": dict},
    "entries": {
        "startedDateTime": str,
        "time": (int, float),
        "request": dict,
        "response": dict,
        "cache": dict,
        "timings": dict,
    },
    "request": {
        "method": str,
        "url": str,
        "httpVersion": str,
        "cookies": list,
        "headers": list,
        "queryString": list,
        "headersSize": int,
        "bodySize": int,
    },
    "response": {
        "status": int,
        "statusText": str,
        "httpVersion": str,
        "cookies": list,
        "headers": list,
        "content": dict,
        "redirectURL": str,
        "headersSize": int,
        "bodySize": int,
    },
    "content": {"size": int, "mimeType": str},
    "timings": {"send": (int, float), "wait": (int, float), "receive": (int, float)},
}


def walk(name: str, value: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every object of the document with the name under which it stands."""
    if isinstance(value, dict):
        yield name, value
        for key, member in value.items():
            yield from walk(key, member)
    elif isinstance(value, list):
        for member in value:
            yield from walk(name, member)


def test_har_has_what_the_format_asks_for(folder: Path) -> None:
    document = json.loads(exported(folder, "har"))
    seen = set()
    for name, value in walk("", document):
        seen.add(name)
        for member, type_ in HAR.get(name, {}).items():
            assert isinstance(value[member], type_), f"{name}.{member}"
    assert set(HAR) <= seen
    assert document["log"]["version"] == "1.2"


def test_har_times_add_up_to_the_turn(folder: Path) -> None:
    log = json.loads(exported(folder, "har"))["log"]
    assert {entry["pageref"] for entry in log["entries"]} == {page["id"] for page in log["pages"]}
    first = log["entries"][0]
    assert first["time"] == pytest.approx(400)
    assert first["timings"] == {
        "blocked": 2, "dns": -1, "connect": -1, "ssl": -1, "send": 1, "wait": 97, "receive": 300,
    }  # fmt: skip
    assert all(ms >= -1 for entry in log["entries"] for ms in entry["timings"].values())
    assert first["request"]["url"] == "https://api.example/v1/responses"


# ── Chrome trace events ──────────────────────────────────────────────────────────────────────


def test_perfetto_slices_of_a_track_nest(folder: Path) -> None:
    document = json.loads(exported(folder, "perfetto"))
    tracks: dict[tuple[int, int], list[tuple[float, float]]] = {}
    for event in document["traceEvents"]:
        assert event["ph"] in ("M", "X", "i")
        if event["ph"] == "X":
            place = tracks.setdefault((event["pid"], event["tid"]), [])
            place.append((event["ts"], event["ts"] + event["dur"]))
    assert len(tracks) == 3, "two turns at once need two tracks of their session"
    for slices in tracks.values():
        for start, end in slices:
            for other_start, other_end in slices:
                is_apart = end <= other_start + 1 or other_end <= start + 1
                is_inside = start - 1 <= other_start and other_end <= end + 1
                is_around = other_start - 1 <= start and end <= other_end + 1
                assert is_apart or is_inside or is_around


def test_perfetto_names_sessions_and_connections(folder: Path) -> None:
    events = json.loads(exported(folder, "perfetto"))["traceEvents"]
    names = {event["args"]["name"] for event in events if event["name"] == "process_name"}
    assert names == {"connections", "session 5e551011", "session 77777777"}
    assert "connection 1 opened" in {event["name"] for event in events}


# ── OTLP ─────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def collector() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


def test_a_collector_gets_spans_that_decode(folder: Path, collector: Receiver) -> None:
    arguments = ["trace", "export", "--format", "otlp", "--to", collector.endpoint]
    assert main([*arguments, "--dir", str(folder)]) == 0
    assert [content_type for content_type, _ in collector.got] == ["application/json"]
    spans = collector.spans()
    assert len(spans) == 6
    assert {len(span.trace_id) for span in spans} == {16}
    assert {len(span.span_id) for span in spans} == {8}
    first = next(span for span in spans if span.start_time_unix_nano == round((AT + 1) * 1e9))
    assert first.name == "chat gpt-5.6"
    assert first.end_time_unix_nano - first.start_time_unix_nano == 400_000_000
    about = {pair.key: pair.value for pair in first.attributes}
    assert about["gen_ai.operation.name"].string_value == "chat"
    assert about["gen_ai.usage.input_tokens"].int_value == 100
    assert about["gen_ai.usage.cache_read.input_tokens"].int_value == 80
    assert about["server.address"].string_value == "api.example"


@pytest.mark.parametrize(
    ("path", "status", "problem", "advice"),
    [
        ("/elsewhere", 0, "did not take it: it answered 404 Not Found", "/v1/traces"),
        ("/v1/traces", 401, "did not take it: it answered 401 Unauthorized", "credentials"),
        ("/v1/traces", 599, "did not take it: it answered 599", "its own log"),
    ],
    ids=["another path", "a key", "an unknown status"],
)
def test_a_collector_that_refuses_is_named_with_its_status(
    path: str,
    status: int,
    problem: str,
    advice: str,
    folder: Path,
    collector: Receiver,
    capsys: pytest.CaptureFixture[str],
) -> None:
    collector.status = status or collector.status
    arguments = ["trace", "export", "--format", "otlp", "--to", collector.url + path]
    assert main([*arguments, "--dir", str(folder)]) == 1
    first, second = capsys.readouterr().err.splitlines()
    assert first.endswith(problem)
    assert advice in second


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("http://127.0.0.1:{}/v1/traces", "cannot be reached: nothing listens there"),
        ("http://127.0.0.1:x/", "is no http or https URL"),
        ("http://[::1", "is no http or https URL"),
    ],
    ids=["nobody there", "no port", "no address"],
)
def test_a_collector_that_cannot_be_asked_is_told_in_words(
    url: str, problem: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    arguments = ["trace", "export", "--format", "otlp", "--to", url.format(port)]
    assert main([*arguments, "--dir", str(folder)]) == 1
    first, second = capsys.readouterr().err.splitlines()
    assert first.endswith(problem)
    assert "Errno" not in first
    assert second.startswith("  ")


# ── JSON lines ───────────────────────────────────────────────────────────────────────────────


def test_json_lines_are_ascii_and_by_time(tmp_path: Path) -> None:
    folder = written(tmp_path / "traces", [run(), turn(2, model="ä\u202e"), turn(1), connection()])
    text = exported(folder, "jsonl")
    assert text.isascii()
    records = [json.loads(line) for line in text.splitlines()]
    assert [record["kind"] for record in records] == ["connection", "turn", "turn"]
    assert [record["at"] for record in records] == [AT, AT + 1, AT + 2]


def test_a_turn_is_exported_alone(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trace", "export", turn(2).turn, "--dir", str(folder)]) == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["turn"] for one in records if one["kind"] == "turn"] == [turn(2).turn]


def test_an_export_in_lines_can_be_read_again(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "exported.jsonl"
    assert main(["trace", "export", "-o", str(target), "--dir", str(folder)]) == 0
    assert read_traces(target).turns == read_traces(folder).turns
