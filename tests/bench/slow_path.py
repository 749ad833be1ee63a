"""A path between two network namespaces that takes its time: packets wait here, in user space.

    python -m tests.bench.slow_path --far-pid PID --delay-s 0.02 --uplink-bytes-per-s 2500000

Two tun interfaces, `near` here and `far` in the namespace of that process. Each packet arrives
after the delay; those from near to far leave one after another at the rate of the uplink (0: all
at once). Nothing is lost and the queue has no end: what TCP makes of delay and rate is the kernel's
own doing. Needs no qdisc of the kernel, which may lack netem.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import select
import struct
import subprocess
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Final

NEAR, FAR = "10.214.0.1", "10.214.0.2"
#: linux/if_tun.h
_TUNSETIFF: Final = 0x400454CA
_IFF_TUN_WITHOUT_HEADER: Final = 0x1001
_PACKET_BYTES: Final = 65_536


@dataclass(slots=True)
class Direction:
    """Packets on their way from one interface to the other, in order."""

    source: int
    sink: int
    delay_s: float
    bytes_per_s: float
    _free_at: float = 0.0
    _waiting: deque[tuple[float, bytes]] = field(default_factory=deque)

    def take(self) -> None:
        """Read what is there."""
        while True:
            try:
                packet = os.read(self.source, _PACKET_BYTES)
            except BlockingIOError:
                return
            self._free_at = max(time.monotonic(), self._free_at)
            if self.bytes_per_s:
                self._free_at += len(packet) / self.bytes_per_s
            self._waiting.append((self._free_at + self.delay_s, packet))

    def give(self) -> float | None:
        """Write what has arrived; seconds until the next one does."""
        while self._waiting:
            wait_s = self._waiting[0][0] - time.monotonic()
            if wait_s > 0:
                return wait_s
            packet = self._waiting.popleft()[1]
            with contextlib.suppress(OSError):  # EIO while the far interface is not up yet
                os.write(self.sink, packet)
        return None


def tun(name: str) -> int:
    """Open an interface of that name, made for it."""
    interface = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(interface, _TUNSETIFF, struct.pack("16sH", name.encode(), _IFF_TUN_WITHOUT_HEADER))
    return interface


def main(far_pid: int, delay_s: float, uplink_bytes_per_s: float) -> None:
    """Lay the path, say so, and carry packets until killed."""
    near, far = tun("near"), tun("far")
    for command in (
        f"ip link set far netns {far_pid}",
        "ip link set lo up",
        f"ip address add {NEAR}/24 dev near",
        "ip link set near up",
    ):
        subprocess.run(command.split(), check=True)
    print("laid", flush=True)
    ways = Direction(near, far, delay_s, uplink_bytes_per_s), Direction(far, near, delay_s, 0.0)
    while True:
        waits = [wait_s for way in ways if (wait_s := way.give()) is not None]
        readable, _, _ = select.select([near, far], [], [], min(waits, default=None))
        for way in ways:
            if way.source in readable:
                way.take()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--far-pid", type=int, required=True)
    parser.add_argument("--delay-s", type=float, default=0.0, help="one way")
    parser.add_argument("--uplink-bytes-per-s", type=float, default=0.0)
    chosen = parser.parse_args()
    main(chosen.far_pid, chosen.delay_s, chosen.uplink_bytes_per_s)
