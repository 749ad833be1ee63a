"""What was saved since the start, added up once a turn."""

from __future__ import annotations

from dataclasses import dataclass

from wsproxy.core.accounts import ConnectionChange, TurnAccount
from wsproxy.core.conversation.plan import Route

_CONTINUED = (Route.DELTA, Route.FORK)


@dataclass(slots=True)
class Tally:
    """A `core.accounts.Tracer` that keeps totals only.

    `bytes_http` is what plain HTTP would have sent up for the same turns (heads and bodies),
    `bytes_up` what was sent: WebSocket messages before compression, requests where a turn went
    over HTTPS. `handshakes` counts WebSockets that were opened.
    """

    turns: int = 0
    continued: int = 0
    over_https: int = 0
    refused: int = 0
    bytes_http: int = 0
    bytes_up: int = 0
    handshakes: int = 0

    def turn_ended(self, account: TurnAccount) -> None:
        """See `core.accounts.Tracer`."""
        self.turns += 1
        if account.route is Route.NONE:
            self.refused += 1
            return
        is_https = account.route is Route.HTTP
        self.continued += account.route in _CONTINUED
        self.over_https += is_https
        self.bytes_http += account.http_bytes
        self.bytes_up += account.http_bytes if is_https else account.frame_bytes

    def connection_changed(self, change: ConnectionChange) -> None:
        """See `core.accounts.Tracer`."""
        self.handshakes += change.change == "opened"
