"""`wsproxy trace tail` beside a running daemon."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.worlds import World, eventually, user, world

PATIENCE_S = 20.0


@asynccontextmanager
async def tailing(folder: Path, *options: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """The command as a child whose output is piped."""
    process = await asyncio.create_subprocess_exec(
        *[sys.executable, "-m", "wsproxy", "trace", "tail", "--dir", str(folder), *options],
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(PATIENCE_S):
            yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def first_line(process: asyncio.subprocess.Process, w: World) -> tuple[str, set[str]]:
    """What it prints first, and the turns of which it may be; it does not say when it is ready."""
    assert process.stdout is not None
    made: set[str] = set()
    reading = asyncio.ensure_future(process.stdout.readline())
    while not reading.done():
        answer = await w.turn([user("tell me")])
        made.add(answer.headers["x-wsproxy-turn"])
        await asyncio.wait({reading}, timeout=0.2)
    return (await reading).decode(), made


@pytest.mark.parametrize("options", [(), ("--json",)], ids=["text", "json"])
async def test_it_tells_turns_that_end_from_now_on_until_ctrl_c(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    given: dict[str, Any] = {"trace_dir": tmp_path / "traces", "trace_min_free_bytes": 0}
    async with world(**given) as w:
        old = (await w.turn([user("before")])).headers["x-wsproxy-turn"]
        await eventually(lambda: is_written(tmp_path / "traces", old))
        async with tailing(tmp_path / "traces", *options) as process:
            line, made = await first_line(process, w)
            process.send_signal(signal.SIGINT)
            rest, complaints = await process.communicate()
    told = line + rest.decode()
    assert process.returncode == 0
    assert complaints == b""
    assert old not in told
    assert "\x1b" not in told
    for each in told.splitlines():
        turn = json.loads(each)["turn"] if options else next(w for w in each.split() if w in made)
        assert turn in made


def is_written(folder: Path, turn: str) -> bool:
    """Whether a turn is in the journal."""
    return any(turn in path.read_text() for path in folder.glob("journal-*"))


async def test_a_pipe_that_is_closed_ends_it_without_a_word(tmp_path: Path) -> None:
    given: dict[str, Any] = {"trace_dir": tmp_path / "traces", "trace_min_free_bytes": 0}
    async with world(**given) as w:
        old = (await w.turn([user("before")])).headers["x-wsproxy-turn"]
        await eventually(lambda: is_written(tmp_path / "traces", old))
        tail = f"{sys.executable} -m wsproxy trace tail --dir {tmp_path / 'traces'} | head -n 1"
        process = await asyncio.create_subprocess_shell(
            tail, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        async with asyncio.timeout(PATIENCE_S):
            await first_line(process, w)
            ending = asyncio.ensure_future(process.wait())
            while not ending.done():
                await w.turn([user("one more, that nobody reads")])
                await asyncio.wait({ending}, timeout=0.2)
        assert process.stderr is not None
        assert await process.stderr.read() == b""
