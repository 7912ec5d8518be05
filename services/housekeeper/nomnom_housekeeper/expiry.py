"""Expiry: messages that no worker has processed within the maximum age become dead letters with the reason expired.

The steps, each for a batch: begin (record what is about to expire), publish the dead letters, mark the statuses, remove
the messages from the stream. Each may be repeated after an interruption:

- Before the statuses are set, the messages are in the stream, and the next run finds them and their dead letters.
- After that, a worker that receives such a message finds its status, and does not process it.
- If a worker completes a message after its dead letter was published and before its status was set, the dead letter is
  withdrawn; after an interruption by :meth:`MessageExpiry.recover`, which reads what had begun.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum, auto

import asyncpg
from nats.js.api import PubAck

from nomnom.connections.nats import NatsConnection
from nomnom.connections.postgres import Database
from nomnom.copies import Conflict, Copy, SegmentCopy, apply, settle
from nomnom.dead_letters import DeadLetterRejected, publish_dead_letter
from nomnom.envelope import (
    INGEST,
    MSG_ID,
    REASON,
    REPLAYS,
    Envelope,
    Reason,
    Status,
    dead_headers,
    dead_subject,
    header_text,
    is_keyed,
    new_message_id,
    open_message,
    read_envelope,
    replacement_envelope,
)
from nomnom.inspection.jetstream import JetStream, StreamReport
from nomnom.inspection.jetstream.messages import StoredMessage, read_batch, read_last_each, read_many, read_one
from nomnom.inspection.retention import maximum_age_of
from nomnom.message_status import EXPIRE, RECORD_REPEATS, STANDING
from nomnom.positions import RECORD, incarnation_of, position_of, register_stream, sequence_of
from nomnom.schema import Schema
from nomnom.segments import is_keyed_segment
from nomnom.settings.streams import StreamSettings
from nomnom.stream_changes import delete_message
from nomnom.telemetry import logger
from nomnom_housekeeper.metrics import Metrics

_log = logger(__name__)
_RECOVERED = 10_000
_FINAL = frozenset({Status.DLQ, Status.DELETED, Status.EXPIRED})
"""Statuses that explain a message of the same replay generation: it has or had a dead letter."""
_BEGIN = """
INSERT INTO nomnom_expiring (position, message_id, entity, received_at, replays)
SELECT * FROM unnest($1::bigint[], $2::uuid[], $3::text[], $4::timestamptz[], $5::integer[])
ON CONFLICT (position, message_id) DO NOTHING
"""
_BEGUN = "SELECT position, message_id, entity, received_at, replays FROM nomnom_expiring ORDER BY position LIMIT $1"
_END = """
DELETE FROM nomnom_expiring USING unnest($1::bigint[], $2::uuid[]) AS given (position, message_id)
WHERE nomnom_expiring.position = given.position AND nomnom_expiring.message_id = given.message_id
"""
_FEW = 16
"""Messages of the stream in one batch if there are segments, which may have a thousand messages each."""
_SUBJECTS = 1000


class Step(Enum):
    """What is left to do for a message."""

    EXPIRE = auto()
    REMOVE = auto()
    """It was processed before: only remove it from the stream."""
    LEAVE = auto()
    """Look at it again in the next run."""


@dataclass(slots=True)
class Candidate:
    """A message past the maximum age. ``dead_letter`` is the sequence of its dead letter.

    The messages of a segment have one stored message and position; ``payload`` is that of the message itself.
    """

    message: StoredMessage
    position: int
    envelope: Envelope
    payload: bytes
    reason: Reason = Reason.EXPIRED
    error: str = ""
    attempts: int = 0
    step: Step = Step.EXPIRE
    dead_letter: int | None = None
    certain: bool = True
    """Whether it is known that there is no dead letter, if there is no sequence."""

    @property
    def identity(self) -> tuple[str, datetime]:
        """What identifies its status row."""
        return self.envelope.message_id, self.envelope.received_at


class MessageExpiry:
    """Moves messages past the maximum age to the dead letters. Methods raise RequestError."""

    def __init__(
        self,
        nats: NatsConnection,
        database: Database,
        streams: StreamSettings,
        metrics: Metrics,
        *,
        schema: Schema,
        batch: int = 200,
    ) -> None:
        self._nats, self._database, self._streams, self._metrics = nats, database, streams, metrics
        self._schema = schema
        self._jetstream, self._batch = JetStream(nats), batch

    async def run(self) -> int:
        """Move every message past the maximum age; returns how many were moved."""
        await self.recover()
        report = await self._jetstream.stream(self._streams.stream)
        limit, oldest = maximum_age_of(report), report.state.oldest
        if limit is None or oldest is None:
            return 0
        # By the clock of nats-server, which is that of the messages' times.
        cutoff = (report.ts or datetime.now(UTC)) - timedelta(seconds=limit)
        start, moved = report.state.first_seq, 0
        while oldest < cutoff and (candidates := await self.find(report, start, cutoff)):
            await self.begin(candidates, limit)
            await self.publish(candidates)
            moved += await self.mark(candidates)
            await self.remove(candidates)
            if all(each.step is Step.LEAVE for each in candidates):
                break
            start = candidates[-1].message.sequence + 1
        if moved:
            _log.warning("messages expired", count=moved, max_age=limit)
        return moved

    async def recover(self) -> None:
        """Finish what an interrupted run had begun, as far as the next run does not."""
        async with self._database.connection() as connection:
            begun = await connection.fetch(_BEGUN, _RECOVERED)
            standing = await _standing(connection, [(str(row["message_id"]), row["received_at"]) for row in begun])
        if not begun:
            return
        report = await self._jetstream.stream(self._streams.stream)
        async with self._database.connection() as connection:
            incarnation = await register_stream(connection, self._streams.stream, report.created)
        sequences = [sequence_of(each["position"]) for each in begun if incarnation_of(each["position"]) == incarnation]
        stored = {
            position_of(incarnation, each) for each in await read_many(self._nats, self._streams.stream, sequences)
        }
        ended: list[tuple[int, str]] = []
        for row in begun:
            envelope = Envelope(
                str(row["message_id"]), row["entity"], row["received_at"], row["replays"], row["position"]
            )
            present = standing.get((envelope.message_id, envelope.received_at))
            if present is not None and _is_done(present, envelope.replays):
                if _is_processed(present, envelope.replays):
                    await self._withdraw(envelope)
            elif row["position"] in stored:
                continue  # it is pending; if it is still too old, the next run finds it
            elif await self._find_dead_letter(envelope) is not None:
                error = "expired; it was removed from the stream before its status was set"
                async with self._database.connection() as connection:
                    await connection.fetch(EXPIRE, *_claims([envelope]), [error])
            ended.append((row["position"], envelope.message_id))
        await self._end(ended)

    async def find(self, report: StreamReport, start: int, cutoff: datetime) -> list[Candidate]:
        """The next messages of the stream from sequence ``start`` on that were stored before ``cutoff``."""
        async with self._database.connection() as connection:
            incarnation = await register_stream(connection, self._streams.stream, report.created)
        found: list[Candidate] = []
        for each in (await read_batch(self._nats, self._streams.stream, start, self._batch)).messages:
            if each.stored_at >= cutoff or len(found) >= self._batch * _FEW:
                break
            position = position_of(incarnation, each.sequence)
            opened = open_message(each.subject, each.headers, each.payload, position, self._schema.entity_name)
            if opened is None:
                opened = [(replacement_envelope(each.subject, each.stored_at, position), each.payload)]
            found += (Candidate(each, position, envelope, payload) for envelope, payload in opened)
        return found

    async def begin(self, candidates: Sequence[Candidate], limit: float) -> None:
        """Decide what to do with each message, and record those that expire now."""
        keyed = _keyed(candidates)
        async with self._database.connection() as connection:
            found = await settle(connection, keyed) if keyed else {}
            # What follows must not be lost, unlike new keys.
            await connection.execute("SET LOCAL synchronous_commit TO DEFAULT")
            for each in candidates:
                result = found.get(each.position)
                if isinstance(result, Conflict):
                    each.error, each.reason = result.error, Reason.KEY_CONFLICT
                if result is not None:
                    each.envelope = apply(result, each.envelope)
            standing = await _standing(connection, [each.identity for each in candidates])
            seen: set[tuple[str, datetime]] = set()
            for each in candidates:
                _decide(each, standing.get(each.identity), limit)
                if each.step is Step.EXPIRE and each.identity in seen:
                    each.step = Step.LEAVE  # a repeat, which the next run only removes
                seen.add(each.identity)
            done = [each for each in candidates if each.step is Step.REMOVE]
            await connection.execute(
                RECORD_REPEATS,
                [each.position for each in done],
                [each.envelope.message_id for each in done],
                [each.envelope.received_at for each in done],
            )
            expiring = [each for each in candidates if each.step is Step.EXPIRE]
            await connection.execute(
                _BEGIN,
                [each.position for each in expiring],
                [each.envelope.message_id for each in expiring],
                [each.envelope.entity for each in expiring],
                [each.envelope.received_at for each in expiring],
                [each.envelope.replays for each in expiring],
            )

    async def publish(self, candidates: Sequence[Candidate]) -> None:
        """Store the dead letters that do not exist yet. A message whose dead letter is rejected is left."""
        expiring = [each for each in candidates if each.step is Step.EXPIRE]
        subjects = [dead_subject(each.envelope.entity, each.envelope.message_id) for each in expiring]
        existing = {
            each.subject: each
            for at in range(0, len(subjects), _SUBJECTS)
            for each in await read_last_each(self._nats, self._streams.dead_stream, subjects[at : at + _SUBJECTS])
        }
        missing: list[Candidate] = []
        for each, subject in zip(expiring, subjects, strict=True):
            stored = existing.get(subject)
            if stored is not None and stored.headers.get(REPLAYS) == str(each.envelope.replays):
                each.dead_letter = stored.sequence
            else:
                missing.append(each)
        reasons = [each for each in await asyncio.gather(*(self._publish(each) for each in missing)) if each]
        if reasons:
            self._metrics.rejected.inc(len(reasons))
            stream = self._streams.dead_stream
            _log.error("dead letters rejected, messages kept", count=len(reasons), stream=stream, reason=reasons[0])

    async def mark(self, candidates: Sequence[Candidate]) -> int:
        """Set the statuses of messages with dead letters; withdraws those of messages that a worker has completed.

        Returns how many messages are dead letters now.
        """
        expiring = sorted((each for each in candidates if each.step is Step.EXPIRE), key=lambda each: each.identity)
        if not expiring:
            return 0
        envelopes = [each.envelope for each in expiring]
        copies = [each for each in expiring if each.envelope.replays]
        async with self._database.connection() as connection:
            rows = await connection.fetch(EXPIRE, *_claims(envelopes), [header_text(each.error) for each in expiring])
            await connection.execute(
                RECORD,
                [each.position for each in copies],
                [each.envelope.message_id for each in copies],
                [Status.EXPIRED.value] * len(copies),
            )
        marked = {str(row["message_id"]) for row in rows}
        others = [each for each in expiring if each.envelope.message_id not in marked]
        if others:
            async with self._database.connection() as connection:
                standing = await _standing(connection, [each.identity for each in others])
            for each in others:
                present = standing.get(each.identity)
                if present is not None and _is_processed(present, each.envelope.replays):
                    await self._withdraw(each.envelope)
        self._metrics.expired.inc(len(marked))
        return len(marked)

    async def remove(self, candidates: Sequence[Candidate]) -> None:
        """Remove messages from the stream, and forget that they were expiring. A segment remains if one of its messages
        does.
        """
        left = {each.position for each in candidates if each.step is Step.LEAVE}
        gone = {each.message.sequence for each in candidates if each.position not in left}
        await asyncio.gather(*(delete_message(self._nats, self._streams.stream, each) for each in gone))
        await self._end(
            [
                (each.position, each.envelope.message_id)
                for each in candidates
                if each.step is not Step.LEAVE or each.certain
            ]
        )

    async def _end(self, ended: Sequence[tuple[int, str]]) -> None:
        async with self._database.connection() as connection:
            await connection.execute(_END, [each[0] for each in ended], [each[1] for each in ended])

    async def _publish(self, candidate: Candidate) -> str | None:
        """Store a dead letter; returns why it was not stored, or None."""
        envelope, now = candidate.envelope, datetime.now(UTC)
        headers = dead_headers(envelope, candidate.reason, candidate.error, candidate.attempts, now)
        client, stream = self._nats.client(), self._streams.dead_stream

        async def publish() -> PubAck:
            return await publish_dead_letter(client, stream, envelope, candidate.payload, headers)

        try:
            ack = await publish()
            if ack.duplicate:
                # It may have been deleted since.
                stored = await read_one(self._nats, stream, ack.seq)
                if stored is None or stored.headers.get(MSG_ID) != headers[MSG_ID]:
                    headers[MSG_ID] += f".{new_message_id()}"
                    ack = await publish()
        except DeadLetterRejected as error:
            candidate.step, candidate.certain = Step.LEAVE, error.certain
            return str(error)
        candidate.dead_letter = ack.seq
        return None

    async def _withdraw(self, envelope: Envelope) -> None:
        """Remove the dead letter of a message that expired and was completed nevertheless, if it has one."""
        stored = await self._find_dead_letter(envelope)
        if stored is not None and await delete_message(self._nats, stored.stream, stored.sequence):
            self._metrics.withdrawn.inc()
            _log.info("dead letter withdrawn, its message was completed", message_id=envelope.message_id)

    async def _find_dead_letter(self, envelope: Envelope) -> StoredMessage | None:
        subject = dead_subject(envelope.entity, envelope.message_id)
        for each in await read_last_each(self._nats, self._streams.dead_stream, [subject]):
            if each.headers.get(REPLAYS) == str(envelope.replays) and each.headers.get(REASON) == Reason.EXPIRED:
                return each
        return None


def _keyed(candidates: Sequence[Candidate]) -> list[Copy]:
    """The messages with keys; those of a segment as one."""
    found: dict[int, Copy] = {}
    for each in candidates:
        if each.position in found or not is_keyed(each.envelope.message_id) or each.envelope.replays:
            continue
        message = each.message
        if is_keyed_segment(each.envelope.message_id):
            segment = read_envelope(message.subject, message.headers, INGEST, each.position)
            found[each.position] = SegmentCopy(each.position, segment, message.payload) if segment.size else each
        else:
            found[each.position] = each
    return list(found.values())


def _decide(candidate: Candidate, present: asyncpg.Record | None, limit: float) -> None:
    """Set what to do with a message, given its status row."""
    replays = candidate.envelope.replays
    if present is not None and _is_done(present, replays):
        candidate.step = Step.REMOVE
        return
    if candidate.reason is Reason.EXPIRED:
        candidate.error = f"no worker processed it within {limit:g} s (NATS_MAX_AGE)"
    if present is not None and present["replays"] == replays:
        candidate.attempts = present["retry_count"]
        if present["error_message"]:
            candidate.error += f"; the last attempt failed: {present['error_message']}"


def _is_processed(present: asyncpg.Record, replays: int) -> bool:
    """Whether the message of a row was completed, or replayed later than ``replays`` says."""
    return present["status"] == Status.COMPLETED or present["replays"] > replays


def _is_done(present: asyncpg.Record, replays: int) -> bool:
    """Whether a message with this row needs no dead letter."""
    return _is_processed(present, replays) or (present["replays"] == replays and present["status"] in _FINAL)


async def _standing(
    connection: asyncpg.Connection, identities: Sequence[tuple[str, datetime]]
) -> dict[tuple[str, datetime], asyncpg.Record]:
    """The status rows of messages."""
    if not identities:
        return {}
    times = [received_at for _, received_at in identities]
    rows = await connection.fetch(STANDING, [message_id for message_id, _ in identities], min(times), max(times))
    return {(str(row["message_id"]), row["received_at"]): row for row in rows}


def _claims(envelopes: Iterable[Envelope]) -> tuple[list[str], list[str], list[datetime], list[int], list[int]]:
    given = list(envelopes)
    return (
        [each.message_id for each in given],
        [each.entity for each in given],
        [each.received_at for each in given],
        [each.replays for each in given],
        [each.position for each in given],
    )
