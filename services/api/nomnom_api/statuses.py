"""Where a message is: what PostgreSQL's row says once a worker has written one, and JetStream before that."""

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
from nats.js.errors import NotFoundError as JetStreamNotFoundError

from nomnom.connections.errors import RequestError
from nomnom.connections.postgres import Database
from nomnom.envelope import INGEST, EnvelopeError, Status, parse_message_id, read_envelope
from nomnom.inspection.statuses import MessageStatus
from nomnom.inspection.statuses import Statuses as StatusRows
from nomnom.streams import StreamSettings
from nomnom_api.answers import MessageState
from nomnom_api.errors import InvalidParameterError, NotFoundError, UnavailableError

_JSON = b"application/json"
_TIMEOUT = 2.0
_KEEP = 0.25


@dataclass(frozen=True, slots=True)
class Waiting:
    """A message in the stream: no worker has finished this replay generation of it."""

    entity: str
    received_at: datetime | None
    replays: int
    delivered: bool

    @property
    def status(self) -> Status:
        """Processing once a worker has been given it."""
        return Status.PROCESSING if self.delivered else Status.ACCEPTED


class Statuses:
    """Answers where messages are."""

    def __init__(self, streams: StreamSettings, client: Callable[[], Client], database: Database) -> None:
        self._streams, self._client, self._rows = streams, client, StatusRows(database)
        self._delivered = 0
        self._delivered_until = 0.0
        self._asking = asyncio.Lock()

    async def answer(self, request: Request) -> Response:
        """GET /api/ingest/status/{message_id}."""
        given = (request.route_values or {}).get("message_id") or ""
        message_id = parse_message_id(given)
        if message_id is None:
            raise InvalidParameterError(f"message_id: expected a UUID, found {given[:100]!r}")
        return Response(200, None, Content(_JSON, json.encode(await self.find(message_id))))

    async def find(self, message_id: str) -> MessageState:
        """A message's state; raises NotFoundError, or UnavailableError or RequestError if it is not known for sure."""
        try:
            row = await self._rows.find(message_id)
        except RequestError as error:
            waiting = await self._waiting(message_id)
            if waiting is None:
                raise
            return _of_stream(message_id, waiting, f"{error}. An earlier failed attempt would not be known")
        if row is not None:
            return await self._of_row(row)
        waiting = await self._waiting(message_id)
        if waiting is not None:
            return _of_stream(message_id, waiting)
        # It may have left the stream between the two looks; it has a row then.
        row = await self._rows.find(message_id)
        if row is None:
            raise NotFoundError(f"no message {message_id} is known: none was accepted, or it was removed long ago")
        return await self._of_row(row)

    async def _of_row(self, row: MessageStatus) -> MessageState:
        note = None
        if row.status is Status.DLQ:
            # Replayed, it waits in the stream again: the row still describes the generation before.
            try:
                waiting = await self._waiting(row.message_id)
            except UnavailableError as away:
                note = f"{away}; a replay that waits in the stream would not be known"
            else:
                if waiting is not None and waiting.replays > row.replays:
                    return _of_stream(row.message_id, waiting)
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

    async def _waiting(self, message_id: str) -> Waiting | None:
        jetstream = self._client().jetstream(timeout=_TIMEOUT)
        try:
            # Not a direct get: a replica that lags would deny a message that was just accepted.
            found = await jetstream.get_last_msg(self._streams.stream, f"{INGEST}.*.{message_id}")
        except JetStreamNotFoundError as error:
            if error.err_code == _NO_STREAM:
                raise UnavailableError(f"stream {self._streams.stream} does not exist: run nomnom setup") from error
            return None
        except (NatsError, OSError, TimeoutError) as error:
            raise _away(error) from error
        delivered = (found.seq or 0) <= await self._delivered_sequence(jetstream)
        subject = found.subject or ""
        try:
            envelope = read_envelope(subject, found.headers)
        except EnvelopeError:
            # Not published by an api: its subject says what is known.
            return Waiting(subject.removeprefix(f"{INGEST}.").partition(".")[0], None, 0, delivered)
        return Waiting(envelope.entity, envelope.received_at, envelope.replays, delivered)

    async def _delivered_sequence(self, jetstream: JetStreamContext) -> int:
        """The last sequence that workers were given, as of a moment ago."""
        now = asyncio.get_running_loop().time
        async with self._asking:
            if now() >= self._delivered_until:
                try:
                    info = await jetstream.consumer_info(self._streams.stream, self._streams.consumer)
                except JetStreamNotFoundError:
                    # Without a consumer nothing was ever delivered.
                    self._delivered = 0
                except (NatsError, OSError, TimeoutError) as error:
                    raise _away(error) from error
                else:
                    self._delivered = (info.delivered.stream_seq if info.delivered else 0) or 0
                self._delivered_until = now() + _KEEP
            return self._delivered


_NO_STREAM = 10059
"""nats-server's error code of a stream that does not exist."""


def _of_stream(message_id: str, waiting: Waiting, note: str | None = None) -> MessageState:
    return MessageState(
        message_id=message_id,
        status=waiting.status.value,
        entity=waiting.entity,
        received_at=waiting.received_at,
        note=note if waiting.delivered else None,
    )


def _away(error: BaseException) -> UnavailableError:
    return UnavailableError(f"JetStream does not answer: {str(error) or type(error).__name__}")
