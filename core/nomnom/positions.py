"""Positions: the order of messages is the order in which JetStream stored them, whatever any clock says.

A stream that is deleted and created again counts from 1 again. Therefore a position is the number of the stream's
incarnation, assigned by PostgreSQL when a worker first sees it, and the sequence in it: one integer, in order.
"""

from __future__ import annotations

from datetime import datetime

import asyncpg

SEQUENCE_BITS = 48
"""Bits of the sequence: 89 years at 100,000 messages per second. The incarnation has the other 15 of a bigint."""
LARGEST_SEQUENCE = (1 << SEQUENCE_BITS) - 1
BLOCK_BITS = 10
"""Bits of the sequences in a block of the account. Segments of 1,000 messages make that a million rows."""

# JetStream reports nanoseconds: nats-py cuts them off, msgspec rounds them.
_FIND = """
SELECT incarnation FROM nomnom_streams
WHERE stream = $1 AND created BETWEEN $2::timestamptz - interval '1 microsecond' AND $2 + interval '1 microsecond'
"""
# The lock makes numbers dense and ascending; a conflict would use one up.
_LOCK = "LOCK TABLE nomnom_streams IN SHARE ROW EXCLUSIVE MODE"
_ADD = """
INSERT INTO nomnom_streams (incarnation, stream, created)
SELECT coalesce(max(incarnation), 0) + 1, $1, $2 FROM nomnom_streams
RETURNING incarnation
"""

RECORD = """
INSERT INTO nomnom_sequences AS kept (position, message_id, kind)
SELECT position, message_id, kind
FROM unnest($1::bigint[], $2::uuid[], $3::text[]) AS given (position, message_id, kind)
ON CONFLICT (position) DO UPDATE SET kind = excluded.kind
WHERE kept.kind IN ('purged', 'undone') AND excluded.kind IN ('replay', 'repeat')
"""
"""Record which message a copy in the stream belongs to, by its own position: a replay, a repeat under the same key. One
that a worker held when it was removed is delivered nevertheless.
"""


def position_of(incarnation: int, sequence: int) -> int:
    """The position of a sequence of the stream's incarnation."""
    return incarnation << SEQUENCE_BITS | sequence


def sequence_of(position: int) -> int:
    """The stream sequence in a position."""
    return position & LARGEST_SEQUENCE


def incarnation_of(position: int) -> int:
    """The number of the stream's incarnation in a position."""
    return position >> SEQUENCE_BITS


async def find_stream(connection: asyncpg.Connection, stream: str, created: datetime) -> int | None:
    """The number of the incarnation of a stream that was created at this time; None if it has none yet."""
    found = await connection.fetchval(_FIND, stream, created)
    return None if found is None else int(str(found))


async def register_stream(connection: asyncpg.Connection, stream: str, created: datetime) -> int:
    """The number of the incarnation of a stream that was created at this time (which JetStream reports); assigns one
    if there is none yet.
    """
    found = await find_stream(connection, stream, created)
    if found is None:
        async with connection.transaction():
            await connection.execute(_LOCK)
            found = await find_stream(connection, stream, created)
            if found is None:
                found = await connection.fetchval(_ADD, stream, created)
    return int(str(found))
