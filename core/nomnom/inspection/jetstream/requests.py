"""Requests to the JetStream API, with typed responses.

nats-py's own manager drops what its classes do not know (the first message's time, among others) and cannot ask for
deleted sequences; msgspec reads the same responses whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from nomnom.connections.errors import NotSetUp, RequestError
from nomnom.connections.nats import NatsConnection

T = TypeVar("T")

API = "$JS.API"
_NOT_FOUND = (10014, 10059)
"""Error codes of a consumer and of a stream that do not exist."""
_FULL = (10077, 10047, 10023)
"""Limits of the stream, of the account or of the server's storage: nothing was stored."""


class JetStreamError(RequestError):
    """JetStream refused a request; ``code`` is its error code (errors.json of nats-server), 0 if it gave none."""

    def __init__(self, text: str, code: int = 0) -> None:
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


_failure = msgspec.json.Decoder(_Failure)


async def call(
    nats: NatsConnection,
    subject: str,
    body: Mapping[str, Any] | None,
    response: type[T],
    what: str,
) -> T:
    """Ask ``$JS.API.<subject>``; ``what`` names the thing in errors. Raises JetStreamError, NotSetUp or
    NatsUnavailable.
    """
    payload = msgspec.json.encode(body) if body else b""
    return read_response((await nats.request(f"{API}.{subject}", payload)).data, response, what)


def read_response(data: bytes, response: type[T], what: str) -> T:
    """A response as its type; raises what its error means."""
    try:
        error = _failure.decode(data).error
        if error is None:
            return msgspec.json.decode(data, type=response)
    except msgspec.DecodeError as problem:
        raise JetStreamError(f"{what}: JetStream's response cannot be read: {problem}") from problem
    if error.err_code in _NOT_FOUND:
        raise NotSetUp(f"{what}: {error.description}; run nomnom setup, or check the name")
    if error.err_code in _FULL:
        raise StreamFull(f"{what} is full: {error.description}; make room, then try again", error.err_code)
    raise JetStreamError(f"{what}: {error.description} (JetStream error {error.err_code})", error.err_code)
