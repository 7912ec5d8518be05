"""Server-sent events: one producer, any number of clients, each event encoded once.

Nothing is queued: a client that reads more slowly than events are published skips to the newest one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec

HEARTBEAT = 15.0
"""Seconds without an event after which a comment is sent, to keep the connection alive."""
_RETRY = b"retry: 2000\n\n"


class Broadcast:
    """The event stream to all clients of this process."""

    def __init__(self, heartbeat: float = HEARTBEAT) -> None:
        self._heartbeat = heartbeat
        self._clients: set[asyncio.Event] = set()
        self._newest: bytes | None = None
        self._closed = False

    @property
    def clients(self) -> int:
        """The number of connected clients."""
        return len(self._clients)

    def publish(self, name: str, sequence: int, body: object) -> None:
        """Publish an event to every client, in place of the previous one."""
        self._newest = b"event: %b\nid: %d\ndata: %b\n\n" % (name.encode(), sequence, msgspec.json.encode(body))
        for client in self._clients:
            client.set()

    def close(self) -> None:
        """End the stream of every client."""
        self._closed = True
        for client in self._clients:
            client.set()

    async def events(self) -> AsyncIterator[bytes]:
        """The stream of one client: the newest event at once, then new events as fast as the client reads them."""
        client = asyncio.Event()
        if self._newest is not None:
            client.set()
        self._clients.add(client)
        try:
            yield _RETRY
            while not self._closed:
                try:
                    async with asyncio.timeout(self._heartbeat):
                        await client.wait()
                except TimeoutError:
                    yield b": alive\n\n"
                    continue
                client.clear()
                if self._newest is not None and not self._closed:
                    yield self._newest
        finally:
            self._clients.discard(client)
