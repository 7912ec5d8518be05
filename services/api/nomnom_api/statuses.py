"""The status of a message: from its row in PostgreSQL, or from JetStream before a worker has written one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from blacksheep import Content, Request, Response
from msgspec import json
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import RawStreamMsg
from nats.js.errors import NotFoundError as JetStreamNotFoundError

from nomnom.connections.errors import RequestError
from nomnom.connections.postgres import Database
from nomnom.envelope import (
    INGEST,
    REMOVED,
    EnvelopeError,
    Status,
    find_in_segment,
    parse_message_id,
    pending_subjects,
    read_envelope,
)
from nomnom.inspection.statuses import MessageStatus
from nomnom.inspection.statuses import Statuses as StatusRows
from nomnom.schema import Schema
from nomnom.settings.streams import StreamSettings
from nomnom_api.answers import MessageState
from nomnom_api.errors import InvalidParameterError, NotFoundError, UnavailableError

_JSON = b"application/json"
_TIMEOUT = 2.0
_CACHE = 0.25


@dataclass(frozen=True, slots=True)
class Pending:
    """A message in the stream: this replay generation has not been processed yet."""

    entity: str
    received_at: datetime | None
    replays: int
    delivered: bool

    @property
    def status(self) -> Status:
        """``processing`` if the message was delivered to a worker, otherwise ``accepted``."""
        return Status.PROCESSING if self.delivered else Status.ACCEPTED


class Statuses:
    """Finds the status of messages."""

    def __init__(
        self, streams: StreamSettings, client: Callable[[], Client], database: Database, schema: Schema
    ) -> None:
        self._streams, self._client, self._rows, self._schema = streams, client, StatusRows(database), schema
        self._delivered = 0
        self._delivered_until = 0.0
        self._asking = asyncio.Lock()

    async def answer(self, request: Request, _: str) -> Response:
        """GET /api/ingest/status/{message_id}."""
        given = (request.route_values or {}).get("message_id") or ""
        message_id = parse_message_id(given)
        if message_id is None:
            raise InvalidParameterError(f"message_id: expected a UUID, found {given[:100]!r}")
        return Response(200, None, Content(_JSON, json.encode(await self.find(message_id))))

    async def find(self, message_id: str) -> MessageState:
        """The status of a message; raises NotFoundError, and UnavailableError or RequestError if it
        cannot be determined.
        """
        try:
            row = await self._rows.find(message_id)
        except RequestError as unavailable:
            pending = await self._pending(message_id)
            if pending is None:
                raise
            return _of_stream(message_id, pending, f"{unavailable}; earlier failed attempts are unknown")
        if row is not None:
            return await self._of_row(row)
        pending = await self._pending(message_id)
        if pending is not None:
            return _of_stream(message_id, pending)
        # It may have left the stream since the first query; then it has a row.
        row = await self._rows.find(message_id)
        if row is None:
            raise NotFoundError(f"unknown message ID {message_id}: never accepted, or past retention")
        return await self._of_row(row)

    async def _of_row(self, row: MessageStatus) -> MessageState:
        note = None
        removed = row.status in REMOVED
        if removed or row.status is Status.DLQ:
            # After a replay it is in the stream again, while the row still describes the previous generation; so it is
            # after the same content was posted again under its key, or if a purge was interrupted.
            try:
                pending = await self._pending(row.message_id)
            except UnavailableError as unavailable:
                note = f"{unavailable}; whether it is pending again is unknown"
            else:
                if pending is not None and (removed or pending.replays > row.replays):
                    return _of_stream(row.message_id, pending)
        return MessageState(
            message_id=row.message_id,
            status=row.status.value,
            entity=row.entity,
            received_at=row.received_at,
            processed_at=row.processed_at,
            retry_count=row.retry_count,
            error=row.error,
            superseded=row.superseded,
            note=note,
        )

    async def _pending(self, message_id: str) -> Pending | None:
        jetstream = self._client().jetstream(timeout=_TIMEOUT)
        for subject in pending_subjects(message_id):
            try:
                # Not a direct get: a lagging replica might not have a message that was just accepted.
                found = await jetstream.get_last_msg(self._streams.stream, subject)
            except JetStreamNotFoundError as error:
                if error.err_code == _NO_STREAM:
                    raise UnavailableError(f"stream {self._streams.stream} does not exist; run nomnom setup") from error
            except (NatsError, OSError, TimeoutError) as error:
                raise _unavailable(error) from error
            else:
                delivered = (found.seq or 0) <= await self._delivered_sequence(jetstream)
                return self._read(message_id, found, delivered)
        return None

    def _read(self, message_id: str, found: RawStreamMsg, delivered: bool) -> Pending:
        subject = found.subject or ""
        try:
            envelope = read_envelope(subject, found.headers)
            if envelope.size:
                entity_name = self._schema.entity_name
                envelope, _ = find_in_segment(envelope, found.data or b"", message_id, entity_name)
        except EnvelopeError:
            # Not published by the API; only its subject is known.
            return Pending(subject.removeprefix(f"{INGEST}.").partition(".")[0], None, 0, delivered)
        return Pending(envelope.entity, envelope.received_at, envelope.replays, delivered)

    async def _delivered_sequence(self, jetstream: JetStreamContext) -> int:
        """The last sequence delivered to workers, cached briefly."""
        now = asyncio.get_running_loop().time
        async with self._asking:
            if now() >= self._delivered_until:
                try:
                    info = await jetstream.consumer_info(self._streams.stream, self._streams.consumer)
                except JetStreamNotFoundError:
                    # Without a consumer, nothing has been delivered.
                    self._delivered = 0
                except (NatsError, OSError, TimeoutError) as error:
                    raise _unavailable(error) from error
                else:
                    self._delivered = (info.delivered.stream_seq if info.delivered else 0) or 0
                self._delivered_until = now() + _CACHE
            return self._delivered


_NO_STREAM = 10059
"""The error code of nats-server for a stream that does not exist."""


def _of_stream(message_id: str, pending: Pending, note: str | None = None) -> MessageState:
    return MessageState(
        message_id=message_id,
        status=pending.status.value,
        entity=pending.entity,
        received_at=pending.received_at,
        note=note if pending.delivered else None,
    )


def _unavailable(error: BaseException) -> UnavailableError:
    return UnavailableError(f"JetStream is unavailable: {str(error) or type(error).__name__}")
