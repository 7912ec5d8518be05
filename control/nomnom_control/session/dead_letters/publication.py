"""Publish a message exactly once, even if JetStream reports a duplicate of a message that was deleted meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Mapping
from typing import TypeVar

from nomnom.connections.nats import NatsConnection
from nomnom.envelope import MSG_ID, new_message_id
from nomnom.inspection.jetstream.messages import StoredMessage, read_one
from nomnom_control.session.jetstream.changes import publish

T = TypeVar("T")

CHUNK = 64
"""Default number of dead letters in flight."""


async def publish_once(
    nats: NatsConnection, subject: str, payload: bytes, headers: Mapping[str, str]
) -> tuple[int, str, bool]:
    """Publish and make sure that the message is stored; returns sequence, ``Nats-Msg-Id``, and whether it existed.

    A message that was published and deleted is still a duplicate within the duplicate window: JetStream acknowledges it
    again without storing it. So a duplicate is looked up, and published under a new id if it is missing.
    """
    ack = await publish(nats, subject, payload, headers)
    if not ack.duplicate:
        return ack.seq, headers[MSG_ID], False
    stored = await read_one(nats, ack.stream, ack.seq)
    if stored is not None and stored.headers.get(MSG_ID) == headers[MSG_ID]:
        return ack.seq, headers[MSG_ID], True
    fresh = f"{headers[MSG_ID]}.{new_message_id()}"
    ack = await publish(nats, subject, payload, {**headers, MSG_ID: fresh})
    return ack.seq, fresh, False


async def all_of(work: Iterable[Awaitable[T]]) -> list[T | Exception]:
    """Results or exceptions, in order."""
    results = await asyncio.gather(*work, return_exceptions=True)
    for each in results:
        if isinstance(each, BaseException) and not isinstance(each, Exception):
            raise each
    return [each for each in results if not isinstance(each, BaseException) or isinstance(each, Exception)]


def dead_letter_headers(message: StoredMessage) -> dict[str, str]:
    """The headers of a dead letter without its deduplication id, which belongs to the stored copy."""
    return {name: value for name, value in message.headers.items() if name != MSG_ID and name.startswith("Nomnom-")}
