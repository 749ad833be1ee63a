"""What upstream says in its own words is for the agent whose turn it is about, and for no log."""

from __future__ import annotations

from typing import Any, Final

import pytest

from tests.canary import SECRET, TEXT
from tests.conftest import LogLines
from tests.worlds import user, world
from wsproxy.simulator import outlet, turns, websocket
from wsproxy.simulator.errors import ApiError, named_error

#: As an API may name the key that it was given, and repeat what it was asked.
WORDS: Final = f"no such thing for {SECRET}: {TEXT}"


@pytest.fixture(autouse=True)
def _talkative(monkeypatch: pytest.MonkeyPatch) -> None:
    close = websocket.WebSocketConnection.close

    def says(self: Any, code: int, _reason: str = "") -> None:
        close(self, code, WORDS)

    def tells(code: str) -> ApiError:
        error = named_error(code)
        error.message = WORDS
        return error

    monkeypatch.setattr(websocket.WebSocketConnection, "close", says)
    monkeypatch.setattr(outlet, "named_error", tells)
    monkeypatch.setattr(turns, "named_error", tells)


@pytest.mark.parametrize(
    ("order", "event", "detail"),
    [
        ("before_first_event:close=1008", "connection.lost", "1 turn on it; close 1008"),
        ("mid_stream:close=1011", "connection.lost", "1 turn on it; close 1011"),
        (
            "mid_stream:connection_error=websocket_connection_limit_reached",
            "connection.retired",
            "status 400 websocket_connection_limit_reached",
        ),
    ],
    ids=["close", "close in mid-stream", "an error of the connection"],
)
async def test_of_what_is_said_of_a_connection_only_codes_are_told(
    order: str, event: str, detail: str, log_lines: LogLines
) -> None:
    async with world(faults=[order], lanes="on", continuation="on") as scene:
        await scene.turn([user("hello")], stream=True)
    assert detail in {line.get("detail") for line in log_lines() if line["event"] == event}


async def test_an_error_of_one_turn_is_for_its_agent() -> None:
    order = "before_first_event:error=invalid_prompt"
    async with world(faults=[order], lanes="on", continuation="on") as scene:
        answer = await scene.turn([user("hello")])
    assert answer.status == 400
    assert b"cnry7" in answer.body
