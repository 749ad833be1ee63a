"""An inherited base URL: a wsproxy's is known by its own pages, anybody else is left alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.canary import WATCH, secret
from tests.worlds import world
from wsproxy.config import SettingsError
from wsproxy.sidecar.inherited import upstream_behind

OK: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n"
UNAUTHORIZED: Final = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\n{}"
ENDLESS: Final = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n:\n\n"


@asynccontextmanager
async def saying(answer: bytes) -> AsyncIterator[str]:
    """Somebody else's server: it says this to all who ask, and never hangs up."""
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        for writer in writers:
            writer.close()
            await writer.wait_closed()


async def test_the_upstream_of_a_wsproxy_is_found_with_the_token_that_stands_in_the_url(
    tmp_path: Path,
) -> None:
    token = WATCH.plant(tmp_path / "token", secret("inherited"))
    async with world(token_file=token) as proxy:
        assert proxy.proxy.front is not None
        where = proxy.proxy.front.addresses[0]
        url = f"http://{where}/t/{secret('inherited')}/v1"
        assert await asyncio.to_thread(upstream_behind, url) == proxy.sim.base_url
        with pytest.raises(SettingsError, match=f"the wsproxy at {where} wants its token") as told:
            await asyncio.to_thread(upstream_behind, f"http://{where}/v1")
        assert "name the API with --upstream URL" in told.value.advice


async def test_a_wsproxy_that_does_not_tell_its_upstream_is_refused() -> None:
    async with saying(OK) as url:
        with pytest.raises(SettingsError, match="does not tell its upstream"):
            await asyncio.to_thread(upstream_behind, url)


@pytest.mark.parametrize(
    "answer",
    [b"", UNAUTHORIZED, ENDLESS, b"SMTP\r\n", OK.replace(b"ok\n", b"OK\n")],
    ids=["silence", "401 of others", "a stream without end", "no HTTP", "another word"],
)
async def test_whoever_else_answers_there_is_left_alone(answer: bytes) -> None:
    async with saying(answer) as url:
        assert await asyncio.to_thread(upstream_behind, url) is None


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:9/v1", "https://127.0.0.1:9/v1", "https://api.openai.com/v1"],
    ids=["nobody", "https", "elsewhere"],
)
def test_where_no_wsproxy_can_be_nothing_changes(url: str) -> None:
    assert upstream_behind(url) is None
