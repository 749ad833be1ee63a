"""From the driver's accounts to the journal's records. The work is done by the writer's thread."""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from typing import Any, Final

import msgspec

from wsproxy.core.accounts import ConnectionChange, TurnAccount
from wsproxy.core.api.contents import usage
from wsproxy.core.conversation.plan import Route, safe
from wsproxy.core.multiplexer import Multiplexer
from wsproxy.trace.bodies import bodies_of
from wsproxy.trace.doors import DoorRecorder
from wsproxy.trace.journal import Journal
from wsproxy.trace.keyed import Keyed
from wsproxy.trace.record import ConnectionRecord, Phases, Record, Run, TurnRecord


class Recorder:
    """Implements `core.accounts.Tracer`: each call is one entry in the journal's queue."""

    def __init__(
        self,
        journal: Journal,
        open_names: Callable[[], Keyed],
        *,
        upstream: str = "",
        has_bodies: bool = False,
    ) -> None:
        """`open_names` is called by the writer's thread, once the journal's file is open."""
        self._open_names = open_names
        self.names: Keyed | None = None  # until the first turn is written
        self._has_bodies = has_bodies
        self._run = secrets.token_hex(4)
        self.journal = journal
        self.journal.put(
            lambda: [Run(self._run, time.time(), version("wsproxy"), upstream, os.getpid())]
        )

    def start(self) -> None:
        """Begin to write; what was told before waits until then."""
        self.journal.start()

    def __repr__(self) -> str:
        return f"<Recorder {self.journal.written} written, {self.journal.dropped} dropped>"

    def doors(self, core: Multiplexer, history: Mapping[str, Any]) -> DoorRecorder:
        """What records the doors of this core, so that `wsproxy trace replay` can run it again.

        `history`: the arguments that its history was made with.
        """
        return DoorRecorder(core, history, self.journal, self._run, self._names)

    async def close(self) -> None:
        """Write what is queued and sync it."""
        await asyncio.get_running_loop().run_in_executor(None, self.journal.close)

    # ── core.accounts.Tracer ─────────────────────────────────────────────────────────────────

    def turn_ended(self, account: TurnAccount) -> None:
        """See `core.accounts.Tracer`."""
        held = len(account.terminal)
        if self._has_bodies:
            held += account.http_bytes + account.down_bytes
        else:
            account.request, account.headers, account.outputs = None, (), ()
        self.journal.put(partial(self._turn, account, wall_clock(account)), held)

    def connection_changed(self, change: ConnectionChange) -> None:
        """See `core.accounts.Tracer`."""
        self.journal.put(partial(self._connection, change, time.time()))

    # ── The writer's thread ──────────────────────────────────────────────────────────────────

    def _names(self) -> Keyed:
        if self.names is None:
            self.names = self._open_names()
        return self.names

    def _turn(self, account: TurnAccount, at: float) -> Sequence[Record]:
        names = self._names()
        record = turn_record(account, at, names, self._run)
        if not self._has_bodies:
            return [record]
        bodies, contents = bodies_of(account, names)
        return [*contents, msgspec.structs.replace(record, bodies=bodies)]

    def _connection(self, change: ConnectionChange, at: float) -> Sequence[Record]:
        return [
            ConnectionRecord(
                run=self._run,
                at=at,
                connection=change.connection,
                key=self._names().short(change.key),
                change=change.change,
                took_s=change.took_s,
                is_compressed=change.is_compressed,
                fault=change.fault,
                status=change.status,
            )
        ]


def wall_clock(account: TurnAccount) -> float:
    """When a turn that is just over was received, in seconds of Unix."""
    return time.time() - (account.done or account.received) + account.received


def turn_record(account: TurnAccount, at: float, keyed: Keyed, run: str) -> TurnRecord:
    """What is written of a turn that is over."""
    tokens = usage(account.terminal) if account.terminal else None
    is_websocket = account.route is not Route.HTTP
    bytes_http, bytes_up = account.sent_bytes()
    return TurnRecord(
        turn=account.id,
        run=run,
        at=at,
        key=keyed.short(account.key),
        session=keyed.short(account.key, account.session),
        hint=account.hint,
        conversation=account.conversation,
        connection=account.connection if is_websocket else None,
        lane=account.lane if is_websocket else "",
        route=account.route.value,
        reason=account.why.reason if account.why else "",
        about=dict(account.why.about) if account.why else {},
        transport="websocket" if is_websocket else "https",
        is_compressed=account.is_compressed and is_websocket,
        is_streaming=account.is_streaming,
        phases=_phases(account),
        status=account.status,
        outcome=account.outcome,
        code=safe(account.code),
        model=_model(account.model),
        items=account.item_count,
        items_sent=account.item_count - account.delta_from,
        bytes_http=bytes_http,
        bytes_up=bytes_up,
        bytes_down=account.down_bytes,
        events=account.event_count,
        tokens_in=tokens.input_tokens if tokens else None,
        tokens_cached=tokens.cached_tokens if tokens else None,
        tokens_out=tokens.output_tokens if tokens else None,
        retries=max(0, account.sends - 1),
        faults=list(account.faults),
    )


#: What names of models are made of; they are the client's word, so nothing else is written.
_NO_MODEL: Final = re.compile(r"[^A-Za-z0-9_./:@-]")


def _model(raw: bytes) -> str:
    if not raw.startswith(b'"'):  # anything but a string is no name, and may hold what users said
        return ""
    return _NO_MODEL.sub("?", raw.strip(b'"').decode("utf-8", "replace"))[:64]


def _phases(account: TurnAccount) -> Phases:
    def since(at: float | None) -> float | None:
        return None if at is None else round(at - account.received, 6)

    return Phases(
        matched=since(account.matched),
        placed=since(account.placed),
        sent=since(account.sent) if account.sent_bytes()[1] else None,
        first_event=since(account.first_event),
        first_output=since(account.first_output),
        done=since(account.done),
    )
