"""A path that dies in the middle of two turns, between two network namespaces.

`unshare -rn python -m tests.links.dead_path --user-timeout 20 --ping 10` prints as JSON after how
many seconds each client was told, and what. Only here do packets really vanish: a relay's kernel
would go on acknowledging them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from tests.canary import TEXT
from tests.worlds import Answer, ask, eventually, http_client
from wsproxy.config import Settings
from wsproxy.daemon import Daemon, loop_factory, running

HERE, THERE = "10.213.0.1", "10.213.0.2"
BASE_URL: Final = f"http://{THERE}:8000/v1"
#: Longer than any path may take to be found dead.
THINK_MS: Final = "600000"

#: The far side: waits to be given its end of the wire, serves, and cuts it when told.
FAR_SIDE: Final = f"""
read given
ip link set lo up
ip address add {THERE}/24 dev far
ip link set far up
"$0" -m wsproxy simulate --listen {THERE}:8000 &
server=$!
read cut
ip link set far down
read end
kill $server
"""


def can_cut_paths() -> bool:
    """Whether this machine lets us have network namespaces of our own."""
    probe = "ip link add near type veth peer name far"
    try:
        ran = subprocess.run(["unshare", "-rn", "sh", "-c", probe], capture_output=True, timeout=10)
    except OSError:
        return False
    return ran.returncode == 0


@asynccontextmanager
async def far_side() -> AsyncIterator[asyncio.StreamWriter]:
    """The upstream in its own namespace; a line written to it cuts the path."""
    far = await asyncio.create_subprocess_exec(
        *["unshare", "-n", "sh", "-c", FAR_SIDE, sys.executable],
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert far.stdin is not None
    assert far.stdout is not None
    try:
        await asyncio.sleep(0.3)  # until it has left our namespace
        lay_wire(far.pid)
        far.stdin.write(b"given\n")
        await asyncio.wait_for(far.stdout.readline(), 20)  # "simulated Responses API at …"
        yield far.stdin
    finally:
        far.stdin.write(b"end\nend\n")
        far.stdin.close()
        await far.wait()


def lay_wire(far_pid: int) -> None:
    """A pair of interfaces, one end of it in the namespace of that process."""
    for command in (
        "ip link set lo up",
        f"ip link add near type veth peer name far netns {far_pid}",
        f"ip address add {HERE}/24 dev near",
        "ip link set near up",
    ):
        subprocess.run(command.split(), check=True)


async def main(user_timeout_s: float, ping_s: float) -> dict[str, Any]:
    """Cut the path under a turn that has started and one that has not."""
    settings = Settings(
        upstream=BASE_URL,
        allow_plain_upstream=True,
        listen=("127.0.0.1:0",),
        tcp_user_timeout_s=user_timeout_s,
        ping_busy_s=ping_s,
        lanes="on",
        trace="off",
    )
    async with far_side() as far, running(settings) as proxy, http_client() as client:
        think = {"sim.think_ms": THINK_MS}
        order = [{"where": "before_first_event", "what": "silence", "canary": "sent"}]
        async with client.post(f"http://{THERE}:8000/_simulator/faults", json=order) as ordered:
            assert ordered.status == 200
        turns = {
            name: asyncio.ensure_future(timed(client, proxy, name, think))
            for name in ("started", "sent")
        }
        await eventually(lambda: are_running(proxy), proxy.driver._core)
        await asyncio.sleep(1.0)  # everything that was sent is acknowledged by now
        cut_at = time.monotonic()
        far.write(b"cut\n")
        told: dict[str, Any] = {}
        for name, turn in turns.items():
            answer, at = await turn
            told[name] = {"after_s": round(at - cut_at, 2), **summary(answer)}
        return told


def are_running(proxy: Daemon) -> bool:
    """Whether one turn has started and the other was sent."""
    phases = sorted(turn.phase.name for turn in proxy.driver._core.turns.values())
    return phases == ["SENT", "STARTED"]


async def timed(
    client: Any, proxy: Daemon, canary: str, metadata: dict[str, str]
) -> tuple[Answer, float]:
    """A turn, and when it ended."""
    body = {
        "model": "sim",
        "store": False,
        "stream": True,
        "input": TEXT,
        "metadata": {"canary": canary, **metadata},
    }
    answer = await ask(client, proxy.base_url, json.dumps(body).encode())
    return answer, time.monotonic()


def summary(answer: Answer) -> dict[str, Any]:
    """Status and code, as a status or in the stream."""
    is_stream = answer.status == 200
    code = answer.events()[-1]["code"] if is_stream else answer.json()["error"]["code"]
    return {"status": answer.status, "code": code, "is_cut": answer.is_cut}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--user-timeout", type=float, default=20.0)
    parser.add_argument("--ping", type=float, default=10.0)
    chosen = parser.parse_args()
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        print(json.dumps(runner.run(main(chosen.user_timeout, chosen.ping))), flush=True)
