"""JetStream's acks: one subscription receives all of them, and one dictionary holds what awaits them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg

from nomnom.tasks import end
from nomnom_api.errors import ApiError, StreamFullError, TooLargeError, UnavailableError, UnconfirmedError

SWEEP = 0.1
"""Seconds between two looks for timeouts."""
_REPEAT = "retry with the same Idempotency-Key"
_NO_RESPONDERS = "503"
# Error codes of nats-server's errors.json.
TOO_LARGE = 10054
_STORE_FAILED = 10077
_FULL = ("maximum bytes exceeded", "maximum messages exceeded", "maximum messages per subject exceeded")


class AckError(msgspec.Struct, frozen=True):
    """The error that JetStream rejected a message with."""

    code: int = 500
    err_code: int = 0
    description: str = ""


class Ack(msgspec.Struct, frozen=True):
    """JetStream's response to a message."""

    stream: str = ""
    seq: int = 0
    duplicate: bool = False
    error: AckError | None = None


Outcome: TypeAlias = Ack | ApiError
"""What became of a message: stored, or why it is not."""
Reply: TypeAlias = Ack | ApiError
"""A response as it arrived: an ack may still hold JetStream's error."""
_decode = msgspec.json.Decoder(Ack).decode


class Silence:
    """Messages without a response from JetStream since the last response.

    nats-server does not respond to a message that it cannot write to its disk.
    """

    _LASTS = 30.0
    """Seconds after which another message has to be tried: readiness must not keep all of them out."""

    def __init__(self, stream: str) -> None:
        self._stream = stream
        self._messages, self._last = 0, 0.0

    def note(self, now: float, messages: int) -> None:
        """Note that messages had no response in time."""
        self._messages, self._last = self._messages + messages, now

    def end(self) -> None:
        """Note a response, or another server."""
        self._messages = 0

    def problem(self, now: float) -> str | None:
        """Why further messages are unlikely to be accepted; None if they are not."""
        if not self._messages or now - self._last > self._LASTS:
            return None
        return (
            f"stream {self._stream} has not acknowledged the last {self._messages:,} messages; "
            "check nats-server's log and disk"
        )


class Waiting(NamedTuple):
    """A request to JetStream that awaits its response."""

    sent: float
    complete: Callable[[Any, float, Reply], None]
    """Called once, with ``argument``, the time of sending, and the response."""
    argument: Any


class Acks:
    """Hands each response to the request that it belongs to, and each request exactly one response or error."""

    def __init__(self, stream: str, timeout: float) -> None:
        self._stream, self._timeout = stream, timeout
        self.silence = Silence(stream)
        self._waiting: dict[str, Waiting] = {}
        """By the last token of the reply subject, in the order of sending: all timeouts are equal."""
        self._prefix = ""
        self._number = 0
        self._sweeping: asyncio.Task[None] | None = None
        self.now: Callable[[], float] = time.monotonic
        self.watchers: list[Callable[[float], None]] = []
        """Called at every sweep, with the time."""

    def start(self) -> None:
        """Begin to look for timeouts. Needs a running event loop."""
        self.now = asyncio.get_running_loop().time
        self._sweeping = asyncio.create_task(self._sweep(), name="ack timeouts")

    async def close(self) -> None:
        """End the look for timeouts."""
        await end(self._sweeping)

    async def subscribe(self, client: Client) -> None:
        """Receive the responses to what is sent over this client."""
        prefix = f"{client.new_inbox()}."
        start = len(prefix)
        waiting = self._waiting

        async def take(message: Msg) -> None:
            found = waiting.pop(message.subject[start:], None)
            if found is not None:  # otherwise the ack arrived after its timeout
                found.complete(found.argument, found.sent, self._reply(message))

        await client.subscribe(f"{prefix}*", cb=take, pending_bytes_limit=0)
        self._prefix = prefix

    def expect(self, complete: Callable[[Any, float, Reply], None], argument: Any) -> str:
        """Await a response; returns the reply subject of the request."""
        self._number = number = self._number + 1
        token = str(number)
        self._waiting[token] = Waiting(self.now(), complete, argument)
        return self._prefix + token

    def forget(self, reply: str) -> bool:
        """Stop awaiting a response; returns False if there was one, or an error, already."""
        return self._waiting.pop(reply.rpartition(".")[2], None) is not None

    def fail(self, reason: str | None) -> None:
        """Complete everything that waits: the connection was lost for this reason (None: it was not)."""
        if reason is None:
            self.silence.end()
            return
        waiting = list(self._waiting.values())
        self._waiting.clear()
        error = UnconfirmedError(
            f"connection to NATS lost before the ack ({reason}): the message may or may not be stored; {_REPEAT}"
        )
        for each in waiting:
            each.complete(each.argument, each.sent, error)

    def refusal(self, error: AckError) -> ApiError:
        """What JetStream's error means for a message."""
        if error.err_code == TOO_LARGE:
            return TooLargeError(f"the message exceeds the limit of stream {self._stream}: {error.description}")
        if error.err_code == _STORE_FAILED and error.description in _FULL:
            return StreamFullError(f"stream {self._stream} is full ({error.description}); retry later")
        return UnavailableError(f"stream {self._stream} rejected the message ({error.err_code}): {error.description}")

    def _reply(self, message: Msg) -> Reply:
        self.silence.end()
        if message.headers is not None and message.headers.get("Status") == _NO_RESPONDERS:
            return UnavailableError(f"stream {self._stream} (NATS_STREAM) does not exist; run nomnom setup")
        try:
            return _decode(message.data)
        except msgspec.DecodeError as error:
            return UnconfirmedError(f"cannot parse JetStream's response ({error}); {_REPEAT}")

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP)
            now = self.now()
            late = list[str]()
            for token, each in self._waiting.items():
                if each.sent + self._timeout > now:
                    break
                late.append(token)
            if late:
                self.silence.note(now, len(late))
            for token in late:
                each = self._waiting.pop(token)
                text = f"no ack from JetStream in {self._timeout:g} s: the message may or may not be stored; {_REPEAT}"
                each.complete(each.argument, each.sent, UnconfirmedError(text))
            for watcher in self.watchers:
                watcher(now)
