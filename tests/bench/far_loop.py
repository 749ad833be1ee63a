"""The agent loop against an upstream in another network namespace, at the end of a slow path.

    unshare -rn python -m tests.bench.far_loop [--calls 20] [--without COST]

Round trip and uplink are those of real packets and TLS is real; only the model's costs (uncached
tokens, tokens/s) are the simulator's waiting. Prints seconds of both roads as JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Final

from openai import DefaultHttpxClient

from tests.bench.agent_loop import COSTS, without
from tests.bench.authority import Authority, authority
from tests.bench.slow_path import FAR
from wsproxy.demo import agent, children
from wsproxy.demo.costs import Costs

_PORT: Final = 8443
#: Waits to be given its end of the path, serves, and ends with its stdin.
_FAR_SIDE: Final = f"""
read given
ip link set lo up
ip address add {FAR}/24 dev far
ip link set far up
"$0" -m wsproxy.simulator --listen 127.0.0.1:8000 $1 &
simulator=$!
"$0" -m tests.bench.raw_relay http://127.0.0.1:8000/v1 --listen {FAR}:{_PORT} $2 &
front=$!
read end
kill $simulator $front
"""
_STOP_TIMEOUT_S: Final = 5.0
#: Both roads together take a quarter of a minute.
_PATIENCE_S: Final = 150


@contextlib.contextmanager
def far_side(costs: Costs, trusted: Authority) -> Iterator[str]:
    """Upstream at the end of its path; yields its base URL."""
    # What the path and TLS cost by themselves, the simulator must not wait for once more.
    served = Costs(uncached_token_s=costs.uncached_token_s, tokens_per_s=costs.tokens_per_s)
    tls = f"--tls={trusted.server_file}" if costs.handshake_s else ""
    shell = ["sh", "-c", _FAR_SIDE, sys.executable, " ".join(served.flags()), tls]
    with _running(["unshare", "-n", *shell]) as far:
        assert far.stdin is not None
        assert far.stdout is not None
        _await_own_network(far.pid)
        with _path(far.pid, costs):
            far.stdin.write("given\n")
            far.stdin.flush()
            for _ in range(2):  # both processes say where they listen
                assert "http" in far.stdout.readline(), "the far side did not start"
            yield f"{'https' if tls else 'http'}://{FAR}:{_PORT}/v1"
            far.stdin.write("end\n")


def _await_own_network(pid: int) -> None:
    own = Path("/proc/self/ns/net").readlink()
    give_up = time.monotonic() + _STOP_TIMEOUT_S
    while Path(f"/proc/{pid}/ns/net").readlink() == own:
        assert time.monotonic() < give_up, "no second network namespace"
        time.sleep(0.02)


@contextlib.contextmanager
def _path(far_pid: int, costs: Costs) -> Iterator[None]:
    flags = [
        f"--far-pid={far_pid}",
        f"--delay-s={costs.round_trip_s / 2}",
        f"--uplink-bytes-per-s={costs.uplink_bytes_per_s}",
    ]
    with _running([sys.executable, "-m", "tests.bench.slow_path", *flags]) as path:
        assert path.stdout is not None
        assert path.stdout.readline() == "laid\n", "the path could not be laid"
        try:
            yield
        finally:
            path.kill()


@contextlib.contextmanager
def _running(command: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        try:
            yield child
        finally:
            assert child.stdin is not None
            child.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(_STOP_TIMEOUT_S)
            child.kill()


def main(calls: int, name: str) -> dict[str, float]:
    """Seconds of each road."""
    costs = without(name)
    with authority(FAR) as trusted, far_side(costs, trusted) as upstream:
        context = ssl.create_default_context(cafile=str(trusted.ca_file))
        # The demo's agent trusts what httpx brings along; this one trusts the run's own authority.
        agent.DefaultHttpxClient = partial(  # type: ignore[attr-defined, assignment]
            DefaultHttpxClient, verify=context
        )
        flags = ["--set", f"upstream_ca_file={trusted.ca_file}"]
        if not costs.handshake_s:
            flags = ["--set", "allow_plain_upstream=true"]
        with children.proxy(upstream, *flags) as through:
            agent.run_loop(upstream, 1, lambda: None)  # the SDK's first call builds its types
            direct = agent.run_loop(upstream, calls, lambda: None)
            carried = agent.run_loop(through, calls, lambda: None)
        assert direct.digest() == carried.digest(), "the answers differ"
    return {"direct_s": direct.wall_s, "through_s": carried.wall_s}


def _give_up(_number: int, _frame: FrameType | None) -> None:
    raise TimeoutError(f"no end of the loop after {_PATIENCE_S} s")  # and the children end too


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=20)
    parser.add_argument("--without", default="", choices=["", *COSTS], help="a cost that is off")
    chosen = parser.parse_args()
    signal.signal(signal.SIGALRM, _give_up)
    signal.alarm(_PATIENCE_S)
    print(json.dumps(main(chosen.calls, chosen.without)))
