"""The statuses of messages: ``message_status`` by id, by pages, by status and by hour.

Every method raises DatabaseUnavailable, NotSetUp or DatabaseRefused.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import asyncpg
import msgspec

from nomnom.connections.postgres import Database
from nomnom.envelope import Status, is_keyed
from nomnom.inspection.counts import SCANNED, Count, count_rows, table_states
from nomnom.inspection.cursors import InvalidQuery, read_cursor, write_cursor
from nomnom.message_status import EDGE, FIND, FIND_KEY, INDEXED, PAGE, PROCESSED, REPLAYS, WITH_PREFIX
from nomnom.receipts import HourCount, read_hours
from nomnom.segments import is_in_segment, segment_of

_TABLE = "message_status"
_FOREVER = datetime(9999, 1, 1, tzinfo=UTC)
_NEVER = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_ID = uuid.UUID(int=2**128 - 1)
_LATEST = int(_FOREVER.timestamp() * 1000)
"""The last time that is read from an ID, in milliseconds."""
_MOMENT = timedelta(microseconds=1)
_NEAR = timedelta(hours=1)
"""A UUIDv7 was made at most this long before its message was received, and by the same clock."""


@dataclass(frozen=True, slots=True)
class MessageStatus:
    """The row of a message. ``replays`` counts the lives that began with a replay, ``retry_count`` failed attempts."""

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
class StatusPage:
    """Messages, the newest first. ``next`` continues them; ``searched_to`` is how far back this page searched."""

    messages: list[MessageStatus]
    next: str | None
    searched_to: datetime | None


@dataclass(frozen=True, slots=True)
class StatusCount:
    """How many messages have a status."""

    status: Status
    messages: int
    exact: bool

    def __str__(self) -> str:
        return str(Count(self.messages, self.exact))


@dataclass(frozen=True, slots=True)
class Answer:
    """The part of a row that decides about a replay: the status, and the life that it describes."""

    status: Status
    replays: int


_ENDING = 0.5
"""Seconds after which the transaction of a batch has ended."""


class _Position(msgspec.Struct, frozen=True):
    received_at: datetime
    message_id: uuid.UUID


class Statuses:
    """``message_status``, read."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, message_id: str) -> MessageStatus | None:
        """The row of one message; None until a worker has written one."""
        for low, high in await self._times(message_id):
            row = await self._database.fetch_row(FIND, message_id, low, high)
            if row is not None:
                return _message(row)
        return None

    async def _times(self, message_id: str) -> list[tuple[datetime, datetime]]:
        """When the message may have been received, the likely time first: it leads to one partition of the table."""
        always = (_NEVER, _FOREVER)
        if is_keyed(message_id):
            key_id = segment_of(message_id) if is_in_segment(message_id) else message_id
            key = await self._database.fetch_row(FIND_KEY, key_id)
            return [(key["received_at"], key["received_at"] + _MOMENT), always] if key else [always]
        milliseconds = uuid.UUID(message_id).int >> 80
        if not 0 < milliseconds < _LATEST:  # not a UUIDv7
            return [always]
        made = datetime.fromtimestamp(milliseconds / 1000, UTC)
        return [(made - _NEAR, made + _NEAR), always]

    async def processed(self, seconds: float) -> int:
        """How many messages were completed, became dead letters or were removed in so many seconds, until a moment ago:
        a transaction that has not ended is counted the next time.
        """
        return int((await self._database.fetch(PROCESSED, seconds, _ENDING))[0]["messages"])

    async def page(
        self,
        *,
        limit: int,
        cursor: str | None = None,
        status: Status | None = None,
        entity: str | None = None,
        error: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> StatusPage:
        """A page of messages, the newest first; ``error`` is a part of the error text in any case of letters.

        A filter that no index answers is applied to a bounded number of rows: a page may hold fewer messages than
        ``limit`` and still have a next one. Raises InvalidQuery.
        """
        if status is Status.ACCEPTED:
            raise InvalidQuery("accepted messages have no status row yet: see the messages of the stream")
        start = read_cursor(cursor, _Position) if cursor else _Position(until or _FOREVER, _LAST_ID)
        indexed = status if status in PAGE else None
        bounds = (start.received_at, start.message_id, since or _NEVER, SCANNED)
        async with self._database.connection() as connection:
            rows = await connection.fetch(PAGE[indexed], *bounds, entity, status, error, limit + 1)
            found = [_message(row) for row in rows[:limit]]
            if len(rows) > limit:
                return StatusPage(found, _cursor(rows[limit - 1]), rows[limit - 1]["received_at"])
            edge = None
            if entity or error or status != indexed:
                edge = await connection.fetchrow(EDGE[indexed], *bounds)
        return StatusPage(found, _cursor(edge), edge["received_at"]) if edge else StatusPage(found, None, since)

    async def recent(
        self,
        status: Status | None = None,
        *,
        entity: str | None = None,
        after: MessageStatus | None = None,
        limit: int = 50,
    ) -> list[MessageStatus]:
        """The messages received last, newest first; the next page follows ``after``, the last one of this page."""
        cursor = write_cursor(_Position(after.received_at, uuid.UUID(after.message_id))) if after else None
        found: list[MessageStatus] = []
        while len(found) < limit:
            page = await self.page(limit=limit - len(found), cursor=cursor, status=status, entity=entity)
            found += page.messages
            cursor = page.next
            if cursor is None:
                break
        return found

    async def with_prefix(self, prefix: str, limit: int) -> list[MessageStatus]:
        """The messages whose id begins with these hexadecimal digits, in the order of their ids."""
        digits = prefix.replace("-", "").lower()
        low, high = uuid.UUID(digits.ljust(32, "0")), uuid.UUID(digits.ljust(32, "f"))
        return [_message(row) for row in await self._database.fetch(WITH_PREFIX, low, high, limit)]

    async def counts(self) -> list[StatusCount]:
        """Messages by status. Few are counted, many are estimated; completed are all that have no other status."""
        async with self._database.connection() as connection:
            estimate = (await table_states(connection, [_TABLE]))[_TABLE].estimate
            # An index holds these alone, so counting them is cheap whatever the table's size.
            sources = {status: f"{_TABLE} WHERE status = '{status}'" for status in INDEXED}
            counts = await count_rows(connection, {_TABLE: estimate}, sources)
        total, others = counts[_TABLE], {Status(each): counts[each] for each in INDEXED}
        completed = max(0, total.rows - sum(each.rows for each in others.values()))
        exact = total.exact and all(each.exact for each in others.values())
        found = others | {Status.COMPLETED: Count(completed, exact)}
        return [StatusCount(each, found[each].rows, found[each].exact) for each in Status if each in found]

    async def by_hour(self, hours: int = 24) -> list[HourCount]:
        """Messages by hour of receipt and status, for the last ``hours`` hours; hours without messages are left out."""
        return await read_hours(self._database, hours)

    async def answers(self, message_ids: Sequence[str]) -> dict[str, Answer]:
        """Status and life of each of these messages that has a row."""
        if not message_ids:
            return {}
        rows = await self._database.fetch(REPLAYS, message_ids)
        return {str(row["message_id"]): Answer(Status(row["status"]), row["replays"]) for row in rows}


def _message(row: asyncpg.Record) -> MessageStatus:
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


def _cursor(row: asyncpg.Record) -> str:
    return write_cursor(_Position(row["received_at"], uuid.UUID(str(row["message_id"]))))
