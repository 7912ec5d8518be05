"""Request bodies: media type, size limits and read timeouts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from email.message import Message
from functools import lru_cache
from typing import Any, TypeAlias

from blacksheep import Request

from nomnom.tasks import end
from nomnom_api.errors import (
    BusyError,
    ClientGoneError,
    InvalidBodyError,
    MediaTypeError,
    ReadTimeoutError,
    TooLargeError,
)

Headers: TypeAlias = Mapping[bytes, bytes]
Receive: TypeAlias = Callable[[], Awaitable[Any]]
"""The receive callable of ASGI."""
_SMALL = 64 * 1024
"""Bodies up to this size, in bytes, are not counted: the server buffers that much of any request anyway."""
_SWEEP = 0.5
_PLAIN = frozenset({b"text/plain", b"text/plain; charset=utf-8", b"text/plain;charset=utf-8"})
_CHARSETS = ("utf-8", "utf8", "us-ascii")


def receiver(request: Request) -> Receive:
    """The ASGI receive callable of a request; BlackSheep's own body reader has no size or time limit."""
    content: Any = request.content
    return content.receive


class Bodies:
    """Reads request bodies, within limits of size, memory and time."""

    def __init__(self, limit: int, memory: int, timeout: float) -> None:
        self._limit, self._memory, self._timeout = limit, memory, timeout
        self._held = 0
        self._reading: dict[asyncio.Task[Any], float] = {}
        """Tasks that wait for a part of a body, in the order of their deadlines: all timeouts are equal."""
        self._expired: set[asyncio.Task[Any]] = set()
        self._sweeping: asyncio.Task[None] | None = None
        self._now: Callable[[], float] = time.monotonic
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        """Start to enforce read timeouts. Needs a running event loop."""
        self._loop = asyncio.get_running_loop()
        self._now = self._loop.time
        self._sweeping = asyncio.create_task(self._sweep(), name="read timeouts")

    async def close(self) -> None:
        """Stop to enforce read timeouts."""
        await end(self._sweeping)

    async def message(self, given: Headers, receive: Receive) -> tuple[bytes, str]:
        """The body of one message, as bytes and as text.

        Raises MediaTypeError, TooLargeError, InvalidBodyError, BusyError, ReadTimeoutError or ClientGoneError.
        """
        check_type(given)
        expected = declared(given, self._limit, "a message")
        body = b""
        if expected <= _SMALL:
            part = await self.receive(receive)
            body = part["body"]
            if part["more_body"]:
                body = await self._collect(bytearray(body), expected, receive)
        else:
            body = await self._collect(bytearray(), expected, receive)
        if not body or body.isspace():
            raise InvalidBodyError("the body is empty; post a record: TAG|field|…")
        try:
            return body, body.decode()
        except UnicodeDecodeError as error:
            raise InvalidBodyError(f"the body is not valid UTF-8: byte {error.start + 1}: {error.reason}") from error

    async def parts(self, given: Headers, receive: Receive, limit: int) -> AsyncGenerator[bytes, None]:
        """The parts of a body as they arrive. Raises the errors of :meth:`message`, also between parts."""
        read = 0
        while True:
            part = await self.receive(receive)
            read += len(part["body"])
            if read > limit:
                raise TooLargeError(f"the batch exceeds the limit of {limit:,} bytes; post the rest as another batch")
            yield part["body"]
            if not part["more_body"]:
                return

    async def receive(self, receive: Receive) -> Any:
        """The next part of a body; raises ReadTimeoutError or ClientGoneError."""
        # Before Python 3.12, looking up the running loop is a system call: 8 % of the time of a small request.
        task = asyncio.current_task(self._loop)
        assert task is not None
        self._reading[task] = self._now() + self._timeout
        try:
            part = await receive()
        except asyncio.CancelledError:
            if task not in self._expired:
                raise
            task.uncancel()
            raise ReadTimeoutError(
                f"no data of the body received for {self._timeout:g} s; send the request again"
            ) from None
        finally:
            self._reading.pop(task, None)
            self._expired.discard(task)
        if part["type"] == "http.disconnect":
            raise ClientGoneError("the client closed the connection before the body was complete")
        return part

    async def _collect(self, body: bytearray, expected: int, receive: Receive) -> bytes:
        held = 0
        try:
            while True:
                size = max(expected, len(body))
                if size > _SMALL and size > held:
                    self._reserve(size - held)
                    held = size
                part = await self.receive(receive)
                body += part["body"]
                if len(body) > self._limit:
                    raise TooLargeError(f"the message exceeds the limit of {self._limit:,} bytes")
                if not part["more_body"]:
                    return bytes(body)
        finally:
            self._held -= held

    def _reserve(self, size: int) -> None:
        if self._held + size > self._memory:
            raise BusyError("too many large messages are being received (NOMNOM_API_MAX_BUFFER); retry")
        self._held += size

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP)
            now = self._now()
            for task, deadline in list(self._reading.items()):
                if deadline > now:
                    break
                del self._reading[task]
                self._expired.add(task)
                task.cancel()


def check_type(given: Headers) -> None:
    """Raise MediaTypeError unless the body is declared as plain UTF-8 text, or has no declared type."""
    coding = given.get(b"content-encoding")
    if coding is not None and coding.lower() != b"identity":
        raise MediaTypeError("compressed bodies are not supported; send the body without Content-Encoding")
    kind = given.get(b"content-type")
    if kind is not None and kind not in _PLAIN and not _is_plain_text(kind):
        shown = kind[:100].decode("ascii", "replace")
        raise MediaTypeError(f"expected Content-Type: text/plain; charset=utf-8, found {shown!r}")


def declared(given: Headers, limit: int, what: str) -> int:
    """The declared size of a body in bytes, 0 if not declared; raises TooLargeError if it exceeds ``limit``.

    The server has validated both framing headers, and that they do not contradict each other.
    """
    if b"transfer-encoding" in given:
        return 0
    size = int(given.get(b"content-length", b"0"))
    if size > limit:
        raise TooLargeError(f"{what} of {size:,} bytes exceeds the limit of {limit:,} bytes")
    return size


@lru_cache(maxsize=256)
def _is_plain_text(kind: bytes) -> bool:
    header = Message()
    try:
        header["content-type"] = kind.decode("ascii")
    except UnicodeDecodeError:
        return False
    # The header class returns text/plain for headers that it cannot parse.
    named = kind.partition(b";")[0].strip().lower() == b"text/plain"
    return named and header.get_content_charset("utf-8") in _CHARSETS
