"""Local ports that lead to pods, through the API server.

The local port stays the same for as long as it is open, and each connection goes to a pod that is ready at that time.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

from nomnom.errors import NomnomError
from nomnom_control.environments.cluster.api import Cluster
from nomnom_control.errors import ControlError

FindPods = Callable[[], Awaitable[list[str]]]
"""Returns the names of the pods that a new connection may use."""
_CHUNK = 64 * 1024
_PATIENCE = 10.0
_POLL = 0.3
_NORMAL = 1000
"""The close code of a websocket that was closed normally."""


class TunnelError(ControlError):
    """A tunnel failed, or the pod's node closed it with an error."""


@dataclass(eq=False)
class Forward:
    """One local port. ``problem`` says why the last connection failed; None if it did not."""

    cluster: Cluster
    namespace: str
    port: int
    pods: FindPods
    title: str
    problem: str | None = None

    def __post_init__(self) -> None:
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self.local_port = 0
        """0 until it is opened."""

    async def open(self) -> int:
        """Listen on a free port of the loopback address, unless already listening; returns the port."""
        if self._server is None:
            self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.local_port)
            self.local_port = self._server.sockets[0].getsockname()[1]
        return self.local_port

    async def close(self) -> None:
        """Stop listening and close the connections; opening it again uses the same port."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        for each in self._connections:
            each.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._connect(reader, writer)
        except NomnomError as error:
            self.problem = str(error)
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pod = await self._ready_pod()
        try:
            async with self.cluster.tunnel(self.namespace, pod, self.port) as websocket:
                self.problem = None

                async def send() -> None:
                    while data := await reader.read(_CHUNK):
                        await websocket.send_bytes(b"\0" + data)

                async def receive() -> None:
                    started: set[bytes] = set()
                    async for message in websocket:
                        if not isinstance(message.data, bytes):
                            raise TunnelError(f"{self.title}: the tunnel to {pod} failed: {message.data}")
                        channel, data = message.data[:1], message.data[1:]
                        if channel not in started:
                            started.add(channel)  # each channel begins with the port's number
                        elif channel == b"\0":
                            writer.write(data)
                            await writer.drain()
                        else:
                            reason = data.decode(errors="replace")
                            raise TunnelError(f"{self.title}: the tunnel to {pod} ended: {reason}")
                    if websocket.close_code != _NORMAL:
                        raise TunnelError(f"{self.title}: the tunnel to {pod} failed (code {websocket.close_code})")

                await _until_one_ends(asyncio.ensure_future(send()), asyncio.ensure_future(receive()))
        except ConnectionError as error:
            raise TunnelError(f"{self.title}: the tunnel to {pod} failed: {error or type(error).__name__}") from error

    async def _ready_pod(self) -> str:
        """Choose a ready pod; wait a moment if all are being replaced."""
        try:
            async with asyncio.timeout(_PATIENCE):
                while not (names := await self.pods()):  # noqa: ASYNC110 (the cluster makes them ready)
                    await asyncio.sleep(_POLL)
        except TimeoutError:
            raise TunnelError(f"{self.title}: no pod is ready") from None
        return random.choice(names)  # noqa: S311 (which one does not matter)


async def _until_one_ends(*tasks: asyncio.Task[None]) -> None:
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in tasks:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for each in done:
        each.result()
