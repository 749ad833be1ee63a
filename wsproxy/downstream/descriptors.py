"""How many file descriptors this process may have, and how near it is to that (faults.md F46)."""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import Final

#: The last ones are not for clients: dials, the journal's next file and DNS still need some.
RESERVE: Final = 16
#: Our own at rest: standard streams, event loop, listeners, journal, resolver; seen: 17.
_OWN: Final = 32


def limit() -> int | None:
    """How many there may be now; None where nobody says so (Windows, no limit)."""
    with suppress(ImportError):
        import resource

        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return None if soft == resource.RLIM_INFINITY else soft
    return None


def wanted(max_downstream_connections: int, max_connections: int) -> int:
    """As many as our own limits can use: each request may have one more to upstream."""
    return 2 * max_downstream_connections + max_connections + _OWN + 2 * RESERVE


def raise_limit(count: int) -> int:
    """Let there be so many, if that is allowed; how many there may be now, `count` if no limit.

    A soft limit below what our own limits may use is the first to be met (macOS: 256).
    """
    with suppress(ImportError, OSError, ValueError):
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        allowed = count if hard == resource.RLIM_INFINITY else min(count, hard)
        if soft != resource.RLIM_INFINITY and soft < allowed:
            resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    most = limit()
    return count if most is None else most


def left_above(sock: socket.socket | None) -> int | None:
    """How many are left, told by one that was opened just now; None if there is no limit.

    A new one has the lowest free number (POSIX), so all below it are taken.
    """
    most = limit()
    number = -1 if sock is None else sock.fileno()
    return None if most is None or number < 0 else most - 1 - number
