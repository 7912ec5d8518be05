"""The message finder: messages by status, entity, time and error, and one message with its timeline."""

from __future__ import annotations

import asyncio
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import asyncpg
import msgspec

from nomnom.envelope import DEAD, EnvelopeError, Status, read_envelope
from nomnom.message_status import FIND
from nomnom.presentation.figures import duration
from nomnom.presentation.marks import SUPERSEDED
from nomnom.schema import Schema
from nomnom_dashboard.answers import Event, MessageDetail, MessageList, MessageSummary, WrittenRows
from nomnom_dashboard.broker import Broker, ConsumerInfo, StoredMessage
from nomnom_dashboard.cursors import read_cursor, write_cursor
from nomnom_dashboard.database import Database
from nomnom_dashboard.entity_rows import EntityTable
from nomnom_dashboard.errors import InvalidQueryError, NotFoundError, UnavailableError
from nomnom_dashboard.message_rows import BY_ID_PREFIX, EDGE, HISTORY, NEWEST, PAGE, SEARCHED

_FOREVER = datetime(9999, 1, 1, tzinfo=UTC)
_NEVER = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_ID = uuid.UUID(int=2**128 - 1)
_ROWS = 50
_PAYLOAD_SHOWN = 64 * 1024
_CONSUMER_SECONDS = 0.25


class _Position(msgspec.Struct, frozen=True):
    received_at: datetime
    message_id: uuid.UUID


