"""Post messages through the API and follow them to their final status."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

import msgspec

from nomnom.envelope import REMOVED, Status, parse_message_id
from nomnom.retry import RetryPolicy
from nomnom_control.errors import ControlError
from nomnom_control.session.connections import Api, ApiRefused

T = TypeVar("T")

FINAL = frozenset({Status.COMPLETED, Status.DLQ}) | REMOVED
"""The final statuses: they change only if an operator changes something."""
_POLLS = RetryPolicy(first=0.1, longest=1.0, factor=1.5)


class UnknownMessage(ControlError):  # noqa: N818
    """No message of the given id is in the stream or the database."""


class Posted(msgspec.Struct, frozen=True):
    """The API's response: the message is in the stream; a ``duplicate`` was there before."""

    message_id: str
    status: Status
    timestamp: datetime
    duplicate: bool = False


class State(msgspec.Struct, frozen=True):
    """The status of a message as the API reports it."""

    message_id: str
    status: Status
    entity: str | None = None
    received_at: datetime | None = None
    processed_at: datetime | None = None
    retry_count: int = 0
    error: str | None = None
    superseded: bool = False

    @property
    def final(self) -> bool:
        """Whether the status is final: no worker is going to change it."""
        return self.status in FINAL

    @property
    def removed_at(self) -> datetime | None:
        """When the message was deleted, purged or expired; None if it was not."""
        return self.processed_at if self.status in REMOVED else None


@dataclass(frozen=True, slots=True)
class Messages:
    """Posts and reads messages through the API. Every method raises ApiUnavailable or ApiRefused."""

    _api: Api

    async def post(self, text: str | bytes, *, idempotency_key: str | None = None) -> Posted:
        """Post one message; returns when it is stored in the stream."""
        headers = {"Content-Type": "text/plain; charset=utf-8"}
        if idempotency_key is not None:
            headers["Idempotency-Key"] = idempotency_key
        content = text.encode() if isinstance(text, str) else text
        response = await self._api.send("POST", "/api/ingest/message", content=content, headers=headers)
        return _read(response.content, Posted)

    async def state(self, message_id: str) -> State:
        """The status of a message. Raises UnknownMessage if there is none with that id."""
        checked = parse_message_id(message_id)
        if checked is None:
            raise UnknownMessage(f"{message_id!r} is not a valid message ID; expected a UUID")
        try:
            response = await self._api.send("GET", f"/api/ingest/status/{checked}")
        except ApiRefused as error:
            if error.status == 404:
                raise UnknownMessage(f"unknown message {checked}: {error}") from error
            raise
        return _read(response.content, State)

    async def follow(self, message_id: str, *, timeout: float | None = None) -> AsyncGenerator[State, None]:
        """The current status of a message, then each change, until it is final.

        Ends without a final status after ``timeout`` seconds.
        """
        loop = asyncio.get_running_loop()
        deadline = None if timeout is None else loop.time() + timeout
        last: State | None = None
        unchanged = 0
        while True:
            state = await self.state(message_id)
            unchanged = unchanged + 1 if state == last else 1
            if state != last:
                last = state
                yield state
            interval = _POLLS.wait(unchanged)
            if state.final or (deadline is not None and loop.time() + interval > deadline):
                return
            await asyncio.sleep(interval)


def _read(content: bytes, answer: type[T]) -> T:
    try:
        return msgspec.json.decode(content, type=answer)
    except msgspec.DecodeError as error:
        raise ControlError(
            f"cannot read the API's response: {error}; check that the API has the same version as nomnom"
        ) from error
