"""The simulated service as a server: listener, connections, upgrades."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Final, Self

from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Message,
    Ping,
    Request,
)
from wsproto.utilities import RemoteProtocolError

from wsproxy.simulator.canonical import Item
from wsproxy.simulator.errors import ApiError
from wsproxy.simulator.faults import Fault, Faults
from wsproxy.simulator.http import Exchange, HttpConnection
from wsproxy.simulator.log import Closed, Faulted, Log, Opened
from wsproxy.simulator.rest import Rest, bearer, missing_key
from wsproxy.simulator.rules import Rules
from wsproxy.simulator.turns import Turns
from wsproxy.simulator.websocket import WebSocketConnection
from wsproxy.simulator.wire import GoneError, Wire

_BACKLOG: Final = 1024  # a load test opens many connections at once


class Simulator:
    """An upstream of our own. `async with Simulator(Rules()) as sim: … sim.base_url`.

    `log` holds what happened, `transcripts` the true input items of each response id, `faults`
    the open orders. Raises OSError from `start` when the address cannot be had.
    """

    def __init__(
        self,
        rules: Rules | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        faults: Sequence[Fault | str] = (),
    ) -> None:
        self.rules = rules or Rules()
        self.host = host
        self.port = port
        self.log = Log(self.rules.kept_records)
        self.faults = Faults()
        self.faults.order(*faults)
        self._turns = Turns(self.rules, self.faults, self.log)
        self._rest = Rest(self._turns)
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._count = 0

    @property
    def base_url(self) -> str:
        """What a client uses as its base URL."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}{self.rules.base}"

    @property
    def ws_url(self) -> str:
        """Where WebSockets are opened."""
        return "ws" + self.base_url.removeprefix("http") + "/responses"

    @property
    def transcripts(self) -> dict[str, list[Item]]:
        """Response id → the items the model saw, in the spelling they came in."""
        return self._turns.transcripts

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(
            self._serve, self.host, self.port, backlog=_BACKLOG
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Close the listener and every connection; no task stays behind."""
        if self._server is not None:
            self._server.close()
        await self._rest.stop()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    # -- connections ---------------------------------------------------------------------------

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._count += 1
        peer = _Peer(self, Wire(reader, writer), self._count)
        try:
            await peer.serve()
        except asyncio.CancelledError:
            writer.transport.abort()
        finally:
            self._tasks.discard(task)


class _Peer:
    """One TCP connection."""

    def __init__(self, simulator: Simulator, wire: Wire, connection: int) -> None:
        self._rules = simulator.rules
        self._turns = simulator._turns
        self._rest = simulator._rest
        self._wire = wire
        self._id = connection
        self._is_known = False
        self._via = "http"

    async def serve(self) -> None:
        """Serve the connection to its end."""
        await HttpConnection(self._wire, self._handle).serve()
        if self._is_known and self._via == "http":
            self._turns.log.note(Closed(self._turns.now(), self._id, "http", 1006, "peer"))

    async def _handle(self, exchange: Exchange, trailing: Callable[[], bytes]) -> bool:
        is_upgrade = "websocket" in exchange.header("upgrade").lower()
        if not self._is_known:
            await self._introduce(exchange, is_upgrade)
        if not is_upgrade:
            await self._rest.handle(exchange, self._id)
            return False
        try:
            await self._upgrade(exchange, trailing())
            return True
        except ApiError as error:
            headers = [("connection", "close")]
            if self._rules.retry_after_s and error.status == self._rules.refuse_upgrade:
                headers.append(("retry-after", str(self._rules.retry_after_s)))
            exchange.refuse(error, headers)
            return False

    async def _introduce(self, exchange: Exchange, is_upgrade: bool) -> None:
        self._is_known = True
        self._via = "ws" if is_upgrade else "http"
        if self._rules.handshake_s:
            await asyncio.sleep(self._rules.handshake_s)
        now = self._turns.now()
        opened = Opened(now, self._id, self._via, exchange.target, exchange.headers)
        self._turns.log.note(opened)

    # -- upgrades ------------------------------------------------------------------------------

    async def _upgrade(self, exchange: Exchange, early: bytes) -> None:
        """Serve a WebSocket to its end. Raises `ApiError` where the upgrade is refused."""
        await self._turns.arrival(0)
        await self._handshake_fault(exchange)
        base = self._rules.base.rstrip("/")
        token = bearer(exchange.headers)
        if not token and self._rules.require_key:
            raise missing_key()
        target = exchange.target.encode("latin-1")
        if exchange.path == f"{base}/responses":
            await self._refuse_by_rule()
            peer = WebSocketConnection(self._wire, self._turns, self._id, token)
            await peer.serve(target, exchange.headers, early)
            return
        if exchange.path == f"{base}/realtime":
            await echo(self._wire, target, exchange)
            return
        raise ApiError(f"Invalid URL (GET {exchange.path})", status=404)

    async def _refuse_by_rule(self) -> None:
        if self._rules.hang_upgrade:
            await self._hang()
        if self._rules.refuse_upgrade:
            raise ApiError("The upgrade is refused.", status=self._rules.refuse_upgrade)

    async def _hang(self) -> None:
        await self._wire.wait_peer()
        self._wire.close()

    async def _handshake_fault(self, exchange: Exchange) -> None:
        fault = self._turns.faults.take("handshake", "ws")
        if fault is None:
            return
        now = self._turns.now()
        self._turns.log.note(Faulted(now, self._id, fault.where, fault.what, ""))
        match fault.what:
            case "status":
                status = int(fault.argument)
                headers = {"retry-after": "1"} if status in {429, 503} else None
                raise ApiError("Refused on order.", status=status, headers=headers)
            case "hang":
                await self._hang()
            case "reset":
                await self._wire.reset()
            case _:
                self._wire.close()
        raise GoneError


async def echo(wire: Wire, target: bytes, exchange: Exchange) -> None:
    """An unrelated WebSocket that says back what it hears."""
    ws = WSConnection(ConnectionType.SERVER)
    try:
        ws.initiate_upgrade_connection(list(exchange.headers), target.decode("latin-1"))
        is_open = _answer(wire, ws)
        while is_open and (data := await wire.receive()):
            ws.receive_data(data)
            is_open = _answer(wire, ws)
    except RemoteProtocolError:
        pass
    wire.close()


def _answer(wire: Wire, ws: WSConnection) -> bool:
    for event in ws.events():
        match event:
            case Request():
                wire.write(ws.send(AcceptConnection()))
            case Message():
                kind = BytesMessage if isinstance(event, BytesMessage) else type(event)
                wire.write(ws.send(kind(event.data, message_finished=event.message_finished)))
            case Ping():
                wire.write(ws.send(event.response()))
            case CloseConnection():
                wire.write(ws.send(event.response()))
                return False
    return True
