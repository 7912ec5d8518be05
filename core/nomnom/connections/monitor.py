"""The health of nats-server, from its monitoring port: the only place that reports a failed write to the disk.

After a failed write, nats-server stores no further message of that stream until it is restarted, acknowledges none and
rejects none, and responds to everything else as before.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from urllib.parse import urlsplit

import msgspec

_LONGEST = 64 * 1024
_WRITE_ERROR = "write error"
"""In the errors of streams, consumers and Raft groups alike (server/monitor.go and jetstream_cluster.go)."""


class _Body(msgspec.Struct):
    status: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True)
class ServerHealth:
    """What one nats-server reports. ``problem`` is None if it is healthy; ``known``: whether it responded at all."""

    problem: str | None = None
    known: bool = True

    @property
    def cannot_write(self) -> bool:
        """Whether it has stopped writing: it must be restarted, after there is room on its disk."""
        return self.known and self.problem is not None and _WRITE_ERROR in self.problem


async def read_health(url: str, timeout: float) -> ServerHealth:
    """Read ``/healthz`` of the monitoring port at ``url``, within ``timeout`` seconds."""
    try:
        async with asyncio.timeout(timeout):
            status, content = await _get(url, "/healthz")
    except (OSError, ValueError) as error:  # TimeoutError is an OSError
        reason = "no response in time" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
        return ServerHealth(f"its monitoring port at {url} does not respond: {reason}", known=False)
    if status == 200:
        return ServerHealth()
    try:
        found = msgspec.json.decode(content, type=_Body)
    except msgspec.DecodeError:
        found = _Body()
    return ServerHealth(found.error or found.status or f"/healthz has status {status}")


async def read_all(urls: str, timeout: float) -> list[ServerHealth]:
    """The health of several servers, whose URLs are separated by commas; empty if there are none."""
    return list(await asyncio.gather(*(read_health(each, timeout) for each in urls.split(",") if each)))


async def _get(url: str, path: str) -> tuple[int, bytes]:
    # By hand: the services have no HTTP client, and this is one request without a body.
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port or 8222)
    try:
        writer.write(f"GET {path} HTTP/1.0\r\nHost: {parts.netloc}\r\n\r\n".encode())
        await writer.drain()
        head, _, body = (await reader.read(_LONGEST)).partition(b"\r\n\r\n")
        while part := await reader.read(_LONGEST - len(body)):
            body += part
    finally:
        writer.close()
    return int(head.split(maxsplit=2)[1]) if head.startswith(b"HTTP/") else 0, body
