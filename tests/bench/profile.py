"""Where the proxy's processor time goes: in the kernel, the interpreter, libraries, our modules.

The kernel's share is the system's own accounting; the rest is divided as py-spy's samples fall. A
sample counts for the code that was running, not for who called it.
"""

from __future__ import annotations

import asyncio
import re
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

from tests.bench import turns
from tests.bench.bodies import Talk
from tests.bench.cast import Cast
from tests.bench.children import CACHE, Child
from tests.bench.environments import environment
from tests.bench.ledger import Ledger
from tests.bench.relay import Load, one_round

#: The program that looks, from its package of the same name.
SPY: Final = "py-spy"
#: Samples a second: each one stops the process for about a millisecond.
_RATE: Final = 200
_BODY_BYTES: Final = 40_000
#: A conversation begins anew after so many turns, so that bodies stay as large as they are said.
_TURNS: Final = 60
#: Asleep, whatever the system says: the journal's thread that waits for something to write.
_ASLEEP: Final = "PyThread_acquire_lock"
#: What a thread is in while the kernel works for it.
_CALLS: Final = {"write", "writev", "read", "send", "recv", "sendmsg", "epoll_pwait", "epoll_wait"}
_FRAME: Final = re.compile(r"(?P<function>.*) \((?P<file>.*?)(?::\d+)?\)")
_SYSTEM: Final = ("libc.so", "ld-linux", "libpthread", "[vdso]")

INTERPRETER: Final = "interpreter"
KERNEL: Final = "kernel"


async def profiles(ledger: Ledger, cast: Cast, seconds: float) -> None:
    """Look at a proxy under the relay load and under turns, or say why not."""
    if (programs := await asyncio.to_thread(environment, SPY, SPY)) is None:
        ledger.explain("profile", "py-spy cannot be installed here, so there is no profile.")
        return
    for name, load in _loads(cast).items():
        table = f"profile: {name}"
        shares = await _looked(programs / SPY, cast.wsproxy, seconds, load)
        if not shares:
            ledger.explain("profile", "py-spy may not look at other processes here.")
            return
        for part, share in shares.items():
            ledger.note(table, part, percent=100 * share)


def _loads(cast: Cast) -> dict[str, Callable[[], Awaitable[object]]]:
    async def relay() -> None:
        await one_round(Load(20, 1_000, 1.0, 20), cast.plain, cast.wsproxy)

    async def turn() -> None:
        await turns.conversation(cast.wsproxy, Talk.of_bytes(_BODY_BYTES, "profile"), _TURNS)

    return {"20 streams, 1,000 events/s each": relay, "turns of 40 KB": turn}


async def _looked(
    program: Path, child: Child, seconds: float, load: Callable[[], Awaitable[object]]
) -> dict[str, float]:
    """Part → its share of the time; empty where the program may not look."""
    raw = CACHE / "profile.raw"
    flags = ["--native", "--format=raw", f"--rate={_RATE}", f"--duration={max(1, round(seconds))}"]
    before = child.cpu_parts_s()
    spy = await asyncio.create_subprocess_exec(
        *[str(program), "record", *flags, f"--pid={child.pid}", f"--output={raw}"],
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    while spy.returncode is None:
        await load()
    if spy.returncode != 0:
        return {}
    user_s, system_s = (now - then for now, then in zip(child.cpu_parts_s(), before, strict=True))
    return divided(raw.read_text().splitlines(), system_s / (user_s + system_s))


def divided(lines: Iterable[str], kernel: float) -> dict[str, float]:
    """Shares of all time, the largest first; `kernel` is that of the kernel.

    `lines` are stacks, frames joined by `;`, each with how often it was seen.
    """
    seen: Counter[str] = Counter()
    for line in lines:
        stack, _, count = line.rpartition(" ")
        if (part := running(stack.split(";"))) is not None:
            seen[part] += int(count)
    total = sum(seen.values()) or 1
    rest = {part: (1 - kernel) * count / total for part, count in seen.most_common()}
    return {KERNEL: kernel, **rest}


def running(frames: Sequence[str]) -> str | None:
    """Whose code the last frame is; None where that is the kernel's, or nobody's."""
    if any(_ASLEEP in frame for frame in frames):
        return None
    for frame in reversed(frames):
        found = _FRAME.fullmatch(frame)
        function, file = (found["function"], found["file"]) if found else ("", frame)
        if function in _CALLS:
            return None
        if not file.startswith(_SYSTEM):  # memcpy and its like work for whoever called them
            return _owner(function, file)
    return None


def _owner(function: str, file: str) -> str:
    if file.startswith("wsproxy/"):
        return file
    if function.startswith(("uv_", "__pyx_")) or file == "loop.c":
        return "uvloop"
    package = file.partition("/")[0].removesuffix(".py")
    if package in sys.stdlib_module_names or package.startswith("<frozen"):
        return "standard library"
    return package if "/" in file else INTERPRETER
