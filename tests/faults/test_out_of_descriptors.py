"""No file descriptors left: refused so that clients come back, and then all is well."""

from __future__ import annotations

import asyncio
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager

from tests.faults.scene import Stage, meet, stage
from tests.worlds import Answer, eventually


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


AUTH = {"Authorization": "Bearer key-one"}
