"""A TCP proxy that is slow, cuts, resets or delivers nothing, and that stops a process at a step of the protocol.

Own code instead of Toxiproxy, because that does not know the steps of NATS and PostgreSQL and is not a Python package.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from tests.chaos.protocols import NatsCommands, Parser, PostgresRequests

_PARSERS: dict[str, type[NatsCommands | PostgresRequests]] = {"nats": NatsCommands, "postgres": PostgresRequests}
_CHUNK = 64 * 1024
_ARRIVAL = 0.05
_ERRORS = (OSError, asyncio.IncompleteReadError)


class Mode(StrEnum):
    """What the proxy does with bytes and connections."""

    OPEN = "open"
    SLOW = "slow"
    """Each part of the data is delayed."""
    CUT = "cut"
    """Connections are closed; new ones are refused."""
    HALF_OPEN = "half-open"
    """Connections are accepted and kept, and nothing is delivered, as after the loss of a route."""


@dataclass
class StopPoint:
    """A step of the protocol at which ``stop`` is called: the ``number``-th step whose description matches.

    ``delivered``: whether the server gets the step; its response is never delivered.
    """

    pattern: str
    number: int
    delivered: bool
    stop: Callable[[], None]
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    _seen: int = 0

    def matches(self, step: str) -> bool:
        """Count the step, and return whether it is the one."""
        if self.reached.is_set() or not re.search(self.pattern, step):
            return False
        self._seen += 1
        return self._seen == self.number


class Proxy:
    """Forwards connections on ``port`` to ``target`` on loopback. ``protocol`` is "nats" or "postgres"."""

    def __init__(self, protocol: str, target: int) -> None:
        self.protocol, self.target = protocol, target
        self.port = 0
        self.mode = Mode.OPEN
        self.delay = 0.1
        self.stop_point: StopPoint | None = None
        self.disturbed = asyncio.Lock()
        """Held by the fault of this link: one at a time."""
        self.steps: list[str] | None = None
        """Descriptions of the steps seen, if set to a list."""
        self._server: asyncio.Server | None = None
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._connections: set[_Connection] = set()

    async def start(self) -> None:
        """Listen, on the same port as before if there is one."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Stop listening and close all connections."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.reset()
        self._flowing.set()
        async with asyncio.timeout(10):
            while self._connections:
                await asyncio.sleep(0.01)

    async def change(self, mode: Mode, delay: float = 0.1) -> None:
        """Change the mode."""
        self.mode, self.delay = mode, delay
        if mode is Mode.HALF_OPEN:
            self._flowing.clear()
        else:
            self._flowing.set()
        if mode is Mode.CUT and self._server is not None:
            self._server.close()
            self._server = None
            self.reset()
        elif mode is not Mode.CUT and self._server is None:
            await self.start()

    def reset(self) -> None:
        """Reset (RST) all connections; new ones are accepted."""
        for each in list(self._connections):
            each.reset()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Connection(self, writer)
        self._connections.add(connection)
        try:
            await connection.run(reader)
        finally:
            self._connections.discard(connection)
            connection.reset()

    async def pass_through(self) -> None:
        """Wait as long as the mode requires before data is delivered."""
        if self.mode is Mode.SLOW:
            await asyncio.sleep(self.delay)
        await self._flowing.wait()


class _Connection:
    def __init__(self, proxy: Proxy, client: asyncio.StreamWriter) -> None:
        self._proxy, self._writers = proxy, [client]
        self._silent = False

    async def run(self, reader: asyncio.StreamReader) -> None:
        client = self._writers[0]
        try:
            await self._proxy.pass_through()
            answers, server = await asyncio.open_connection("127.0.0.1", self._proxy.target)
        except OSError:
            return
        self._writers.append(server)
        parser = _PARSERS[self._proxy.protocol]()
        tasks = [
            asyncio.create_task(self._forward(reader, server, parser)),
            asyncio.create_task(self._forward(answers, client, None)),
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in tasks:
                each.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def reset(self) -> None:
        for each in self._writers:
            raw: socket.socket | None = each.get_extra_info("socket")
            if raw is not None and raw.fileno() >= 0:
                with contextlib.suppress(OSError):  # the peer may have closed it
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            each.transport.abort()

    async def _forward(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, parser: Parser | None) -> None:
        with contextlib.suppress(*_ERRORS):  # a lost connection ends both directions
            while data := await source.read(_CHUNK):
                await self._proxy.pass_through()
                for part, step in parser.feed(data) if parser is not None else _whole(data):
                    if self._silent:
                        # The end of either direction would end both, before the process is stopped.
                        await asyncio.get_running_loop().create_future()
                    if step and await self._stopped(part, step, sink):
                        return
                    sink.write(part)
                await sink.drain()

    async def _stopped(self, part: bytes, step: str, sink: asyncio.StreamWriter) -> bool:
        proxy = self._proxy
        if proxy.steps is not None:
            proxy.steps.append(step)
        point = proxy.stop_point
        if point is None or not point.matches(step):
            return False
        self._silent = True
        if point.delivered:
            sink.write(part)
            await sink.drain()
            # The server must have read it before the connection is reset.
            await asyncio.sleep(_ARRIVAL)
        point.stop()
        point.reached.set()
        return True


def _whole(data: bytes) -> Iterator[tuple[bytes, str]]:
    yield data, ""
