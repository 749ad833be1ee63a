"""Faults on order: where, what, how often, and for whom.

A plan only says which fault is due; the transports perform it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

#: Place → what can be ordered there. `name=` takes an argument.
MENU: Final[dict[str, frozenset[str]]] = {
    "handshake": frozenset({"status", "hang", "reset", "eof"}),
    "before_first_event": frozenset(),
    "mid_stream": frozenset(),
    "after_terminal": frozenset(),
}
#: Orders of the other three places.
IN_TURN: Final = frozenset(
    {
        "reset",  # RST
        "eof",  # FIN without a close frame or last chunk
        "close",  # =code, a close frame
        "silence",  # this turn says nothing more; pings are answered
        "freeze",  # the connection neither reads nor writes any more
        "cut",  # half a frame, then FIN
        "garbage",  # =json | object | type | untyped | utf8 | binary | frame | rsv | masked
        "wrong_lane",  # an event on a lane nobody named
        "no_lane",  # an event of a named lane without its name
        "unknown_event",  # an event type nobody has heard of
        "late_event",  # an event of the lane's last response, out of its time
        "sequence_gap",  # a sequence number is left out
        "error",  # =code, request-scoped
        "connection_error",  # =code, without stream_id, then close
        "big",  # =bytes, one event of that size
    }
)
GARBAGE: Final = frozenset(
    {"json", "object", "type", "untyped", "utf8", "binary", "frame", "rsv", "masked"}
)
_NEEDS_ARGUMENT: Final = {"status", "close", "garbage", "error", "connection_error", "big"}
_NUMBERS: Final = {"status", "close", "big"}
FOREVER: Final = -1


class FaultError(ValueError):
    """An order that is not on the menu; the message says what is."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One order. `count` -1 is for ever; `after` is the number of events before a mid-stream one
    (-1: half of them); `over` says on which transport."""

    where: str
    what: str
    argument: str = ""
    count: int = 1
    canary: str | None = None
    over: str = "ws"  # "ws" | "http" | "any"
    after: int = -1

    def __post_init__(self) -> None:
        if self.where not in MENU:
            raise FaultError(f"no such place {self.where!r}: choose from {', '.join(MENU)}")
        allowed = MENU[self.where] or IN_TURN
        if self.what not in allowed:
            choice = ", ".join(sorted(allowed))
            raise FaultError(f"no such fault {self.what!r} at {self.where}: choose from {choice}")
        if self.what in _NEEDS_ARGUMENT and not self.argument:
            raise FaultError(f"{self.what} needs an argument: {self.what}=…")
        if self.what in _NUMBERS and not self.argument.isdecimal():
            raise FaultError(f"{self.what} needs a number, not {self.argument!r}")
        if self.what == "garbage" and self.argument not in GARBAGE:
            choice = ", ".join(sorted(GARBAGE))
            raise FaultError(f"no such garbage {self.argument!r}: choose from {choice}")
        if self.over not in {"ws", "http", "any"}:
            raise FaultError(f"no such transport {self.over!r}: ws, http or any")


def parse_fault(text: str) -> Fault:
    """Read `WHERE:WHAT[=ARGUMENT][:COUNT]`."""
    where, _, rest = text.partition(":")
    what, _, count = rest.partition(":")
    name, _, argument = what.partition("=")
    try:
        times = int(count) if count else 1
    except ValueError:
        raise FaultError(f"the count of {text!r} is not a number") from None
    return Fault(where, name, argument, times)


def fault_from_json(order: Any) -> Fault:
    """Read one order of `POST /_simulator/faults`: a string, or an object of Fault's members."""
    if isinstance(order, str):
        return parse_fault(order)
    if not isinstance(order, dict):
        raise FaultError("an order is a string or an object")
    try:
        name, _, argument = str(order.get("what", "")).partition("=")
        return Fault(**{**order, "what": name, "argument": str(order.get("argument", argument))})
    except TypeError as error:
        raise FaultError(str(error)) from None


class Faults:
    """The orders still open, served in the order they were given."""

    def __init__(self, orders: Sequence[Fault] = ()) -> None:
        self._orders = list(orders)

    def __len__(self) -> int:
        return len(self._orders)

    def order(self, *orders: Fault | str) -> None:
        """Add orders; a string is read by `parse_fault`."""
        for order in orders:
            self._orders.append(parse_fault(order) if isinstance(order, str) else order)

    def clear(self) -> None:
        """Forget every open order."""
        self._orders.clear()

    def take(self, where: str, via: str, canary: str = "") -> Fault | None:
        """The fault that is due here and now, counted down; None if there is none."""
        for index, order in enumerate(self._orders):
            if order.where != where or order.over not in {via, "any"}:
                continue
            if order.canary is not None and order.canary != canary:
                continue
            self._count_down(index, order)
            return order
        return None

    def _count_down(self, index: int, order: Fault) -> None:
        if order.count == 1:
            del self._orders[index]
        elif order.count != FOREVER:
            self._orders[index] = replace(order, count=order.count - 1)