class Messages:
    """The queries over ``message_status``, and what JetStream knows of messages that have no row yet."""

    def __init__(self, database: Database, broker: Broker, schema: Schema) -> None:
        self._database, self._broker, self._schema = database, broker, schema
        self._consumer: tuple[float, ConsumerInfo] | None = None

    async def newest(self, limit: int) -> list[MessageSummary]:
        """The messages received last, of those that have a row."""
        return [summary(row) for row in await self._database.fetch(NEWEST, limit)]

    async def page(
        self,
        *,
        limit: int,
        cursor: str | None,
        status: str | None,
        entity: str | None,
        error: str | None,
        since: datetime | None,
        until: datetime | None,
        prefix: str | None,
    ) -> MessageList:
        """Messages, the newest first. A rare entity or error is searched for over a bounded number of rows."""
        if prefix:
            return await self._by_prefix(prefix, limit)
        start = read_cursor(cursor, _Position) if cursor else _Position(_aware(until) or _FOREVER, _LAST_ID)
        # A status with an index of its own needs no search.
        known = status if status in PAGE else None
        oldest = _aware(since) or _NEVER
        values = (start.received_at, start.message_id, oldest, SEARCHED, entity, status, error)
        rows = await self._database.fetch(PAGE[known], *values, limit + 1)
        found = [summary(row) for row in rows[:limit]]
        if len(rows) > limit:
            last = rows[limit - 1]
            return MessageList(found, _cursor(last), last["received_at"])
        edge = await self._database.fetch_row(EDGE[known], start.received_at, start.message_id, oldest, SEARCHED)
        return MessageList(found, _cursor(edge), edge["received_at"]) if edge else MessageList(found, None, since)

    async def detail(self, message_id: str) -> MessageDetail:
        """All that is known of one message; raises NotFoundError, or UnavailableError where nobody could be asked."""
        notes: list[str] = []
        row = await self._database.fetch_row(FIND, message_id)
        waiting, dead, consumer = await self._stored(message_id, row, notes)
        if row is None and waiting is None:
            if notes:
                raise UnavailableError(
                    "NATS", f"message {message_id} has no status row, and the stream is unavailable: {notes[0]}"
                )
            raise NotFoundError(f"unknown message ID {message_id}: never accepted, or past retention")
        if row is None or (waiting is not None and _replays(waiting) > row["replays"]):
            return await self._under_way(message_id, row, waiting, consumer, notes)
        written = await self._written(row, notes)
        timeline = await self._timeline(row, notes)
        payload = dead.payload if dead else waiting.payload if waiting else None
        about = summary(row)
        return MessageDetail(
            message_id=message_id,
            entity=about.entity,
            status=about.status,
            received_at=about.received_at,
            processed_at=about.processed_at,
            seconds=about.seconds,
            attempts=about.attempts,
            error=about.error,
            superseded=about.superseded,
            replays=about.replays,
            timeline=timeline,
            rows=written,
            payload=text(payload) if payload is not None else None,
            dead_letter=dead.sequence if dead else None,
            notes=notes,
        )

    async def _by_prefix(self, prefix: str, limit: int) -> MessageList:
        digits = prefix.replace("-", "").lower()
        low, high = uuid.UUID(digits.ljust(32, "0")), uuid.UUID(digits.ljust(32, "f"))
        rows = await self._database.fetch(BY_ID_PREFIX, low, high, limit)
        return MessageList([summary(row) for row in rows], None, None)

    async def _stored(
        self, message_id: str, row: asyncpg.Record | None, notes: list[str]
    ) -> tuple[StoredMessage | None, StoredMessage | None, ConsumerInfo | None]:
        """What the streams hold of a message; a message that is completed is in neither."""
        if row is not None and row["status"] == Status.COMPLETED:
            return None, None, None
        streams = self._broker.streams
        try:
            waiting, dead = await asyncio.gather(
                self._broker.last_of_message(message_id, streams.stream),
                self._broker.last_of_message(message_id, streams.dead_stream, DEAD),
            )
            return waiting, dead, await self._delivered() if waiting else None
        except UnavailableError as error:
            notes.append(str(error))
            return None, None, None

    async def _delivered(self) -> ConsumerInfo:
        now = asyncio.get_running_loop().time()
        if self._consumer is None or now - self._consumer[0] > _CONSUMER_SECONDS:
            self._consumer = (now, await self._broker.consumer())
        return self._consumer[1]

    async def _under_way(
        self,
        message_id: str,
        row: asyncpg.Record | None,
        waiting: StoredMessage | None,
        consumer: ConsumerInfo | None,
        notes: list[str],
    ) -> MessageDetail:
        assert waiting is not None, "asked only where the stream holds it"
        try:
            envelope = read_envelope(waiting.subject, waiting.headers)
        except EnvelopeError as error:
            raise NotFoundError(f"message {message_id} has an invalid envelope: {error}") from error
        delivered = consumer is not None and waiting.sequence <= consumer.delivered.stream_seq
        status: Literal["accepted", "processing"] = "processing" if delivered else "accepted"
        place = f"stream sequence {waiting.sequence:,}"
        timeline = await self._timeline(row, notes) if row else [Event(envelope.received_at, "accepted", place)]
        if row:
            timeline.append(Event(waiting.stored_at, "accepted", f"{place} (replay {envelope.replays})"))
        return MessageDetail(
            message_id=message_id,
            entity=envelope.entity,
            status=status,
            received_at=envelope.received_at,
            processed_at=None,
            seconds=None,
            attempts=0,
            error=None,
            superseded=False,
            replays=envelope.replays,
            timeline=timeline,
            rows=[],
            payload=text(waiting.payload),
            dead_letter=None,
            notes=notes,
        )

    async def _written(self, row: asyncpg.Record, notes: list[str]) -> list[WrittenRows]:
        if row["status"] != Status.COMPLETED or row["superseded"]:
            return []
        name = row["entity_type"]
        entities = [each for each in self._schema if name in (each.name, each.parent.entity if each.parent else None)]
        written: list[WrittenRows] = []
        for entity in entities:
            table = EntityTable(entity)
            try:
                rows = await self._database.fetch(table.written_by, row["received_at"], row["message_id"], _ROWS + 1)
            except UnavailableError as error:
                notes.append(f"rows of {entity.table}: {error}")
                continue
            if rows:
                shown = [table.row(each) for each in rows[:_ROWS]]
                written.append(WrittenRows(entity.name, entity.table, shown, complete=len(rows) <= _ROWS))
        return written

    async def _timeline(self, row: asyncpg.Record, notes: list[str]) -> list[Event]:
        status, failures = row["status"], row["retry_count"]
        events = [Event(row["received_at"], "accepted", f"entity {row['entity_type']}")]
        at, error = row["processed_at"] or row["received_at"], row["error_message"] or ""
        if status == Status.COMPLETED and row["superseded"]:
            events.append(Event(at, "superseded", error or SUPERSEDED.meaning))
        elif status == Status.COMPLETED:
            took = f"{duration((at - row['received_at']) / timedelta(seconds=1))} after acceptance"
            events.append(Event(at, "completed", f"{took}, after {failures} failed attempts" if failures else took))
        elif status == Status.DLQ:
            events.append(Event(at, "dead_letter", error))
        elif status == Status.FAILED:
            events.append(Event(at, "attempt_failed", f"attempt {failures}: {error}; will be retried"))
        try:
            history = await self._database.fetch(HISTORY, row["message_id"])
        except UnavailableError as problem:
            notes.append(f"audit log: {problem}")
            history = []
        events += [
            Event(each["at"], "operator", f"{each['action']} by {each['actor']}: {each['result']}") for each in history
        ]
        return sorted(events, key=lambda each: each.at)


def summary(row: asyncpg.Record) -> MessageSummary:
    """A status row as it is answered."""
    received_at, processed_at = row["received_at"], row["processed_at"]
    return MessageSummary(
        message_id=str(row["message_id"]),
        entity=row["entity_type"],
        status=row["status"],
        received_at=received_at,
        processed_at=processed_at,
        seconds=(processed_at - received_at) / timedelta(seconds=1) if processed_at else None,
        attempts=row["retry_count"],
        error=row["error_message"],
        superseded=row["superseded"],
        replays=row["replays"],
    )


def text(payload: bytes) -> str:
    """A payload as it may be shown."""
    return payload[:_PAYLOAD_SHOWN].decode(errors="replace")


def _cursor(row: Any) -> str:
    return write_cursor(_Position(row["received_at"], uuid.UUID(str(row["message_id"]))))


def _replays(message: StoredMessage) -> int:
    try:
        return read_envelope(message.subject, message.headers).replays
    except EnvelopeError:
        return 0


def _aware(moment: datetime | None) -> datetime | None:
    if moment is not None and moment.tzinfo is None:
        raise InvalidQueryError("since, until: expected a time with a time zone, such as 2024-01-01T00:00:00Z")
    return moment
