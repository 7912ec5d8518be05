"""The archive: dead letters past the maximum age are moved to a table.

The steps, each for a batch: store them, with the statuses of their messages and an entry in the audit log, in one
transaction; then remove them from the stream. After an interruption between the two, the next run finds the rows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import asyncpg
import msgspec

from nomnom.connections.nats import NatsConnection
from nomnom.connections.postgres import Database
from nomnom.envelope import Envelope, Status, new_message_id, parse_message_id
from nomnom.inspection.dead_letters import DeadLetter, read_dead_letter
from nomnom.inspection.jetstream import JetStream
from nomnom.inspection.jetstream.messages import StoredMessage, read_batch
from nomnom.inspection.retention import maximum_age_of
from nomnom.message_status import REMOVABLE_DEAD_LETTER
from nomnom.removals import remove
from nomnom.settings.streams import StreamSettings
from nomnom.stream_changes import delete_message
from nomnom.telemetry import logger
from nomnom_housekeeper.metrics import Metrics

_log = logger(__name__)
ACTOR = "housekeeper"
"""The actor in the audit log."""
_STORE = """
INSERT INTO nomnom_archive (
    sequence, stored_at, message_id, entity, received_at, failed_at, reason, error, subject, headers, payload,
    archived_at
)
SELECT sequence, stored_at, message_id, entity, received_at, failed_at, reason, error, subject, headers, payload, $12
FROM unnest(
    $1::bigint[], $2::timestamptz[], $3::uuid[], $4::text[], $5::timestamptz[], $6::timestamptz[], $7::text[],
    $8::text[], $9::text[], $10::jsonb[], $11::bytea[]
) AS given (
    sequence, stored_at, message_id, entity, received_at, failed_at, reason, error, subject, headers, payload
)
ON CONFLICT (sequence, stored_at) DO NOTHING
RETURNING sequence
"""
_AUDIT = """
INSERT INTO nomnom_audit (event, run, at, actor, action, entity, result, detail)
VALUES ($1, $2, $3, $4, 'expire', $5, $6, $7)
"""


class DeadLetterArchive:
    """Moves dead letters past the maximum age to the archive. Methods raise RequestError."""

    def __init__(
        self, nats: NatsConnection, database: Database, streams: StreamSettings, metrics: Metrics, batch: int = 200
    ) -> None:
        self._nats, self._database, self._stream, self._metrics = nats, database, streams.dead_stream, metrics
        self._jetstream, self._batch = JetStream(nats), batch

    async def run(self) -> int:
        """Archive every dead letter past the maximum age; returns how many were archived."""
        report = await self._jetstream.stream(self._stream)
        limit, oldest = maximum_age_of(report), report.state.oldest
        if limit is None or oldest is None:
            return 0
        # By the clock of nats-server, which is that of the dead letters' times.
        cutoff = (report.ts or datetime.now(UTC)) - timedelta(seconds=limit)
        start, archived, run = report.state.first_seq, 0, new_message_id()
        while oldest < cutoff and (messages := await self.find(start, cutoff)):
            archived += await self.store(messages, limit, run)
            await self.remove(messages)
            start = messages[-1].sequence + 1
        if archived:
            _log.warning("dead letters archived", count=archived, max_age=limit, run=run)
        return archived

    async def find(self, start: int, cutoff: datetime) -> list[StoredMessage]:
        """The next dead letters from sequence ``start`` on that were stored before ``cutoff``."""
        batch = await read_batch(self._nats, self._stream, start, self._batch)
        return [each for each in batch.messages if each.stored_at < cutoff]

    async def store(self, messages: Sequence[StoredMessage], limit: float, run: str) -> int:
        """Store dead letters in the archive and set the status of their messages; returns how many are new there.

        The audit entry has the time that the status rows have, so that it is found by them. ``run`` is its run.
        """
        dead_letters = [read_dead_letter(each) for each in messages]
        async with self._database.connection() as connection:
            now = await connection.fetchval("SELECT statement_timestamp()")
            assert isinstance(now, datetime)
            rows = await connection.fetch(_STORE, *_columns(messages, dead_letters), now)
            new = {row["sequence"] for row in rows}
            if new:
                removed = [each for each in dead_letters if each.sequence in new]
                await _set_statuses(connection, removed, now)
                detail = {
                    "dead_letters": len(new),
                    "max_age": limit,
                    "first_sequence": min(new),
                    "last_sequence": max(new),
                }
                result = f"archived {len(new):,} dead letter{'s' if len(new) > 1 else ''}"
                event, text = new_message_id(), msgspec.json.encode(detail).decode()
                await connection.execute(_AUDIT, event, run, now, ACTOR, self._stream, result, text)
        self._metrics.archived.inc(len(new))
        return len(new)

    async def remove(self, messages: Sequence[StoredMessage]) -> None:
        """Remove archived dead letters from the stream."""
        await asyncio.gather(*(delete_message(self._nats, self._stream, each.sequence) for each in messages))


async def _set_statuses(connection: asyncpg.Connection, dead_letters: Sequence[DeadLetter], now: datetime) -> None:
    removed: list[tuple[Envelope, datetime]] = [
        (each.envelope, now) for each in dead_letters if not each.envelope_problem
    ]
    if removed:
        await remove(connection, Status.EXPIRED, removed, REMOVABLE_DEAD_LETTER)


def _columns(messages: Sequence[StoredMessage], dead_letters: Sequence[DeadLetter]) -> tuple[list[object], ...]:
    """The arrays of the archive's columns. PostgreSQL's text has no NUL characters."""
    return (
        [each.sequence for each in messages],
        [each.stored_at for each in messages],
        [parse_message_id(each.message_id) for each in dead_letters],
        [_text(each.entity) for each in dead_letters],
        [each.received_at for each in dead_letters],
        [each.failed_at for each in dead_letters],
        [_text(each.reason) for each in dead_letters],
        [_text(each.error) for each in dead_letters],
        [_text(each.subject) for each in messages],
        [
            msgspec.json.encode({_text(name): _text(value) for name, value in each.headers.items()}).decode()
            for each in messages
        ],
        [each.payload for each in messages],
    )


def _text(text: str) -> str:
    return text.replace("\0", "�")
