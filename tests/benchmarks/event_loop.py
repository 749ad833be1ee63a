"""What relaying one event costs the proxy on uvloop and on asyncio's own loop.

    python tests/benchmarks/event_loop.py

20 streams at once, on shared WebSockets (one key) and on one each (20 keys), slow and fast;
source, proxy and client in processes of their own, rounds interleaved. CPU is the operating
system's accounting of the proxy process (Linux: /proc).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

SOURCE: Final = Path(__file__).with_name("event_source.py")
STREAMS: Final = 20
RATES: Final = (100, 400)  # events/s of each stream
ROUND_S: Final = 3
ROUNDS: Final = 5
#: Only loops differ: the program itself takes uvloop where it can be imported.
PROGRAM: Final = "import sys; {hide}from wsproxy.cli.main import main; sys.exit(main())"
#: How many keys the streams use: streams of one key share connections, 16 on each.
KEYS: Final = (1, STREAMS)
LOOPS: Final = {"uvloop": "", "asyncio": "sys.modules['uvloop'] = None; "}
_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def started(arguments: list[str]) -> Iterator[tuple[int, str]]:
    """Run Python: its process id, and the URL at the end of the first line it prints."""
    with subprocess.Popen([sys.executable, *arguments], stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None
            yield child.pid, child.stdout.readline().split()[-1]
        finally:
            child.terminate()


@contextlib.contextmanager
def proxy(upstream: str, hide: str) -> Iterator[tuple[int, str]]:
    """A proxy on one of the loops."""
    arguments = ["serve", "--listen", "127.0.0.1:0", "--upstream", upstream, "--lanes", "on"]
    quiet = ["--continuation", "off", "--log-level", "error", "--drain-timeout", "0"]
    with started(["-c", PROGRAM.format(hide=hide), *arguments, *quiet]) as found:
        yield found


def cpu_s(pid: int) -> float:
    """User and system seconds of a process so far (proc(5), fields 14 and 15)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


async def stream(base_url: str, number: int, key: int, tokens: int) -> int:
    """Read one streamed answer to its end; how many events came."""
    orders = {"sim.text_tokens": str(tokens)}
    body = {"model": "sim", "input": f"stream {number}", "stream": True, "store": False}
    payload = json.dumps({**body, "metadata": orders}).encode()
    url = urlsplit(base_url)
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    head = (
        f"POST {url.path}/responses HTTP/1.1\r\nHost: {url.netloc}\r\nConnection: close\r\n"
        f"Authorization: Bearer key-{key}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(payload)}\r\n\r\n"
    )
    writer.write(head.encode() + payload)
    count = 0
    while line := await reader.readline():
        count += line.startswith(b"event: ")
    writer.close()
    return count


async def load(base_url: str, keys: int, tokens: int) -> int:
    """All streams at once; events of all."""
    streams = (stream(base_url, number, number % keys, tokens) for number in range(STREAMS))
    return sum(await asyncio.gather(*streams))


def one_round(pid: int, base_url: str, keys: int, rate: int) -> float:
    """µs of CPU an event."""
    before = cpu_s(pid)
    count = asyncio.run(load(base_url, keys, rate * ROUND_S))
    assert count == STREAMS * (rate * ROUND_S + 2), f"{count} events came"
    return 1e6 * (cpu_s(pid) - before) / count


def measure(rate: int) -> dict[tuple[str, int], list[float]]:
    """Figures of every loop and number of keys at one rate."""
    spent: dict[tuple[str, int], list[float]] = {(name, n): [] for n in KEYS for name in LOOPS}
    with contextlib.ExitStack() as stack:
        proxies = {}
        for name, hide in LOOPS.items():
            _, upstream = stack.enter_context(started([str(SOURCE), str(rate)]))
            proxies[name] = stack.enter_context(proxy(upstream, hide))
            for keys in KEYS:
                asyncio.run(load(proxies[name][1], keys, 20))  # dialled and imported
        for _ in range(ROUNDS):
            for name, keys in spent:
                spent[name, keys].append(one_round(*proxies[name], keys, rate))
    return spent


def main() -> None:
    """Print median, least and most of each."""
    print(f"µs of CPU an event, {STREAMS} streams, {ROUNDS} rounds of {ROUND_S} s")
    for rate in RATES:
        for (name, keys), figures in measure(rate).items():
            middle = statistics.median(figures)
            extent = f"{min(figures):.1f} to {max(figures):.1f}"
            print(f"{rate:5}/s {keys:3} keys   {name:8} {middle:6.1f}   ({extent})", flush=True)


if __name__ == "__main__":
    main()
