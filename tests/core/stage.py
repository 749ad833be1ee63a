"""Turns, frames and expectations for playbooks: real bodies, real event JSON, no sockets."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from tests.canary import TEXT
from tests.core.playbook import Anything, Playbook
from wsproxy.core.api.events import Received
from wsproxy.core.api.request import parse
from wsproxy.core.commands import Finish, OpenConnection, SendTurn
from wsproxy.core.conversation.fields import FieldReader
from wsproxy.core.conversation.history import History
from wsproxy.core.conversation.plan import Route, Why
from wsproxy.core.conversation.transcript import Transcript
from wsproxy.core.events import ConnectionOpened, FrameSent, TurnArrived
from wsproxy.core.ids import ConnectionId, LaneName, PoolKey, SessionName, TurnId
from wsproxy.core.multiplex.beliefs import Chains
from wsproxy.core.multiplex.connection import Lanes
from wsproxy.core.multiplexer import Multiplexer, Options

KEY: Final = PoolKey(b"k" * 32)
OTHER_KEY: Final = PoolKey(b"o" * 32)
ANY: Final[Any] = Anything()
#: The core that was made last, to be looked at when its test is over. It is never told a key, only
#: a digest of one (`KEY`); of what was said it sees digests, too.
LAST: Final[deque[Multiplexer]] = deque(maxlen=1)

Item = dict[str, Any]


def core(*, lanes: Lanes = Lanes.ON, chains: Chains = Chains.PROVEN, **options: Any) -> Multiplexer:
    """A core that believes in lanes and chains, and pings nobody, unless told otherwise."""
    quiet = {"ping_busy_s": 1e9, "ping_idle_s": 1e9, **options}
    LAST.append(Multiplexer(Options(lanes=lanes, chains=chains, **quiet), History()))
    return LAST[-1]


def book(**options: Any) -> Playbook:
    """An empty playbook."""
    return Playbook(core(**options))


# ── Downstream ───────────────────────────────────────────────────────────────────────────────


def user(text: str) -> Item:
    """A user message, with the canary in it."""
    said = f"{text} {TEXT}"
    return {"type": "message", "role": "user", "content": [{"type": "input_text", "text": said}]}


def assistant(text: str) -> Item:
    """An assistant's message, as upstream sends it, with the canary in it, too."""
    part = {"type": "output_text", "text": f"{text} {TEXT}", "annotations": []}
    return {"type": "message", "role": "assistant", "id": f"msg_{text}", "content": [part]}


def arrived(
    turn: str,
    *items: Item,
    session: str | None = "s",
    key: PoolKey = KEY,
    source: str = "session-id",
    is_streaming: bool = True,
    frame_bytes: int | None = None,
    **members: Any,
) -> TurnArrived:
    """A request; without items it says its own name."""
    fields = {"model": "m", "store": False, "input": list(items) or [user(turn)], **members}
    body = json.dumps(fields).encode()
    request = parse(body)
    return TurnArrived(
        turn=TurnId(turn),
        key=key,
        hint=None if session is None else (source, SessionName(session.encode())),
        transcript=Transcript(request),
        fields=FieldReader(()).read(key, request),
        is_streaming=is_streaming,
        own_parent=request.own_parent,
        frame_bytes=len(body) if frame_bytes is None else frame_bytes,
    )


# ── Upstream ─────────────────────────────────────────────────────────────────────────────────


def frame(connection: int, type_: str, lane: str | None = None, **members: Any) -> Told:
    """A message from upstream, read by the connection's own relay."""
    event = {"type": type_, **members, **({} if lane is None else {"stream_id": lane})}
    payload = json.dumps(event).encode()

    def told(book: Playbook) -> None:
        book.core.heard(ConnectionId(connection), book.now)
        relay = book.core.relays[ConnectionId(connection)]
        significant = relay.receive(payload, book.now)
        if significant is not None and not isinstance(significant, Received):
            book.tell(significant)

    return told


Told = Callable[[Playbook], None]


def created(
    connection: int, lane: str | None, id_: str = "resp", parent: str | None = None
) -> Told:
    """The first event of a turn."""
    response = {"id": id_, "previous_response_id": parent}
    return frame(connection, "response.created", lane, sequence_number=0, response=response)


def completed(
    connection: int, lane: str | None, id_: str = "resp", outputs: Sequence[Item] = ()
) -> Told:
    """The output items of a response and its terminal event."""

    def told(book: Playbook) -> None:
        for index, item in enumerate(outputs):
            done = {"output_index": index, "item": item}
            frame(connection, "response.output_item.done", lane, **done)(book)
        response = {"id": id_, "status": "completed", "output": list(outputs)}
        frame(connection, "response.completed", lane, response=response)(book)

    return told


def error(connection: int, lane: str | None, status: int = 400, **fields: Any) -> Told:
    """An error frame."""
    body = {"message": "no", "code": "c", "type": "t", **fields}
    return frame(connection, "error", lane, status=status, error=body)


def passed(seconds: float) -> Told:
    """Time goes by."""
    return lambda book: book.wait(seconds)


def sent(turn: str, connection: int = 1) -> FrameSent:
    """The frame has left."""
    return FrameSent(TurnId(turn), ConnectionId(connection))


def opened(connection: int = 1, jitter_s: float = 0.0) -> ConnectionOpened:
    """The upgrade was accepted."""
    return ConnectionOpened(ConnectionId(connection), jitter_s)


# ── Expectations ─────────────────────────────────────────────────────────────────────────────


def opens(connection: int = 1, key: PoolKey = KEY) -> OpenConnection:
    """A dial."""
    return OpenConnection(ConnectionId(connection), key)


def sends(
    turn: str,
    connection: int = 1,
    lane: str = "l01",
    parent: str | None = None,
    delta_from: int = 0,
    route: Route = Route.FULL,
    why: str | Why | None = ANY,
) -> SendTurn:
    """A turn is sent; why is not compared unless named."""
    reason = Why(why) if isinstance(why, str) else why
    return SendTurn(
        TurnId(turn),
        ConnectionId(connection),
        LaneName(lane),
        parent,
        delta_from,
        route,
        reason,
        ANY,
    )


def finishes(turn: str) -> Finish:
    """The answer is whole."""
    return Finish(TurnId(turn), ANY)


# ── Shortcuts ────────────────────────────────────────────────────────────────────────────────


def started(book: Playbook, *turns: str, connection: int = 1, session: str = "s") -> None:
    """These turns run on one connection, each on a lane of its own, and upstream has begun."""
    placed(book, *turns, connection=connection, session=session)
    for turn in turns:
        book >> sent(turn, connection)
        lane = book.core.turns[TurnId(turn)].lane
        book >> created(connection, lane or None, f"resp_{turn}")
        book.take()


def placed(book: Playbook, *turns: str, connection: int = 1, session: str = "s") -> None:
    """These turns have been handed to one connection; their frames have not left yet."""
    for turn in turns:
        book >> arrived(turn, session=session)
        book.take()
        dialled = book.core.pool.get(ConnectionId(connection))
        if dialled is not None and dialled.state.name == "DIALLING":
            book >> opened(connection)
        book.take()
        assert book.core.turns[TurnId(turn)].connection == connection, repr(book.core)


def finished(book: Playbook, turn: str, *outputs: Item, connection: int = 1) -> None:
    """A running turn completes, and its lane is warm."""
    lane = book.core.turns[TurnId(turn)].lane
    book >> completed(connection, lane or None, f"resp_{turn}", outputs or [assistant(turn)])
    book.take()
