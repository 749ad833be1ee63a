"""Events of upstream through core and driver, with two clients on one connection.

An input is one message a line. The first client streams, on lane `l01`; the second waits for one
document, on `l02`. Then the connection is lost, and both must have had exactly one honest end.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Sequence
from random import Random
from typing import Final

from tests.fuzz.contract import CANARY, demand, has_canary
from tests.simulation.client import Sink
from wsproxy.answering import OverHttps
from wsproxy.config.settings import Settings
from wsproxy.core.conversation.fields import FieldReader
from wsproxy.core.conversation.history import History
from wsproxy.core.conversation.identity import HeaderClasses, Identities, Patterns
from wsproxy.core.ids import ConnectionId
from wsproxy.core.multiplex.beliefs import Chains
from wsproxy.core.multiplex.connection import Lanes
from wsproxy.core.multiplex.recovery import Fault
from wsproxy.core.multiplexer import Multiplexer, Options
from wsproxy.driver import Driver, DriverOptions
from wsproxy.ports import LinkEvents, Target
from wsproxy.reading import Inbound

#: Terminal events: one of them as the last means that upstream has said so.
TERMINAL: Final = re.compile(r"response\.(completed|incomplete|failed|cancelled|done|error)")
_EVENT: Final = re.compile(r"event: ([A-Za-z0-9_.-]{1,128})\ndata: ([^\r\n]*)\n\n")
_SETTINGS: Final = Settings()
_CLASSES: Final = HeaderClasses(
    identity=Patterns(_SETTINGS.identity_headers),
    session=_SETTINGS.session_headers,
    per_request=Patterns(_SETTINGS.per_request_headers),
    hop_by_hop=Patterns(_SETTINGS.hop_by_hop_headers),
)
_HEADERS: Final = [
    (b"Authorization", b"Bearer " + CANARY.encode()),
    (b"Content-Type", b"application/json"),
    (b"session-id", b"s"),
]


class Wire:
    """A `ports.Dialer` and its only links: what is sent leaves at once, and nothing answers."""

    def __init__(self) -> None:
        self.links: list[OpenLink] = []

    def dial(self, connection: ConnectionId, _target: Target, events: LinkEvents) -> OpenLink:
        """See `ports.Dialer`."""
        link = OpenLink(connection, events)
        self.links.append(link)
        link.later(events.link_opened, connection, (), False)
        return link


class OpenLink:
    """A `ports.Link`."""

    def __init__(self, connection: ConnectionId, events: LinkEvents) -> None:
        self.connection, self.events = connection, events
        self.is_over = False

    def later(self, call: Callable[..., None], *told: object) -> None:
        """Call it in the loop's next turn, unless the link is over by then."""
        asyncio.get_running_loop().call_soon(lambda: self._tell(call, *told))

    def _tell(self, call: Callable[..., None], *told: object) -> None:
        if not self.is_over:
            call(*told)

    def send(self, _payload: bytes, ticket: int) -> None:
        """See `ports.Link`."""
        self.later(self.events.link_sent, self.connection, ticket)

    def ping(self, payload: bytes) -> None:
        """See `ports.Link`."""

    def close(self, _code: int, _reason: str = "") -> None:
        """See `ports.Link`; the driver has forgotten the link, so the end is not told."""
        self.is_over = True

    def abort(self) -> Sequence[int]:
        """See `ports.Link`."""
        self.is_over = True
        return ()

    def lose(self) -> None:
        """The connection is reset."""
        if not self.is_over:
            self.events.link_lost(self.connection, Fault.CONNECTION_RESET, "reset", ())
            self.is_over = True


async def check_answers(raw: bytes) -> None:
    """See the head of this file."""
    wire, core = Wire(), Multiplexer(_options(), History())
    driver = Driver(
        DriverOptions("wss://api.example.com/v1/responses", response_headers=("x-codex-*",)),
        core,
        Identities(_CLASSES, b"a secret"),
        FieldReader(_SETTINGS.changeable_fields),
        wire,
        dice=Random(1),
        clock_gap=lambda: 0.0,
    )
    sinks = [_sink(), _sink()]
    tasks = [asyncio.ensure_future(driver.run(_body(n), sink)) for n, sink in enumerate(sinks)]
    await _settled()
    for message in raw.split(b"\n"):
        if not wire.links[0].is_over and _is_utf8(message):
            wire.links[0].events.link_received(ConnectionId(1), [message])
    await _settled()
    for link in wire.links:  # a turn that was sent again has a link of its own by now
        link.lose()
        await _settled()
    ends = await asyncio.wait_for(asyncio.gather(*tasks), timeout=5)
    driver.close()
    demand(not core.turns and not core.waiting and not driver.running_count, "left", core)
    for sink, end in zip(sinks, ends, strict=True):
        _check_end(sink, end, raw)


def _options() -> Options:
    return Options(lanes=Lanes.ON, chains=Chains.REFUTED)


def _sink() -> Sink:
    return Sink(lambda: 0.0, 0.0)


def _body(number: int) -> Inbound:
    body = {"model": "m", "input": f"turn {number}", "stream": not number, "store": False}
    return Inbound(_HEADERS, "", json.dumps(body).encode())


async def _settled() -> None:
    for _ in range(6):
        await asyncio.sleep(0)


def _is_utf8(message: bytes) -> bool:
    try:
        message.decode()
    except UnicodeDecodeError:
        return False
    return True


def _check_end(sink: Sink, end: OverHttps | None, raw: bytes) -> None:
    if end is not None:
        demand(not sink.is_started, "over HTTPS after it began")
        return
    demand(sink.ending in ("finished", "responded", "aborted"), "no end", sink)
    demand(not has_canary(bytes(sink.written)), "the key is told")
    content_type = sink.headers.get(b"content-type", b"")
    if sink.ending == "responded":
        json.loads(sink.written)
        demand(
            sink.status == 200 or b'"error"' in sink.written,
            "a refusal without an error",
            sink.written,
        )
    else:
        demand(content_type.startswith(b"text/event-stream"), "no stream", content_type)
        check_stream(sink.written.decode(), is_cut=sink.ending == "aborted", said=raw)


def check_stream(text: str, *, is_cut: bool, said: bytes | None) -> None:
    """A streamed answer: whole events, and a last one that upstream said or that tells the cut."""
    found = _EVENT.findall(text)
    demand("".join(f"event: {name}\ndata: {told}\n\n" for name, told in found) == text, text)
    demand(bool(found), "a stream without an event")
    last = found[-1][0]
    names = [name for name, _ in found]
    is_ended = TERMINAL.fullmatch(last) is not None
    demand(is_ended or last == "error", "ended with", last)
    demand(not (is_ended and is_cut), "cut though it was whole")
    demand(
        not is_ended or said is None or last.encode() in said, "an end that upstream did not say"
    )
    demand(not any(TERMINAL.fullmatch(name) for name in names[:-1]), "events behind the end")
    _check_numbers([told for _, told in found])


def _check_numbers(told: Sequence[str]) -> None:
    events = [json.loads(each) for each in told]
    numbers = [event["sequence_number"] for event in events if "sequence_number" in event]
    demand(numbers == list(range(len(numbers))), "numbered", numbers)
