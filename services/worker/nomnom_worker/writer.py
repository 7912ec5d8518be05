"""Writes a batch in one transaction: claims, rows and superseded messages; bisects it on data errors."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import asyncpg

from nomnom.envelope import Reason
from nomnom.message_status import CLAIM, RECORD_REPEATS, SUPERSEDE
from nomnom.presentation.marks import SUPERSEDED
from nomnom.schema import Schema
from nomnom_worker.batches import Batch, writes_of
from nomnom_worker.deliveries import Delivery, Failure
from nomnom_worker.errors import RefusedError
from nomnom_worker.metrics import Metrics

T = TypeVar("T")
Persist = Callable[[Callable[[asyncpg.Connection], Awaitable[T]]], Awaitable[T]]
"""Runs work on the database, waiting through outages; raises RefusedError or AbandonedError."""

_IDS = -2
_SUPERSEDED = f"{SUPERSEDED.label}: {SUPERSEDED.meaning}"


@dataclass(slots=True)
class Outcome:
    """The result of a batch. Processed messages are committed, now or earlier, and must be acknowledged."""

    processed: list[Delivery] = field(default_factory=list[Delivery])
    failures: list[Failure] = field(default_factory=list[Failure])


class Writer:
    """Writes batches of one schema."""

    def __init__(self, schema: Schema, persist: Persist[int], metrics: Metrics) -> None:
        self._writes = writes_of(schema)
        self._persist, self._metrics = persist, metrics

    def batch(self, deliveries: Sequence[Delivery]) -> Batch:
        """Arrange deliveries with distinct message IDs for writing."""
        return Batch(deliveries, self._writes)

    async def write(self, batch: Batch, outcome: Outcome) -> None:
        """Write a batch and add the result of each message to ``outcome``. Raises AbandonedError.

        If PostgreSQL rejects the batch, it is bisected until the offending messages are found: they fail, all others
        are committed.
        """
        if not batch.deliveries:
            return
        try:
            completed = await self._persist(lambda connection: self._transact(connection, batch))
        except RefusedError as error:
            if len(batch.deliveries) == 1:
                outcome.failures.append(Failure(batch.deliveries[0], Reason.DATA, str(error)))
                return
            middle = len(batch.deliveries) // 2
            await self.write(self.batch(batch.deliveries[:middle]), outcome)
            await self.write(self.batch(batch.deliveries[middle:]), outcome)
            return
        outcome.processed += batch.deliveries
        self._metrics.completed.inc(completed)
        self._metrics.repeated.inc(len(batch.deliveries) - completed)

    async def _transact(self, connection: asyncpg.Connection, batch: Batch) -> int:
        """One transaction; returns how many messages it completed."""
        started = time.perf_counter()
        size = len(batch.deliveries)
        written: dict[str, int] = {}
        superseded: list[str] = []
        async with connection.transaction():
            claimed = await connection.fetch(CLAIM, *batch.claims)
            if len(claimed) != size:
                # Exclude messages processed before: they must neither be written nor supersede other rows.
                ours = {str(row[0]) for row in claimed}
                await record_repeats(connection, [each for each in batch.deliveries if each.message_id not in ours])
                batch = self.batch([each for each in batch.deliveries if each.message_id in ours])
            effective: list[asyncpg.Record] = []
            kept = 0
            for statement in batch.statements:
                rows = await connection.fetch(statement.sql, *statement.columns)
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
