"""The messages that workers have answered: ``message_status``, by pages, by status and by hour."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import asyncpg

from nomnom.envelope import Status
from nomnom.message_status import FIND
from nomnom.presentation.figures import approximate_count
from nomnom_control.errors import ControlError
from nomnom_control.session.connections import Database

EXACT_BELOW = 100_000
_HOURS_TIMEOUT = 10.0

_COLUMNS = "message_id, entity_type, status, received_at, processed_at, retry_count, error_message, superseded, replays"

RECENT = f"""
SELECT {_COLUMNS}
FROM message_status
WHERE ($1::timestamptz IS NULL OR (received_at, message_id) < ($1, $2::uuid))
  AND ($3::text IS NULL OR entity_type = $3)
ORDER BY received_at DESC, message_id DESC
LIMIT $4
"""  # noqa: S608

# The literal lets PostgreSQL use the small index of what is not completed.
RECENT_UNFINISHED = f"""
SELECT {_COLUMNS}
FROM message_status
WHERE status = $5 AND status <> 'completed'
  AND ($1::timestamptz IS NULL OR (received_at, message_id) < ($1, $2::uuid))
  AND ($3::text IS NULL OR entity_type = $3)
ORDER BY received_at DESC, message_id DESC
LIMIT $4
"""  # noqa: S608

RECENT_COMPLETED = f"""
SELECT {_COLUMNS}
FROM message_status
WHERE status = 'completed'
  AND ($1::timestamptz IS NULL OR (received_at, message_id) < ($1, $2::uuid))
  AND ($3::text IS NULL OR entity_type = $3)
ORDER BY received_at DESC, message_id DESC
LIMIT $4
"""  # noqa: S608

UNFINISHED = "SELECT status, count(*) AS messages FROM message_status WHERE status <> 'completed' GROUP BY status"
COMPLETED = "SELECT count(*) FROM message_status WHERE status = 'completed'"
ESTIMATE = "SELECT reltuples::bigint FROM pg_class WHERE oid = to_regclass('message_status')"

HOURS = """
SELECT date_trunc('hour', received_at, 'UTC') AS hour, status, count(*) AS messages,
       count(*) FILTER (WHERE superseded) AS superseded
FROM message_status
WHERE received_at >= $1
GROUP BY 1, 2
ORDER BY 1, 2
"""

STATES = "SELECT message_id, status, replays FROM message_status WHERE message_id = ANY($1::uuid[])"


@dataclass(frozen=True, slots=True)
class MessageStatus:
    """What a worker said of a message. ``replays`` counts the lives that began with a replay."""

    message_id: str
    entity: str
    status: Status
    received_at: datetime
    processed_at: datetime | None
    retry_count: int
    error: str | None
    superseded: bool
    replays: int


@dataclass(frozen=True, slots=True)
class StatusCount:
    """How many messages have a status; an estimate is from PostgreSQL's own number of rows."""

    status: Status
    messages: int
    exact: bool

    def __str__(self) -> str:
        return approximate_count(self.messages, exact=self.exact)


@dataclass(frozen=True, slots=True)
class HourCount:
    """Messages received in the hour that begins at ``hour`` (UTC), by status now."""

    hour: datetime
    status: Status
    messages: int
    superseded: int


@dataclass(frozen=True, slots=True)
class Answer:
    """The part of a row that decides about a replay: the status, and of which life it speaks."""

    status: Status
    replays: int


class Statuses:
    """``message_status``, read. Every method raises DatabaseUnavailable, NotSetUp or DatabaseRefused."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, message_id: str) -> MessageStatus | None:
        """One message's row; None before a worker has answered."""
        async with self._database.connection() as connection:
            row = await connection.fetchrow(FIND, message_id)
        return _status(row) if row else None

    async def recent(
        self,
        status: Status | None = None,
        *,
        entity: str | None = None,
        after: MessageStatus | None = None,
        limit: int = 50,
    ) -> list[MessageStatus]:
        """The messages received last, newest first; the next page is that ``after`` the last one of this.

        Raises ControlError for ``accepted``, which no row ever has: those messages are in the stream.
        """
        if status is Status.ACCEPTED:
            raise ControlError("accepted messages have no row yet: look at the messages of the stream")
        bounds = (after.received_at, after.message_id) if after else (None, None)
        statement, extra = RECENT, list[str]()
        if status is Status.COMPLETED:
            statement = RECENT_COMPLETED
        elif status is not None:
            statement, extra = RECENT_UNFINISHED, [status.value]
        async with self._database.connection() as connection:
            rows = await connection.fetch(statement, *bounds, entity, limit, *extra)
        return [_status(row) for row in rows]

    async def counts(self) -> list[StatusCount]:
        """Messages by status. Those not completed are counted; a large number of completed ones is estimated."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(UNFINISHED)
            unfinished = {Status(row["status"]): int(row["messages"]) for row in rows}
            estimate = int(await connection.fetchval(ESTIMATE) or -1)
            exact = estimate < EXACT_BELOW
            completed = (
                int(await connection.fetchval(COMPLETED) or 0) if exact else max(0, estimate - sum(unfinished.values()))
            )
        return [
            StatusCount(each, completed, exact)
            if each is Status.COMPLETED
            else StatusCount(each, unfinished.get(each, 0), exact=True)
            for each in (Status.PROCESSING, Status.COMPLETED, Status.FAILED, Status.DLQ)
        ]

    async def by_hour(self, hours: int = 24) -> list[HourCount]:
        """Messages by the hour of their receipt and status, for so many hours up to now; hours without are left out."""
        now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
        async with self._database.connection(_HOURS_TIMEOUT) as connection:
            rows = await connection.fetch(HOURS, now - timedelta(hours=hours - 1))
        return [HourCount(row["hour"], Status(row["status"]), row["messages"], row["superseded"]) for row in rows]

    async def answers(self, message_ids: Sequence[str]) -> dict[str, Answer]:
        """What workers have said of these messages; those without a row are left out."""
        if not message_ids:
            return {}
        async with self._database.connection() as connection:
            rows = await connection.fetch(STATES, message_ids)
        return {str(row["message_id"]): Answer(Status(row["status"]), row["replays"]) for row in rows}


def _status(row: asyncpg.Record) -> MessageStatus:
    return MessageStatus(
        str(row["message_id"]),
        row["entity_type"],
        Status(row["status"]),
        row["received_at"],
        row["processed_at"],
        row["retry_count"],
        row["error_message"],
        row["superseded"],
        row["replays"],
    )
