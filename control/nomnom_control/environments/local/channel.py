"""The control channel: requests to a running supervisor as JSON lines over a unix socket.

A request is one line ``{"do": name, "with": {…}}``; the answer is any number of ``{"progress": {…}}`` lines, then one
``{"result": …}`` or ``{"error": text}``. Closing the connection cancels what was asked for.
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

Tell: TypeAlias = Callable[[Progress], None]
Handler: TypeAlias = Callable[[dict[str, Any], Tell], Awaitable[Any]]
_LIMIT = 4 * 1024 * 1024
_ASKING = 10.0


class NotRunning(ControlError):  # noqa: N818 (a state more than an error)
    """No supervisor answers."""


async def serve(path: Path, handlers: Mapping[str, Handler]) -> asyncio.Server:
    """Answer requests on ``path`` (which only this user may open) until the server is closed."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        def send(line: dict[str, Any]) -> None:
            writer.write(msgspec.json.encode(line) + b"\n")

        try:
            async with asyncio.timeout(_ASKING):
                line = await reader.readline()
            request = msgspec.json.decode(line, type=dict[str, Any])
            handler = handlers.get(str(request.get("do")))
            if handler is None:
                raise ControlError(f"the running supervisor knows no {request.get('do')!r}: it is of another release")
            work = asyncio.ensure_future(handler(request.get("with", {}), lambda each: send({"progress": each})))
            gone = asyncio.ensure_future(reader.read(1))
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
            gone.cancel()
            if not work.done():
                work.cancel()
                await asyncio.wait({work})
                return
            send({"result": work.result()})
        except (NomnomError, msgspec.DecodeError, TimeoutError) as error:
            send({"error": str(error)})
        finally:
            writer.close()

    path.unlink(missing_ok=True)  # noqa: ASYNC240 (a name in a directory: it does not wait)
    server = await asyncio.start_unix_server(answer, path, limit=_LIMIT)
    path.chmod(0o600)  # noqa: ASYNC240
    return server


async def request(path: Path, name: str, arguments: Mapping[str, Any] | None = None) -> AsyncIterator[Progress | Any]:
    """Ask a running supervisor: progress as it comes, then the result as the last item; raises ControlError."""
    try:
        reader, writer = await asyncio.open_unix_connection(path, limit=_LIMIT)
    except OSError as error:
        raise NotRunning("nothing runs here: start it with 'nomnom up'") from error
    try:
        writer.write(msgspec.json.encode({"do": name, "with": dict(arguments or {})}) + b"\n")
        await writer.drain()
        while line := await reader.readline():
            answer = msgspec.json.decode(line, type=dict[str, Any])
            if "error" in answer:
                raise ControlError(answer["error"])
            if "result" in answer:
                yield answer["result"]
                return
            yield msgspec.convert(answer["progress"], Progress)
        raise NotRunning("the supervisor ended before it answered")
    finally:
        writer.close()


async def ask(path: Path, name: str, arguments: Mapping[str, Any] | None = None) -> Any:
    """Ask, and return the result alone."""
    return [each async for each in request(path, name, arguments)][-1]
