"""Requests to the JetStream API, answered as typed structures.

nats-py's own manager drops what its classes do not know (the first message's time, among others) and gives no way to
ask for deleted sequences; msgspec reads the same answers whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from nomnom.connections.errors import NotSetUp
from nomnom_control.errors import ControlError
from nomnom_control.session.connections import NatsConnection

T = TypeVar("T")

API = "$JS.API"
STREAM_NOT_FOUND = 10059
CONSUMER_NOT_FOUND = 10014
MESSAGE_NOT_FOUND = (10037, 10057)
"""What reading and deleting a sequence that is not there answer."""
STREAM_FULL = (10077, 10047, 10023)
"""Limits of the stream, of the account or of the server's storage: nothing was stored."""


class JetStreamError(ControlError):
    """JetStream refused a request; ``code`` is its error code (errors.json of nats-server)."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code


class StreamFull(JetStreamError):  # noqa: N818
    """A stream took no message because a limit is reached."""


class _Error(msgspec.Struct):
    code: int = 0
    err_code: int = 0
    description: str = ""


class _Failure(msgspec.Struct):
    error: _Error | None = None


class PublishAck(msgspec.Struct, frozen=True):
    """JetStream's acknowledgement of a stored message; a ``duplicate`` was stored before, at that sequence."""

    stream: str
    seq: int
    duplicate: bool = False


class Purged(msgspec.Struct, frozen=True):
    """The answer to a purge."""

    purged: int


class _Success(msgspec.Struct):
    success: bool = False


_failure = msgspec.json.Decoder(_Failure)


async def call(
    nats: NatsConnection,
    subject: str,
    body: Mapping[str, Any] | None,
    answer: type[T],
    what: str,
) -> T:
    """Ask ``$JS.API.<subject>``; ``what`` names the thing in errors. Raises JetStreamError, NotSetUp or
    NatsUnavailable.
    """
    payload = msgspec.json.encode(body) if body else b""
    return read_answer((await nats.request(f"{API}.{subject}", payload)).data, answer, what)


def read_answer(data: bytes, answer: type[T], what: str) -> T:
    """An answer as its type; raises what its error means."""
    try:
        error = _failure.decode(data).error
        if error is None:
            return msgspec.json.decode(data, type=answer)
    except msgspec.DecodeError as problem:
        raise ControlError(f"{what}: JetStream's answer cannot be read: {problem}") from problem
    if error.err_code in (STREAM_NOT_FOUND, CONSUMER_NOT_FOUND):
        raise NotSetUp(f"{what}: {error.description}; run nomnom setup, or check the name")
    if error.err_code in STREAM_FULL:
        raise StreamFull(f"{what} is full: {error.description}; make room, then go on", error.err_code)
    raise JetStreamError(f"{what}: {error.description} (JetStream error {error.err_code})", error.err_code)


async def publish(nats: NatsConnection, subject: str, payload: bytes, headers: Mapping[str, str]) -> PublishAck:
    """Publish and await the ack; raises StreamFull, JetStreamError, NotSetUp or NatsUnavailable."""
    message = await nats.request(subject, payload, headers=headers, nobody=f"no stream takes {subject}")
    return read_answer(message.data, PublishAck, f"the stream of {subject}")


async def delete_message(nats: NatsConnection, stream: str, sequence: int) -> bool:
    """Delete one message; false where it was gone already."""
    # Erasing what the message held would sync the disk at each: 80 deletions a second instead of 10,000.
    body = {"seq": sequence, "no_erase": True}
    try:
        await call(nats, f"STREAM.MSG.DELETE.{stream}", body, _Success, f"message {sequence} of {stream}")
    except JetStreamError as error:
        if error.code in MESSAGE_NOT_FOUND:
            return False
        raise
    return True
