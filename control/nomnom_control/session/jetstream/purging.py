"""Purging a stream of the pipeline, with a truthful status for every message that goes.

The steps are: spool the audit entry; set the statuses; purge up to the last sequence that was confirmed; write the
entry. The statuses come first, because afterwards nothing is left to read them from. If this is interrupted before the
purge, the next session finds the messages in the stream and takes the statuses back; and a worker that processes such a
message sets its status as for any other.

A message that a worker holds at that time is still processed: then it is completed or a dead letter instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, TypeAlias

import asyncpg
import msgspec

from nomnom.connections.errors import DatabaseUnavailable
from nomnom.copies import Conflict, Copy, SegmentCopy, apply, conflict_of
from nomnom.envelope import (
    INGEST,
    Envelope,
    EnvelopeError,
    Status,
    digest_of,
    is_keyed,
    open_segment,
    read_envelope,
    replacement_envelope,
)
from nomnom.inspection.dead_letters import read_dead_letter
from nomnom.inspection.jetstream import StreamReport
from nomnom.inspection.jetstream.messages import StoredMessage, read_batch
from nomnom.message_status import (
    ADD_KEYS,
    FIND_KEYS,
    REMOVABLE_DEAD_LETTER,
    REMOVABLE_PENDING,
    REMOVE_ATTEMPTED,
    RETURN,
)
from nomnom.positions import RECORD, position_of
from nomnom.removals import remove
from nomnom.tasks import finish
from nomnom_control.session.audit import Action, AuditPending, Entry, Ledger
from nomnom_control.session.jetstream.changes import purge

if TYPE_CHECKING:
    from nomnom_control.session.pipeline import Pipeline

Report: TypeAlias = Callable[[int, int], None]
"""Called with the number of messages whose status is set, and their total."""

_BATCH = 1000
_RANGE = 50_000
"""Sequences whose rows one statement changes."""


@dataclass(slots=True)
class Purge:
    """The purge of one of the pipeline's streams, up to the sequence ``last``."""

    pipeline: Pipeline = field(repr=False)
    report: StreamReport
    last: int
    incarnation: int = 0
    replays: list[Envelope] = field(default_factory=list[Envelope], repr=False)

    async def run(self, progress: Report | None = None) -> int:
        """Purge; returns the number of messages. Cancellation takes effect before the purge itself.

        Raises DatabaseUnavailable before anything is changed.
        """
        try:
            self.incarnation = await self.pipeline.jetstream.incarnation(self.report.name)
            async with self.pipeline.audit.ledger() as ledger:
                entry = self._entry()
                await ledger.prepare([entry])
                await self._set_statuses(entry.at, progress)
                return await finish(self._purge(entry, ledger))
        except DatabaseUnavailable as error:
            raise DatabaseUnavailable(
                f"stream {self.report.name} is not purged, because the statuses of its messages cannot be recorded: "
                f"{error}",
                error.reason,
            ) from error

    def _entry(self) -> Entry:
        state = self.report.state
        detail = {
            "messages": state.messages,
            "bytes": state.bytes,
            "first_sequence": state.first_seq,
            "last_sequence": self.last,
            "incarnation": self.incarnation,
        }
        return Entry(Action.PURGE, "purged", detail=detail, entity=self.report.name)

    async def _purge(self, entry: Entry, ledger: Ledger) -> int:
        purged = await purge(self.pipeline.nats, self.report.name, self.last)
        if self.report.name == self.pipeline.streams.stream:
            try:
                await self._remove_attempted(entry)
            except DatabaseUnavailable as error:
                raise AuditPending(
                    f"{purged:,} messages were purged, but the audit entry is not in PostgreSQL yet: {error}; it is "
                    f"kept in {ledger.spool.path}, and the next session that reaches PostgreSQL writes it",
                    ledger.spool.path,
                    1,
                ) from error
        await ledger.write([replace(entry, result=f"purged {purged:,} messages")])
        return purged

    async def _remove_attempted(self, entry: Entry) -> None:
        """Set the statuses again of messages whose attempts failed between the reading and the purge."""
        await _remove_attempted(self.pipeline, entry)
        for start in range(0, len(self.replays), _BATCH):
            pairs = [(each, entry.at) for each in self.replays[start : start + _BATCH]]
            async with self.pipeline.database.connection() as connection:
                await remove(connection, Status.PURGED, pairs, REMOVABLE_PENDING)

    async def _set_statuses(self, at: datetime, progress: Report | None) -> None:
        name, start, done = self.report.name, self.report.state.first_seq, 0
        pending = name == self.pipeline.streams.stream
        while start <= self.last:
            batch = await read_batch(self.pipeline.nats, name, start, min(_BATCH, self.last - start + 1))
            messages = [each for each in batch.messages if each.sequence <= self.last]
            if not messages:
                return
            async with self.pipeline.database.connection() as connection:
                if pending:
                    await self._set_pending(connection, messages, at)
                else:
                    dead_letters = [each for one in messages if not (each := read_dead_letter(one)).envelope_problem]
                    pairs = [(each.envelope, at) for each in dead_letters]
                    await remove(connection, Status.PURGED, pairs, REMOVABLE_DEAD_LETTER)
            start, done = messages[-1].sequence + 1, done + len(messages)
            if progress is not None:
                progress(done, max(done, self.report.state.messages))

    async def _set_pending(
        self, connection: asyncpg.Connection, messages: Iterable[StoredMessage], at: datetime
    ) -> None:
        originals: list[Envelope] = []
        copies: list[tuple[int, str]] = []
        keyed: list[SegmentCopy] = []
        parts: dict[int, list[Envelope]] = {}
        for message in messages:
            position = position_of(self.incarnation, message.sequence)
            entity_name = self.pipeline.schema.entity_name
            try:
                envelope = read_envelope(message.subject, message.headers, INGEST, position)
                own = [envelope]
                if envelope.size:
                    own = [each for each, _ in open_segment(envelope, message.payload, entity_name)]
            except EnvelopeError:
                originals.append(replacement_envelope(message.subject, message.stored_at, position))
                continue
            if envelope.replays:
                self.replays.append(envelope)
                originals.append(envelope)
                copies.append((position, envelope.message_id))
            elif is_keyed(envelope.message_id):
                keyed.append(SegmentCopy(position, envelope, message.payload))
                parts[position] = own
            else:
                originals += own
        if keyed:
            firsts, repeats = await _sort_keyed(connection, keyed)
            originals += (apply(result, each) for position, result in firsts.items() for each in parts[position])
            copies += repeats
        await remove(connection, Status.PURGED, [(each, at) for each in originals], REMOVABLE_PENDING)
        if copies:
            positions, ids = [each[0] for each in copies], [each[1] for each in copies]
            await connection.execute(RECORD, positions, ids, [Status.PURGED.value] * len(copies))


