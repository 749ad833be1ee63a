"""Clients that take nothing: they pay for it themselves, never their siblings (F39)."""

from __future__ import annotations

import asyncio
import json
import socket

import pytest

from tests.canary import TEXT
from tests.faults.scene import meet, port_of, stage
from tests.worlds import KEY, eventually
from wsproxy.simulator import Fault, Rules

STALLED, HEALTHY = 8, 4
#: One event among others; far more than the kernel's buffers on the way take.
BIG = 6_000_000


class StalledReader:
    """A client that sends a turn and then reads nothing at all."""

    def __init__(self, port: int, canary: str, *, buffer_bytes: int = 4096) -> None:
        body = json.dumps(
            {
                "model": "sim",
                "store": False,
                "stream": True,
                "input": TEXT,
                "metadata": {"canary": canary},
            }
        ).encode()
        head = (
            f"POST /v1/responses HTTP/1.1\r\nHost: localhost:{port}\r\n"
            f"Authorization: Bearer {KEY}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        self._error = 0
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
        self._socket.connect(("127.0.0.1", port))
        self._socket.sendall(head.encode() + body)

    @property
    def is_cut(self) -> bool:
        """Whether the proxy has reset the connection; asking takes the error from the socket."""
        self._error = self._error or self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        return self._error != 0

    def close(self) -> None:
        """Leave."""
        self._socket.close()


def big(canary: str) -> Fault:
    """A large event in the middle of that answer."""
    return Fault("mid_stream", "big", str(BIG), canary=canary)


@pytest.mark.parametrize(
    "settings",
    [
        {"relay_buffer_bytes": 65_536, "relay_stall_s": 0.5},
        {"relay_buffers_total_bytes": 262_144},
    ],
    ids=["stalled too long", "all buffers full"],
)
async def test_stalled_readers_are_cut_and_their_siblings_never_stall(
    settings: dict[str, float],
) -> None:
    async with stage(
        rules=Rules(deflate=False), lanes="on", continuation="off", **settings
    ) as scene:
        await meet(scene.proxy.base_url, "warm", stream=True)
        port = port_of(scene.proxy.base_url)
        scene.sim.faults.order(*[big(f"stalled {n}") for n in range(STALLED)])
        stalled = [StalledReader(port, f"stalled {n}") for n in range(STALLED)]
        try:
            async with asyncio.timeout(8):
                healthy = await asyncio.gather(
                    *[
                        meet(scene.proxy.base_url, f"healthy {n}", stream=True)
                        for n in range(HEALTHY)
                    ]
                )
            assert [met.text[:7] for met in healthy] == ["items=1"] * HEALTHY
            await eventually(lambda: all(reader.is_cut for reader in stalled))
        finally:
            for reader in stalled:
                reader.close()
        await scene.quiet()
        await eventually(lambda: not len(scene.proxy.driver._backlog))
        assert len(scene.sim.log.websockets()) == 1, "all of them shared one connection"


async def test_a_reader_that_is_only_slow_gets_all_of_it() -> None:
    settings = {"relay_buffer_bytes": 65_536, "relay_stall_s": 0.6}
    async with stage(rules=Rules(deflate=False), continuation="off", **settings) as scene:
        scene.sim.faults.order(big("slow"))
        reader = StalledReader(port_of(scene.proxy.base_url), "slow", buffer_bytes=400_000)
        reader._socket.setblocking(False)
        loop = asyncio.get_running_loop()
        received = b""
        while not received.endswith(b"0\r\n\r\n"):
            async with asyncio.timeout(5):
                part = await loop.sock_recv(reader._socket, 400_000)
            assert part, "it was cut"
            received += part
            await asyncio.sleep(0.01)
        reader.close()

        assert b"event: response.completed" in received
        await scene.quiet()


async def test_an_answer_without_an_end_is_broken_off() -> None:
    body = {"metadata": {"sim.text_tokens": "5000"}}
    async with stage(lanes="on", max_turn_events=1_000) as scene:
        met = await meet(scene.proxy.base_url, "c", stream=True, **body)

        assert met.events[-1].code == "upstream_protocol_error"
        assert len(met.events) <= 1_001
        await scene.quiet()


async def test_a_whole_answer_is_bounded_in_bytes_too() -> None:
    async with stage("mid_stream:big=2000000", lanes="on", max_turn_bytes=1_500_000) as scene:
        met = await meet(scene.proxy.base_url, "c", stream=False)

        assert (met.status, met.code) == (502, "upstream_protocol_error")
