"""Writes a batch in one transaction: claims, rows and superseded messages; bisects it if PostgreSQL rejects it."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import asyncpg

from nomnom.connections.postgres import transaction
from nomnom.envelope import Reason
from nomnom.message_status import CLAIM, RECORD_REPEATS, SUPERSEDE
from nomnom.presentation.marks import SUPERSEDED
from nomnom.schema import Entity, Schema
from nomnom_worker.batches import Batch, writes_of
from nomnom_worker.deliveries import Delivery, Failure
from nomnom_worker.errors import RefusedError
from nomnom_worker.metrics import Metrics
from nomnom_worker.stops import Stops, rejections, required_column

Persist = Callable[[Callable[[asyncpg.Connection], Awaitable[Any]]], Awaitable[Any]]
"""Runs work on the database, waiting through outages; raises RefusedError or AbandonedError."""

_IDS = -2
_QUICK = 1.0
"""Seconds that a batch may take for the next one to be twice as large, after one was too slow."""
_SUPERSEDED = f"{SUPERSEDED.label}: {SUPERSEDED.meaning}"


@dataclass(slots=True)
class Outcome:
    """The result of a batch. Processed messages are committed, now or earlier, and must be acknowledged."""

    processed: list[Delivery] = field(default_factory=list[Delivery])
    failures: list[Failure] = field(default_factory=list[Failure])
    held: list[Delivery] = field(default_factory=list[Delivery])
    """Messages of stopped entities: not attempted, to be delivered again later."""


class Writer:
    """Writes batches of one schema."""

    def __init__(self, schema: Schema, persist: Persist, stops: Stops, metrics: Metrics) -> None:
        self._writes = writes_of(schema)
        self._persist, self._stops, self._metrics = persist, stops, metrics
        self._most: int | None = None  # messages per batch, while more take longer than the time limit

    def batch(self, deliveries: Sequence[Delivery]) -> Batch:
        """Arrange deliveries with distinct message IDs for writing."""
        return Batch(deliveries, self._writes)

    async def write(self, batch: Batch, outcome: Outcome) -> None:
        """Write a batch and add the result of each message to ``outcome``. Raises AbandonedError.

        If PostgreSQL rejects the batch, it is bisected until the offending messages are found: they fail, all others
        are committed. The messages of a table that rejects all rows are held instead.
        """
        if self._stops:
            held = [each for each in batch.deliveries if self._stops.holds(each)]
            if held:
                batch = self._without(batch, held, outcome)
        if not batch.deliveries:
            return
        if self._most is not None and len(batch.deliveries) > self._most:
            await self._halve(batch, outcome)
            return
        await self._write(batch, outcome)

    async def _write(self, batch: Batch, outcome: Outcome, *, repeated: bool = False) -> None:
        started = time.perf_counter()
        try:
            completed = await self._persist(lambda connection: self._transact(connection, batch))
        except RefusedError as error:
            if await self._stopped(batch, error):
                held = [each for each in batch.deliveries if self._stops.holds(each)]
                await self.write(self._without(batch, held, outcome), outcome)
            elif len(batch.deliveries) > 1:
                if error.slow:
                    self._most = len(batch.deliveries) // 2
                await self._halve(batch, outcome)
            elif error.certain or error.slow or repeated:
                outcome.failures.append(Failure(batch.deliveries[0], Reason.DATA, str(error)))
            else:
                await self._write(batch, outcome, repeated=True)
            return
        outcome.processed += batch.deliveries
        self._metrics.completed.inc(completed)
        self._metrics.repeated.inc(len(batch.deliveries) - completed)
        if self._most is not None and time.perf_counter() - started < _QUICK:
            self._most *= 2

    async def _halve(self, batch: Batch, outcome: Outcome) -> None:
        middle = len(batch.deliveries) // 2
        await self.write(self.batch(batch.deliveries[:middle]), outcome)
        await self.write(self.batch(batch.deliveries[middle:]), outcome)

    def _without(self, batch: Batch, held: Sequence[Delivery], outcome: Outcome) -> Batch:
        """The rest of a batch without held messages."""
        outcome.held += held
        ids = {each.message_id for each in held}
        return self.batch([each for each in batch.deliveries if each.message_id not in ids])

    async def _stopped(self, batch: Batch, error: RefusedError) -> dict[Entity, str]:
        """Stop the entities whose tables are the cause of an error; returns them with their reasons."""
        if found := required_column(batch, error.table, error.column):
            sample = next(each for each in batch.deliveries if any(row.entity is found[0] for row in each.records))
            self._stops.begin(*found, (), self.batch([sample]))
            return dict([found])
        if error.certain:
            return {}
        try:
            rejecting: dict[Entity, str] = await self._persist(partial(rejections, statements=batch.statements))
        except RefusedError:
            return {}  # the parts of the batch are tried next, and their errors recorded
        for entity, reason in rejecting.items():
            statements = [each for each in batch.statements if each.table.entity is entity]
            self._stops.begin(entity, reason, statements, None)
        return rejecting

    async def _transact(self, connection: asyncpg.Connection, batch: Batch) -> int:
        """One transaction; returns how many messages it completed."""
        started = time.perf_counter()
        size = len(batch.deliveries)
        written: dict[str, int] = {}
        superseded: list[str] = []
        async with transaction(connection):
            claimed = await connection.fetch(CLAIM, *batch.claims)
            if len(claimed) != size:
                # Exclude messages processed before: they must neither be written nor supersede other rows.
                ours = {str(row[0]) for row in claimed}
                await record_repeats(connection, [each for each in batch.deliveries if each.message_id not in ours])
                batch = self.batch([each for each in batch.deliveries if each.message_id in ours])
            effective: list[asyncpg.Record] = []
            kept = 0
            for statement in batch.statements:
                rows = await connection.fetch(statement.sql, *statement.parameters)
                written[statement.table.entity.table] = written.get(statement.table.entity.table, 0) + len(rows)
                effective += rows
                kept += len(rows) if statement.keyed else len(statement.columns[-1])
            if kept != batch.offered:
                superseded = _without_effect(batch, {str(row[0]) for row in effective})
                if superseded:
                    await connection.execute(SUPERSEDE, superseded, _SUPERSEDED, *batch.bounds)
        metrics = self._metrics
        metrics.batch_seconds.observe(time.perf_counter() - started)
        metrics.batch_size.observe(size)
        metrics.last_batch.set_to_current_time()
        metrics.superseded.inc(len(superseded))
        for table, count in written.items():
            metrics.rows.labels(table).inc(count)
        return len(claimed)


async def record_repeats(connection: asyncpg.Connection, deliveries: Sequence[Delivery]) -> None:
    """Record which messages these copies belong to, which were processed before, unless they are redeliveries."""
    await connection.execute(
        RECORD_REPEATS,
        [each.position for each in deliveries],
        [each.message_id for each in deliveries],
        [each.envelope.received_at for each in deliveries],
    )


def _without_effect(batch: Batch, effective: set[str]) -> list[str]:
    """The messages without any effective row; rows without a key always count, as no other message can write them."""
    for statement in batch.statements:
        if not statement.keyed:
            effective.update(statement.columns[_IDS])
    return [each.message_id for each in batch.deliveries if each.message_id not in effective]
