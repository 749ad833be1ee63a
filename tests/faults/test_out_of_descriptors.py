"""Few file descriptors, or none: refused so that clients come back, and then all is well (F46)."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.canary import TEXT, WATCH
from tests.faults.process import serving
from tests.faults.scene import Stage, meet, port_of, stage
from tests.worlds import KEY, Answer, eventually
from wsproxy.downstream.descriptors import RESERVE
from wsproxy.simulator import Rules, Simulator

#: Of the process under test: some 17 are its own at rest.
LIMIT = 96


@contextmanager
def no_descriptors_left() -> Iterator[None]:
    """Take every descriptor that this process may still have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    taken: list[int] = []
    try:
        while True:
            try:
                taken.append(os.open(os.devnull, os.O_RDONLY))
            except OSError:
                break
        yield
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_a_dial_without_a_descriptor_is_a_503_and_nothing_is_remembered() -> None:
    async with stage(lanes="on", continuation="off") as scene:
        opened = [scene.client.get(ops_url(scene)) for _ in range(2)]
        for each in await asyncio.gather(*opened):
            await each.read()  # its connection stays open: nobody needs a new one to us
        with no_descriptors_left():
            answer = await scene.turn("hello")
            passed = await scene.client.get(f"{scene.proxy.base_url}/status/204", headers=AUTH)
            passed_on = Answer(passed.status, passed.headers, await passed.read())
        for each in (answer, passed_on):
            assert (each.status, each.json()["error"]["code"]) == (503, "proxy_overloaded")
            assert each.headers["retry-after"] == "1"
            assert each.headers["x-should-retry"] == "true"
        assert passed_on.headers["x-wsproxy-outcome"] == "not_sent"
        await eventually(lambda: scene.is_quiet)

        met = await meet(scene.proxy.base_url, "c", stream=True, retries=2)
        assert met.text.startswith("items=1")
        assert scene.generations("c") == 1


def ops_url(scene: Stage) -> str:
    """Something that is answered without asking upstream."""
    return scene.proxy.base_url.removesuffix("/v1") + "/_wsproxy/healthz"


AUTH = {"Authorization": f"Bearer {KEY}"}


# ── A process with few ───────────────────────────────────────────────────────────────────────


def status(client: socket.socket, port: int) -> int:
    """Of the answer to a question that needs nobody but the proxy; 0: closed without one."""
    question = f"GET /_wsproxy/healthz HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n"
    try:
        client.sendall(question.encode())
        head = client.recv(4096)
    except ConnectionError:
        return 0
    WATCH.look("a page or an error of our own", head)
    return int(head.split()[1]) if head else 0


async def test_the_last_descriptors_are_kept_for_what_runs() -> None:
    async with Simulator(Rules()) as sim, serving(sim.base_url, max_descriptors=LIMIT) as process:
        port = port_of(process.base_url)
        with ExitStack() as stack:
            crowd = [
                stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=5))
                for _ in range(2 * LIMIT)
            ]
            told = [await asyncio.to_thread(status, one, port) for one in crowd]
            # The process has files of its own meanwhile: one or two may be out of line.
            assert (told[0], told[-1]) == (200, 0)
            assert abs(told.count(503) - RESERVE) <= 2
            lined_up = sorted(told, key=[200, 503, 0].index)
            assert sum(one != other for one, other in zip(told, lined_up, strict=True)) <= 4

            answer = await asyncio.to_thread(turn_on, crowd[0], port)
            assert answer.startswith(b"HTTP/1.1 200 "), "its dial takes one of those kept"

        met = await meet(process.base_url, "c", stream=True, retries=4)
        assert met.text.startswith("items=1")


@pytest.mark.parametrize(("wanted", "given"), [(300, 300), (9_999, 400)], ids=["some", "all"])
def test_a_low_soft_limit_is_raised_as_far_as_is_needed_and_allowed(
    wanted: int, given: int
) -> None:
    program = f"from wsproxy.downstream import descriptors as d; print(d.raise_limit({wanted}))"
    limits = "ulimit -n 400; ulimit -S -n 200"
    command = ["sh", "-c", f'{limits}; exec "$@"', "sh", sys.executable, "-c", program]
    ran = subprocess.run(command, check=True, capture_output=True, timeout=20)
    assert int(ran.stdout) == given


def turn_on(client: socket.socket, port: int) -> bytes:
    """A turn on a connection that stands; the beginning of its answer."""
    body = json.dumps({"model": "sim", "store": False, "input": TEXT}).encode()
    head = (
        f"POST /v1/responses HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {KEY}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    client.sendall(head.encode() + body)
    return client.recv(4096)
