"""Numbers of turns and connections for Prometheus, counted once each when they are over.

Labels come from closed lists of ours (routes, outcomes, reasons, rows of the fault table), never
from what a client or upstream wrote, so the number of series is bounded.
"""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram

from wsproxy.core.accounts import ConnectionChange, TurnAccount

#: Seconds. Models answer within 0.2 to 60 s; the long end is reasoning.
_TURN_S: Final = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 60, 120, 300, 600, 1800)
#: Seconds. Our own share is well below a millisecond; a handshake is 0.1 to 1 s.
_OWN_S: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1, 3)
#: Labels are texts of ours; a longer one would be a mistake, and is cut.
_LABEL_CHARS: Final = 48


class TurnNumbers:
    """A `core.accounts.Tracer` that counts. Nothing here is called once an event."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"wsproxy_{name}", text, labels, registry=registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(f"wsproxy_{name}", text, labels, buckets=buckets, registry=registry)

        self._turns = counter("turns", "Turns that ended.", "route", "outcome")
        self._reasons = counter("turn_reasons", "Why turns were not continued.", "route", "reason")
        self._first_event_s = histogram(
            "first_event_seconds",
            "From the request's last byte to the first event.",
            _TURN_S,
            "route",
        )
        self._turn_s = histogram(
            "turn_seconds", "From the request's last byte to the answer's last.", _TURN_S, "route"
        )
        self._overhead_s = histogram(
            "overhead_seconds",
            "Time of ours before a turn's frame has left, waiting left out.",
            _OWN_S,
        )
        self._queue_s = histogram(
            "queue_seconds", "Time a turn waited for a connection and a lane.", _OWN_S
        )
        self._http_bytes = counter("http_bytes", "Bytes that plain HTTP would have sent up.")
        self._up_bytes = counter("up_bytes", "Bytes sent up, before compression.")
        self._saved_bytes = counter("saved_bytes", "Bytes that were not sent up again.")
        self._down_bytes = counter("down_bytes", "Bytes of events received.")
        self._events = counter("events", "Events received.")
        self._resends = counter("resends", "Times a turn was sent again, unseen by its client.")
        self._faults = counter("faults", "Faults met, by row of docs/guarantees.md.", "fault")
        self._connections = counter(
            "connection_changes", "Upstream WebSockets by what became of them.", "change"
        )
        self._handshake_s = histogram(
            "handshake_seconds", "From dial to 101.", (*_OWN_S[6:], 10.0, 15.0)
        )

    def turn_ended(self, account: TurnAccount) -> None:
        """See `core.accounts.Tracer`."""
        route = account.route.value
        self._turns.labels(route, _label(account.outcome)).inc()
        if account.why is not None:
            self._reasons.labels(route, _label(account.why.reason)).inc()
        for fault in account.faults:
            self._faults.labels(_label(fault)).inc()
        self._times(account, route)
        self._bytes(account)

    def _times(self, account: TurnAccount, route: str) -> None:
        if account.done is not None:
            self._turn_s.labels(route).observe(account.done - account.received)
        if account.first_event is not None:
            self._first_event_s.labels(route).observe(account.first_event - account.received)
        matched, placed, sent = account.matched, account.placed, account.sent
        if matched is not None and placed is not None:
            self._queue_s.observe(max(0.0, placed - matched))
            if sent is not None:
                own_s = (matched - account.received) + max(0.0, sent - placed)
                self._overhead_s.observe(own_s)

    def _bytes(self, account: TurnAccount) -> None:
        over_http, up = account.sent_bytes()
        self._http_bytes.inc(over_http)
        self._up_bytes.inc(up)
        self._saved_bytes.inc(max(0, over_http - up))
        self._down_bytes.inc(account.down_bytes)
        self._events.inc(account.event_count)
        self._resends.inc(max(0, account.sends - 1))

    def connection_changed(self, change: ConnectionChange) -> None:
        """See `core.accounts.Tracer`."""
        self._connections.labels(_label(change.change)).inc()
        if change.fault:
            self._faults.labels(_label(change.fault)).inc()
        if change.change == "opened":
            self._handshake_s.observe(change.took_s)


def _label(text: str) -> str:
    return text[:_LABEL_CHARS] or "none"
