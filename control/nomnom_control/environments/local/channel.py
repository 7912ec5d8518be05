"""The control channel: requests to a running supervisor as JSON lines over a unix socket.

A request is one line ``{"do": name, "with": {…}}``; the response is any number of ``{"progress": {…}}`` lines, then
one ``{"result": …}`` or ``{"error": text}``. Closing the connection cancels the request.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import msgspec

from nomnom.errors import NomnomError
from nomnom_control.environments import Progress
from nomnom_control.errors import ControlError

Report: TypeAlias = Callable[[Progress], None]
Handler: TypeAlias = Callable[[dict[str, Any], Report], Awaitable[Any]]
_LIMIT = 4 * 1024 * 1024
_REQUEST_TIMEOUT = 10.0


class NotRunning(ControlError):  # noqa: N818 (a state more than an error)
    """No supervisor is running."""


async def serve(path: Path, handlers: Mapping[str, Handler]) -> asyncio.Server:
    """Serve requests on ``path`` (which only this user may open) until the server is closed."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        def send(line: dict[str, Any]) -> None:
            writer.write(msgspec.json.encode(line) + b"\n")

        try:
            async with asyncio.timeout(_REQUEST_TIMEOUT):
                line = await reader.readline()
            request = msgspec.json.decode(line, type=dict[str, Any])
            handler = handlers.get(str(request.get("do")))
            if handler is None:
                name = request.get("do")
                raise ControlError(f"the running supervisor (another version) does not support {name!r}; restart it")
            work = asyncio.ensure_future(handler(request.get("with", {}), lambda each: send({"progress": each})))
            disconnected = asyncio.ensure_future(reader.read(1))
            await asyncio.wait({work, disconnected}, return_when=asyncio.FIRST_COMPLETED)
            disconnected.cancel()
            if not work.done():
                work.cancel()
                await asyncio.wait({work})
                return
            send({"result": work.result()})
        except (NomnomError, msgspec.DecodeError, TimeoutError) as error:
            send({"error": str(error)})
        finally:
            writer.close()

    path.unlink(missing_ok=True)  # noqa: ASYNC240 (a local file system operation)
    server = await asyncio.start_unix_server(handle, path, limit=_LIMIT)
    path.chmod(0o600)  # noqa: ASYNC240
    return server


async def request(path: Path, name: str, arguments: Mapping[str, Any] | None = None) -> AsyncIterator[Progress | Any]:
    """Send a request to the supervisor: yields progress, then the result as the last item. Raises ControlError."""
    try:
        reader, writer = await asyncio.open_unix_connection(path, limit=_LIMIT)
    except OSError as error:
        raise NotRunning("not running; start it with 'nomnom up'") from error
    try:
        writer.write(msgspec.json.encode({"do": name, "with": dict(arguments or {})}) + b"\n")
        await writer.drain()
        while line := await reader.readline():
            response = msgspec.json.decode(line, type=dict[str, Any])
            if "error" in response:
                raise ControlError(response["error"])
            if "result" in response:
                yield response["result"]
                return
            yield msgspec.convert(response["progress"], Progress)
        raise NotRunning("the supervisor exited before it responded")
    finally:
        writer.close()


async def call(path: Path, name: str, arguments: Mapping[str, Any] | None = None) -> Any:
    """Send a request and return only its result."""
    return [each async for each in request(path, name, arguments)][-1]
