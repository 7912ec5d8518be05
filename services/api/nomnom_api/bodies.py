"""Reading bodies: their type, their limits, and how long they may take."""

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
"""ASGI's receive."""
_SMALL = 64 * 1024
"""Bodies up to here are not counted: the server reads no further than this ahead of the application."""
_SWEEP = 0.5
_PLAIN = frozenset({b"text/plain", b"text/plain; charset=utf-8", b"text/plain;charset=utf-8"})
_CHARSETS = ("utf-8", "utf8", "us-ascii")


def receiver(request: Request) -> Receive:
    """ASGI's receive of a request. BlackSheep's own reading of a body knows no limit of size or time."""
    content: Any = request.content
    return content.receive


class Bodies:
    """Reads the bodies of requests."""

    def __init__(self, limit: int, memory: int, timeout: float) -> None:
        self._limit, self._memory, self._timeout = limit, memory, timeout
        self._held = 0
        self._reading: dict[asyncio.Task[Any], float] = {}
        """Who waits for a part of a body, in the order of their deadlines: every wait is as long."""
        self._expired: set[asyncio.Task[Any]] = set()
        self._sweeping: asyncio.Task[None] | None = None
        self._now: Callable[[], float] = time.monotonic
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        """Begin to watch for clients that do not go on. Needs a running loop."""
        self._loop = asyncio.get_running_loop()
        self._now = self._loop.time
        self._sweeping = asyncio.create_task(self._sweep(), name="read timeouts")

    async def close(self) -> None:
        """Stop watching."""
        await end(self._sweeping)

    async def message(self, given: Headers, receive: Receive) -> tuple[bytes, str]:
        """The body of one message, as it is and as text.

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
            raise InvalidBodyError("the body is empty: post a record, TAG|field|…")
        try:
            return body, body.decode()
        except UnicodeDecodeError as error:
            raise InvalidBodyError(f"the body is not UTF-8: byte {error.start + 1} {error.reason}") from error

    async def parts(self, given: Headers, receive: Receive, limit: int) -> AsyncGenerator[bytes, None]:
        """The parts of a body as they come. Raises as :meth:`message`, in the middle too."""
        read = 0
        while True:
            part = await self.receive(receive)
            read += len(part["body"])
            if read > limit:
                raise TooLargeError(f"a batch has at most {limit:,} bytes: post what follows as another")
            yield part["body"]
            if not part["more_body"]:
                return

    async def receive(self, receive: Receive) -> Any:
        """The next part of a body; raises ReadTimeoutError or ClientGoneError."""
        # Before Python 3.12 to ask which loop runs is a system call: a twelfth of a small request's time.
        task = asyncio.current_task(self._loop)
        assert task is not None
        self._reading[task] = self._now() + self._timeout
        try:
            part = await receive()
        except asyncio.CancelledError:
            if task not in self._expired:
                raise
            task.uncancel()
            raise ReadTimeoutError(f"nothing of the body came for {self._timeout:g} s") from None
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
                wanted = max(expected, len(body))
                if wanted > _SMALL and wanted > held:
                    self._hold(wanted - held)
                    held = wanted
                part = await self.receive(receive)
                body += part["body"]
                if len(body) > self._limit:
                    raise TooLargeError(f"a message has at most {self._limit:,} bytes")
                if not part["more_body"]:
                    return bytes(body)
        finally:
            self._held -= held

    def _hold(self, size: int) -> None:
        if self._held + size > self._memory:
            raise BusyError("too many large messages are being read at a time: try again")
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
    """Raises MediaTypeError for a body that says it is not plain UTF-8 text. One that says nothing is taken as such."""
    coding = given.get(b"content-encoding")
    if coding is not None and coding.lower() != b"identity":
        raise MediaTypeError("the body is compressed: send it as it is, without Content-Encoding")
    kind = given.get(b"content-type")
    if kind is not None and kind not in _PLAIN and not _is_plain_text(kind):
        shown = kind[:100].decode("ascii", "replace")
        raise MediaTypeError(f"expected Content-Type: text/plain; charset=utf-8, found {shown!r}")


def declared(given: Headers, limit: int, what: str) -> int:
    """The size that a request says its body has, 0 where it does not; raises TooLargeError where it is over ``limit``.

    The server has checked that the two headers of framing are well formed and do not contradict each other.
    """
    if b"transfer-encoding" in given:
        return 0
    size = int(given.get(b"content-length", b"0"))
    if size > limit:
        raise TooLargeError(f"{what} has at most {limit:,} bytes, this one has {size:,}")
    return size


@lru_cache(maxsize=256)
def _is_plain_text(kind: bytes) -> bool:
    header = Message()
    try:
        header["content-type"] = kind.decode("ascii")
    except UnicodeDecodeError:
        return False
    # The header class takes what it cannot read for text/plain, too.
    named = kind.partition(b";")[0].strip().lower() == b"text/plain"
    return named and header.get_content_charset("utf-8") in _CHARSETS
