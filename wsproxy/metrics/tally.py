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
        bytes_http, bytes_up = account.sent_bytes()
        self.continued += account.route in _CONTINUED
        self.over_https += account.route is Route.HTTP and bytes_up > 0
        self.bytes_http += bytes_http
        self.bytes_up += bytes_up

    def connection_changed(self, change: ConnectionChange) -> None:
        """See `core.accounts.Tracer`."""
        self.handshakes += change.change == "opened"
