"""Copies: messages in the stream more than once, and what each copy is, before its message is processed or expires.

A replay is a copy of its original. A message with an Idempotency-Key may come again after JetStream's duplicate window:
with the same content it is a repeat, which changes nothing, or a new life if the first one was removed; with another
content it is a conflict and becomes a dead letter of its own. Every other message is in the stream once, and costs
nothing here.

What a copy is, is recorded (``nomnom_sequences``) before it is acknowledged, so that every sequence of the stream is
accounted for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import asyncpg
from msgspec.structs import replace

from nomnom import segments
from nomnom.envelope import Envelope, copy_id, digest_of
from nomnom.message_status import ADD_KEYS, FIND_KEYS, RENEW_KEYS, REVIVE
from nomnom.positions import RECORD

# If it is lost with PostgreSQL, so is everything that is committed after it.
_ASYNCHRONOUS = "SET LOCAL synchronous_commit = off"


class Copy(Protocol):
    """A copy in the stream, at its own position."""

    @property
    def position(self) -> int:
        """Its position."""
        ...

    @property
    def envelope(self) -> Envelope:
        """What it carries."""
        ...

    @property
    def payload(self) -> bytes:
        """Its content."""
        ...


@dataclass(frozen=True, slots=True)
class SegmentCopy:
    """A segment in the stream, as a whole."""

    position: int
    envelope: Envelope
    payload: bytes


@dataclass(frozen=True, slots=True)
class Conflict:
    """A second content under an Idempotency-Key: a message of its own, and its error."""

    envelope: Envelope
    error: str


def apply(found: Envelope | Conflict, own: Envelope) -> Envelope:
    """The envelope of a message, given what its copy is: the copy of the message itself, or of its segment."""
    given = found.envelope if isinstance(found, Conflict) else found
    if not given.size:
        return given
    if isinstance(found, Conflict):
        message_id = segments.message_ids(given.message_id, given.size)[segments.index_of(own.message_id)]
        return replace(own, message_id=message_id)
    return replace(own, received_at=given.received_at, position=given.position)


async def settle(connection: asyncpg.Connection, copies: Sequence[Copy]) -> dict[int, Envelope | Conflict]:
    """Find out what these replays and messages with a key are, in the order of their positions, and record it.

    Returns those that are not the first copies of their messages, by position: the envelope, or a conflict. A segment
    is a copy as a whole; the ID of its conflict is that of a segment again.
    """
    keyed = [each for each in copies if not each.envelope.replays]
    record = [(each.position, each.envelope.message_id, "replay") for each in copies if each.envelope.replays]
    found: dict[int, Envelope | Conflict] = {}
    async with connection.transaction():
        if not record:
            await connection.execute(_ASYNCHRONOUS)
        digests = {each.position: digest_of(each.payload) for each in keyed}
        added = await connection.fetch(
            ADD_KEYS,
            [each.envelope.message_id for each in keyed],
            [digests[each.position] for each in keyed],
            [each.envelope.received_at for each in keyed],
            [each.position for each in keyed],
        )
        first = {row["stream_position"] for row in added}
        others = [each for each in keyed if each.position not in first]
        keys = {
            str(row["message_id"]): row
            for row in (
                await connection.fetch(FIND_KEYS, [each.envelope.message_id for each in others]) if others else ()
            )
        }
        repeats: list[Copy] = []
        for each in others:
            key = keys[each.envelope.message_id]
            if key["stream_position"] == each.position:
                continue  # a recopy of the first copy
            if key["digest"] not in (None, digests[each.position]):
                found[each.position] = conflict_of(each)
                continue
            found[each.position] = replace(
                each.envelope, received_at=key["received_at"], position=key["stream_position"]
            )
            repeats.append(each)
        if repeats:
            await connection.execute("SET LOCAL synchronous_commit = on")
            revived = await _revive(connection, repeats, found)
            record += [
                (each.position, each.envelope.message_id, "repeat") for each in repeats if each.position not in revived
            ]
        if record:
            await connection.execute(RECORD, *(list(column) for column in zip(*record, strict=True)))
    return found


async def _revive(
    connection: asyncpg.Connection, repeats: Sequence[Copy], found: dict[int, Envelope | Conflict]
) -> set[int]:
    """Begin a new life of messages that were removed; returns the positions of the copies that became originals."""
    # Of several copies the first is the original.
    firsts = {each.envelope.message_id: each for each in reversed(repeats)}
    copy_of = {
        message_id: copy
        for name, copy in firsts.items()
        for message_id in (segments.message_ids(name, copy.envelope.size) if copy.envelope.size else [name])
    }
    ids, positions = list(copy_of), [each.position for each in copy_of.values()]
    times = [each.received_at for at in positions if isinstance(each := found[at], Envelope)]
    rows = await connection.fetch(REVIVE, ids, times, positions)
    renewed = list({copy.position: copy for row in rows if (copy := copy_of[str(row["message_id"])])}.values())
    for copy in renewed:
        for each in repeats:
            if each.envelope.message_id == copy.envelope.message_id:
                envelope = found[each.position]
                assert isinstance(envelope, Envelope)
                found[each.position] = replace(envelope, position=copy.position)
    if rows:
        await connection.execute(
            RENEW_KEYS,
            [each.envelope.message_id for each in renewed],
            [digest_of(each.payload) for each in renewed],
            [each.position for each in renewed],
        )
        await connection.execute(
            RECORD,
            *zip(
                *{row["before"]: (row["before"], row["message_id"], row["ended"]) for row in rows}.values(), strict=True
            ),
        )
    # Of a segment, only those messages began a new life that were removed: the copy as a whole is a repeat.
    return {copy.position for copy in renewed if not copy.envelope.size}


def conflict_of(copy: Copy) -> Conflict:
    """A copy with another content than the first one under its key."""
    envelope = copy.envelope
    error = (
        f"the Idempotency-Key of message {envelope.message_id} was used again with another content; this is the second "
        "content: replay it as a message of its own, or delete it"
    )
    message_id = copy_id(copy.position)
    if envelope.size:
        message_id = segments.keyed_segment_id(message_id)
    own = Envelope(message_id, envelope.entity, envelope.received_at, position=copy.position, size=envelope.size)
    return Conflict(own, error)
