"""The message finder: messages by status, entity, time and error, and one message with its timeline."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any, Literal, cast

from nomnom.connections.errors import RequestError
from nomnom.connections.postgres import Database
from nomnom.envelope import DEAD, REMOVED, EnvelopeError, Status, read_envelope
from nomnom.inspection.history import read_history
from nomnom.inspection.jetstream import ConsumerReport, JetStream, StoredMessage
from nomnom.inspection.rows import EntityTable
from nomnom.inspection.statuses import MessageStatus, Statuses
from nomnom.presentation.figures import duration
from nomnom.presentation.marks import STATUSES, SUPERSEDED
from nomnom.schema import Schema
from nomnom.streams import StreamSettings
from nomnom_dashboard.answers import Event, MessageDetail, MessageList, MessageSummary, WrittenRows
from nomnom_dashboard.entities import row as shown_row
from nomnom_dashboard.errors import InvalidQueryError, NotFoundError, UnavailableError

_ROWS = 50
_PAYLOAD_SHOWN = 64 * 1024
_CONSUMER_SECONDS = 0.25


class Messages:
    """The queries over ``message_status``, and what JetStream knows of messages that have no row yet."""

    def __init__(self, database: Database, jetstream: JetStream, streams: StreamSettings, schema: Schema) -> None:
        self._database, self._jetstream, self._streams, self._schema = database, jetstream, streams, schema
        self._statuses = Statuses(database)
        self._consumer: tuple[float, ConsumerReport] | None = None

    async def newest(self, limit: int) -> list[MessageSummary]:
        """The messages received last, of those that have a row."""
        return [summary(each) for each in (await self._statuses.page(limit=limit)).messages]

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
            found = await self._statuses.with_prefix(prefix, limit)
            return MessageList([summary(each) for each in found], None, None)
        listed = await self._statuses.page(
            limit=limit,
            cursor=cursor,
            status=Status(status) if status else None,
            entity=entity,
            error=error,
            since=_aware(since),
            until=_aware(until),
        )
        return MessageList([summary(each) for each in listed.messages], listed.next, listed.searched_to)

    async def detail(self, message_id: str) -> MessageDetail:
        """All that is known of one message; raises NotFoundError, or UnavailableError where nobody could be asked."""
        notes: list[str] = []
        row = await self._statuses.find(message_id)
        waiting, dead, consumer = await self._stored(message_id, row, notes)
        if row is None and waiting is None:
            if notes:
                raise UnavailableError(
                    f"message {message_id} has no status row, and the stream is unavailable: {notes[0]}"
                )
            raise NotFoundError(f"unknown message ID {message_id}: never accepted, or past retention")
        if row is None or (waiting is not None and (row.status in REMOVED or _replays(waiting) > row.replays)):
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

    async def _stored(
        self, message_id: str, row: MessageStatus | None, notes: list[str]
    ) -> tuple[StoredMessage | None, StoredMessage | None, ConsumerReport | None]:
        """What the streams hold of a message; a message that is completed is in neither."""
        if row is not None and row.status is Status.COMPLETED:
            return None, None, None
        try:
            waiting, dead = await asyncio.gather(
                self._jetstream.pending(self._streams.stream, message_id, self._schema.entity_name),
                self._jetstream.last(self._streams.dead_stream, f"{DEAD}.*.{message_id}"),
            )
            return waiting, dead, await self._delivered() if waiting else None
        except RequestError as error:
            notes.append(str(error))
            return None, None, None

    async def _delivered(self) -> ConsumerReport:
        now = asyncio.get_running_loop().time()
        if self._consumer is None or now - self._consumer[0] > _CONSUMER_SECONDS:
            self._consumer = (now, await self._jetstream.consumer(self._streams.stream, self._streams.consumer))
        return self._consumer[1]

    async def _under_way(
        self,
        message_id: str,
        row: MessageStatus | None,
        waiting: StoredMessage | None,
        consumer: ConsumerReport | None,
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

    async def _written(self, row: MessageStatus, notes: list[str]) -> list[WrittenRows]:
        if row.status is not Status.COMPLETED or row.superseded:
            return []
        name = row.entity
        entities = [each for each in self._schema if name in (each.name, each.parent.entity if each.parent else None)]
        written: list[WrittenRows] = []
        for entity in entities:
            table = EntityTable(entity)
            try:
                rows = await self._database.fetch(table.written_by, row.received_at, row.message_id, _ROWS + 1)
            except RequestError as error:
                notes.append(f"rows of {entity.table}: {error}")
                continue
            if rows:
                shown = [shown_row(table.row(each)) for each in rows[:_ROWS]]
                written.append(WrittenRows(entity.name, entity.table, shown, complete=len(rows) <= _ROWS))
        return written

    async def _timeline(self, row: MessageStatus, notes: list[str]) -> list[Event]:
        status, failures = row.status, row.retry_count
        events = [Event(row.received_at, "accepted", f"entity {row.entity}")]
        at, error = row.processed_at or row.received_at, row.error or ""
        if status is Status.COMPLETED and row.superseded:
            events.append(Event(at, "superseded", error or SUPERSEDED.meaning))
        elif status is Status.COMPLETED:
            took = f"{duration((at - row.received_at) / timedelta(seconds=1))} after acceptance"
            events.append(Event(at, "completed", f"{took}, after {failures} failed attempts" if failures else took))
        elif status is Status.DLQ:
            events.append(Event(at, "dead_letter", error))
        elif status is Status.FAILED:
            events.append(Event(at, "attempt_failed", f"attempt {failures}: {error}; will be retried"))
        elif status in REMOVED:
            events.append(Event(at, cast("Any", status.value), f"{STATUSES[status].meaning}: {error}".rstrip(": ")))
        try:
            history = await read_history(self._database, row.message_id, at if status in REMOVED else None)
        except RequestError as problem:
            notes.append(f"audit log: {problem}")
            history = []
        events += [Event(each.at, "operator", str(each)) for each in history]
        return sorted(events, key=lambda each: each.at)


def summary(row: MessageStatus) -> MessageSummary:
    """A status row as it is returned."""
    return MessageSummary(
        message_id=row.message_id,
        entity=row.entity,
        # No row is "accepted": such a message is in the stream.
        status=cast("Any", row.status.value),
        received_at=row.received_at,
        processed_at=row.processed_at,
        seconds=(row.processed_at - row.received_at) / timedelta(seconds=1) if row.processed_at else None,
        attempts=row.retry_count,
        error=row.error,
        superseded=row.superseded,
        replays=row.replays,
    )


def text(payload: bytes) -> str:
    """A payload as it may be shown."""
    return payload[:_PAYLOAD_SHOWN].decode(errors="replace")


def _replays(message: StoredMessage) -> int:
    try:
        return read_envelope(message.subject, message.headers).replays
    except EnvelopeError:
        return 0


def _aware(moment: datetime | None) -> datetime | None:
    if moment is not None and moment.tzinfo is None:
        raise InvalidQueryError("since, until: expected a time with a time zone, such as 2024-01-01T00:00:00Z")
    return moment