async def _sort_keyed(
    connection: asyncpg.Connection, keyed: Sequence[Copy]
) -> tuple[dict[int, Envelope | Conflict], list[tuple[int, str]]]:
    """The originals among messages with keys and segments, by position, and the positions and IDs of repeats; as the
    worker sorts them.

    The content of a key is recorded even if no worker has seen it: another content under it remains a conflict.
    """
    digests = [digest_of(each.payload) for each in keyed]
    await connection.fetch(
        ADD_KEYS,
        [each.envelope.message_id for each in keyed],
        digests,
        [each.envelope.received_at for each in keyed],
        [each.position for each in keyed],
    )
    rows = await connection.fetch(FIND_KEYS, [each.envelope.message_id for each in keyed])
    keys = {str(row["message_id"]): row for row in rows}
    originals: dict[int, Envelope | Conflict] = {}
    repeats: list[tuple[int, str]] = []
    for each, digest in zip(keyed, digests, strict=True):
        key = keys[each.envelope.message_id]
        if key["digest"] not in (None, digest):
            originals[each.position] = conflict_of(each)
        elif key["stream_position"] in (0, each.position):
            originals[each.position] = msgspec.structs.replace(each.envelope, received_at=key["received_at"])
        else:
            repeats.append((each.position, each.envelope.message_id))
    return originals, repeats


async def conclude(pipeline: Pipeline, entry: Entry) -> Entry:
    """The entry of a purge whose session ended before the result was known, with the result.

    If the messages are still in the stream, their statuses are restored. Raises NatsUnavailable, NotSetUp or
    DatabaseUnavailable.
    """
    if "incarnation" not in entry.detail:
        return replace(entry, result=entry.unconfirmed)  # of a stream without statuses
    last = int(entry.detail["last_sequence"])
    pending = entry.entity == pipeline.streams.stream
    incarnation = await pipeline.jetstream.incarnation(entry.entity)
    state = (await pipeline.jetstream.stream(entry.entity)).state
    if incarnation == entry.detail["incarnation"] and state.messages and state.first_seq <= last:
        # A row that has no other status yet is that of a message that will be tried.
        before = Status.FAILED if pending else Status.DLQ
        returned = _BATCH
        while returned == _BATCH:
            returned = len(await pipeline.database.fetch(RETURN, entry.at, before.value, _BATCH))
        return replace(entry, result="not purged: interrupted")
    if pending:
        await _remove_attempted(pipeline, entry)
    return replace(entry, result="purged")


async def _remove_attempted(pipeline: Pipeline, entry: Entry) -> None:
    incarnation = int(entry.detail["incarnation"])
    last = int(entry.detail["last_sequence"])
    for start in range(int(entry.detail["first_sequence"]), last + 1, _RANGE):
        low, high = start, min(start + _RANGE - 1, last)
        async with pipeline.database.connection() as connection:
            await connection.execute(
                REMOVE_ATTEMPTED, position_of(incarnation, low), position_of(incarnation, high), entry.at
            )
