"""Changes of what a stream holds: publish a message, publish it exactly once, delete a message."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from nomnom.connections.nats import NatsConnection
from nomnom.envelope import MSG_ID, new_message_id
from nomnom.inspection.jetstream.messages import read_one
from nomnom.inspection.jetstream.requests import JetStreamError, call, read_response

_MESSAGE_NOT_FOUND = (10037, 10043, 10057)
"""Error codes of deleting a sequence that does not exist."""


class PublishAck(msgspec.Struct, frozen=True):
    """JetStream's acknowledgement of a stored message; a ``duplicate`` was stored before, at that sequence."""

    stream: str
    seq: int
    duplicate: bool = False


class _Success(msgspec.Struct):
    success: bool = False


async def publish(nats: NatsConnection, subject: str, payload: bytes, headers: Mapping[str, str]) -> PublishAck:
    """Publish and await the ack; raises StreamFull, JetStreamError, NotSetUp or NatsUnavailable."""
    message = await nats.request(subject, payload, headers=headers, missing=f"no stream takes {subject}")
    return read_response(message.data, PublishAck, f"the stream of {subject}")


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


async def delete_message(nats: NatsConnection, stream: str, sequence: int) -> bool:
    """Delete one message; false if it was gone already."""
    # Erasing what the message held would sync the disk at each: 80 deletions a second instead of 10,000.
    body = {"seq": sequence, "no_erase": True}
    try:
        await call(nats, f"STREAM.MSG.DELETE.{stream}", body, _Success, f"message {sequence} of {stream}")
    except JetStreamError as error:
        if error.code in _MESSAGE_NOT_FOUND:
            return False
        raise
    return True
