"""What was saved since the start, added up once a turn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from wsproxy.core.accounts import ConnectionChange, TurnAccount
from wsproxy.core.conversation.plan import Route

_CONTINUED: Final = (Route.DELTA, Route.FORK)
#: How a turn ends that its agent can use; an incomplete answer is upstream's own whole one.
_GOOD: Final = frozenset({"completed", "incomplete"})
_LEFT: Final = "client_left"
#: Codes of `ports.RestError` that come before a byte of the request has left.
_NOT_SENT: Final = frozenset({"upstream_unreachable", "upstream_tls", "proxy_overloaded"})


@dataclass(slots=True)
class Tally:
    """A `core.accounts.Tracer` that keeps totals only.

    `bytes_http` is what plain HTTP would have sent up for the same turns (heads and bodies),
    `bytes_up` what was sent: WebSocket messages before compression, requests where a turn went
    over HTTPS; neither counts a turn of which nothing was sent. `failed` turns gave their agent
    an error or half an answer, `refused` ones (by us) among them; `abandoned` ones were left by
    their agent. `handshakes` counts WebSockets that were opened.
    """

    turns: int = 0
    continued: int = 0
    over_https: int = 0
    refused: int = 0
    failed: int = 0
    abandoned: int = 0
    bytes_http: int = 0
    bytes_up: int = 0
    handshakes: int = 0

    def turn_ended(self, account: TurnAccount) -> None:
        """See `core.accounts.Tracer`."""
        self.turns += 1
        self.refused += account.route is Route.NONE
        self.abandoned += account.outcome == _LEFT
        self.failed += account.outcome != _LEFT and account.outcome not in _GOOD
        bytes_http, bytes_up = sent_bytes(account)
        self.continued += account.route in _CONTINUED
        self.over_https += account.route is Route.HTTP and bytes_up > 0
        self.bytes_http += bytes_http
        self.bytes_up += bytes_up

    def connection_changed(self, change: ConnectionChange) -> None:
        """See `core.accounts.Tracer`."""
        self.handshakes += change.change == "opened"


def sent_bytes(account: TurnAccount) -> tuple[int, int]:
    """What plain HTTP would have sent up for a turn, and what was sent; zeros if nothing was."""
    if account.route is Route.HTTP:
        size = 0 if account.code in _NOT_SENT else account.http_bytes
        return size, size
    return (account.http_bytes, account.frame_bytes) if account.frame_bytes else (0, 0)
