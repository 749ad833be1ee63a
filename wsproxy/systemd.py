"""Telling systemd how far the daemon is: `sd_notify(3)`, one datagram to `NOTIFY_SOCKET`."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from typing import Final

READY: Final = "READY=1"
STOPPING: Final = "STOPPING=1"


def notify(*states: str, environment: Mapping[str, str] = os.environ) -> bool:
    """Send these states; whether somebody took them.

    Without systemd, or where it cannot be reached, nothing happens: a daemon runs all the same.
    """
    address = environment.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")) or not hasattr(socket, "AF_UNIX"):
        return False
    if address.startswith("@"):  # Linux's abstract namespace
        address = f"\0{address[1:]}"
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.connect(address)
            sock.send("\n".join(states).encode())
    except OSError:
        return False
    return True
