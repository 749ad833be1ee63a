"""A dead path is told within seconds; who only thinks is left alone.

The kernel's half needs a network namespace: `scripts/soak --dead-path` proves it with the default
settings and fails where there is none; here it runs scaled down wherever there is one.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from tests.faults.scene import meet
from tests.links.dead_path import can_cut_paths
from tests.worlds import eventually
from wsproxy.config import Settings
from wsproxy.core.ids import ConnectionId
from wsproxy.core.multiplex.recovery import Fault
from wsproxy.core.wire.websocket import Message
from wsproxy.daemon import Daemon, compose, open_daemon
from wsproxy.ports import LinkEvents, Target

CREATED = b'{"type":"response.created","response":{"id":"r"},"sequence_number":0,"stream_id":"l01"}'


class DoomedLink:
    """A link whose path dies as soon as a turn was handed to it: what is left is its phase."""

    def __init__(self, connection: ConnectionId, events: LinkEvents, phase: str) -> None:
        self._connection = connection
        self._events = events
        self._phase = phase
        asyncio.get_running_loop().call_soon(events.link_opened, connection, (), False)

    def send(self, payload: bytes, ticket: int) -> None:
        """Get as far as the phase says, then lose the path."""
        asyncio.get_running_loop().call_soon(self._play, ticket)

    def _play(self, ticket: int) -> None:
        unsent: Sequence[int] = [ticket]
        if self._phase != "ADMITTED":
            self._events.link_sent(self._connection, ticket)
            unsent = []
        if self._phase == "STARTED":
            received: list[Message] = [CREATED]
            self._events.link_received(self._connection, received)
        self._events.link_lost(self._connection, Fault.PATH_DEAD, "Connection timed out", unsent)

    def ping(self, payload: bytes) -> None:
        """Nothing comes back."""

    def close(self, code: int, reason: str = "") -> None:
        """Nobody hears it."""

    def abort(self) -> Sequence[int]:
        """It is over anyway."""
        return ()


class DoomedDialer:
    """Opens doomed links."""

    def __init__(self, phase: str) -> None:
        self._phase = phase
        self.dials = 0

    def dial(self, connection: ConnectionId, target: Target, events: LinkEvents) -> DoomedLink:
        """One more."""
        self.dials += 1
        return DoomedLink(connection, events, self._phase)


@asynccontextmanager
async def doomed(phase: str) -> AsyncIterator[tuple[Daemon, DoomedDialer]]:
    """A proxy whose every path dies in that phase; nobody listens at its upstream."""
    settings = Settings(
        upstream="http://127.0.0.1:9/v1",
        listen=("127.0.0.1:0",),
        lanes="on",
        continuation="off",
        trace="off",
    )
    daemon, app = compose(settings)
    dialer = DoomedDialer(phase)
    daemon.driver._dialer = dialer
    try:
        await open_daemon(daemon, app)
        yield daemon, dialer
    finally:
        await daemon.close()


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize(
    ("phase", "status", "code"),
    [
        ("SENT", 504, "upstream_outcome_unknown"),
        ("STARTED", 502, "upstream_timeout"),
        ("ADMITTED", 502, "upstream_unreachable"),  # sent again thrice, then over HTTPS
    ],
)
async def test_a_path_that_is_reported_dead_ends_each_turn_by_its_phase(
    phase: str, status: int, code: str, stream: bool
) -> None:
    async with doomed(phase) as (daemon, dialer):
        met = await meet(daemon.base_url, "c", stream=stream)

        assert met.code == code
        if phase == "STARTED" and stream:
            assert met.kind == "APIConnectionError"
            assert [e.type for e in met.events] == ["response.created", "error"]
        else:
            assert met.status == status
        assert dialer.dials == (3 if phase == "ADMITTED" else 1)
        core = daemon.driver._core
        await eventually(lambda: not core.turns and not core.pool.connections, core)


if can_cut_paths():

    async def test_a_path_that_is_cut_in_mid_turn_is_told_to_its_clients() -> None:
        process = await asyncio.create_subprocess_exec(
            *["unshare", "-rn", sys.executable, "-m", "tests.links.dead_path"],
            *["--user-timeout", "2", "--ping", "1"],
            stdout=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(40):
            said, _ = await process.communicate()
        told = json.loads(said.splitlines()[-1])

        assert told["started"].pop("after_s") < 5.0, "ping interval + user timeout, and slack"
        assert told["sent"].pop("after_s") < 5.0
        assert told["started"] == {"status": 200, "code": "upstream_timeout", "is_cut": True}
        assert told["sent"] == {
            "status": 504,
            "code": "upstream_outcome_unknown",
            "is_cut": False,
        }
