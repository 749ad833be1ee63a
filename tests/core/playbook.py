"""A script of the core: `>>` tells it an event, `<<` expects a command; notes are not compared.

    with Playbook(core) as book:
        book >> arrived("t1") << OpenConnection(ConnectionId(1), KEY)

A difference fails with both sides; so does a book that is closed while something is unexpected.
"""

from __future__ import annotations

from collections.abc import Callable
from difflib import ndiff
from types import TracebackType

from tests.canary import WATCH
from wsproxy.core.commands import AbortConnection, Command, Note
from wsproxy.core.events import ConnectionAborted, Event, Tick
from wsproxy.core.ids import ConnectionId, TurnId
from wsproxy.core.multiplexer import Multiplexer

#: What is told: an event, or something that makes it when its time has come (a frame, a wait).
Told = Event | Callable[["Playbook"], None]


class Anything:
    """Equal to whatever it is compared with: a part that the test does not speak of."""

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return "…"


class Playbook:
    """Drives one `Multiplexer`; `now` is its clock."""

    def __init__(self, core: Multiplexer, now: float = 1000.0) -> None:
        self.core, self.now = core, now
        self.notes: list[Note] = []
        self.begun: set[TurnId] = set()  # of their frames something has left already
        self._got: list[Command] = []
        self._expected: list[Command] = []

    def __enter__(self) -> Playbook:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        if error is None:
            self._compare()

    def __rshift__(self, told: Told) -> Playbook:
        self._compare()
        if callable(told):
            told(self)
        else:
            self.tell(told)
        return self

    def __lshift__(self, expected: Command) -> Playbook:
        self._expected.append(expected)
        return self

    def tell(self, event: Event) -> None:
        """Let the core handle it; its commands are gathered."""
        commands = self.core.handle(event, self.now)
        WATCH.look("an event and its commands", f"{event} {commands}")
        for command in commands:
            if isinstance(command, Note):
                self.notes.append(command)
            else:
                self._got.append(command)
        for command in commands:
            if isinstance(command, AbortConnection):
                self._aborted(command.connection)

    def _aborted(self, connection: ConnectionId) -> None:
        """As the driver does: what had not left is told at once."""
        turns = [turn for turn in self.core.turns.values() if turn.connection == connection]
        unsent = [turn.id for turn in turns if turn.id not in self.begun]
        if turns:
            self.tell(ConnectionAborted(connection, unsent))

    def wait(self, seconds: float) -> None:
        """Let time pass; every alarm rings when it is due."""
        until = self.now + seconds
        while (at := self.core.next_alarm()) is not None and at <= until:
            self.now = max(self.now, at)
            self.tell(Tick())
        self.now = until

    def take(self) -> list[Command]:
        """What came since the last `>>`, uncompared."""
        got, self._got = self._got, []
        return got

    def _compare(self) -> None:
        got, expected = self.take(), self._expected
        self._expected = []
        if got != expected:
            lines = ndiff([f"{c}\n" for c in expected], [f"{c}\n" for c in got])
            raise AssertionError("expected (-), got (+):\n" + "".join(lines) + repr(self.core))
