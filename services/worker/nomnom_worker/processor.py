"""Processes batches in two stages: while PostgreSQL writes one batch, the next is received and parsed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from operator import attrgetter
from typing import Any

import asyncpg

from nomnom.grammar import Grammar
from nomnom.retry import RECONNECT
from nomnom.schema import Schema
from nomnom.settings import WorkerSettings
from nomnom.telemetry import logger
from nomnom_worker.batches import Batch, distinct
from nomnom_worker.copies import Copies
from nomnom_worker.database import Session
from nomnom_worker.deliveries import Delivery, Reader, Readings
from nomnom_worker.errors import AbandonedError, OutageError, RefusedError
from nomnom_worker.failures import Finalizer
from nomnom_worker.intake import Intake
from nomnom_worker.link import ACK, Link
from nomnom_worker.metrics import Metrics
from nomnom_worker.stops import Stops
from nomnom_worker.writer import Outcome, Writer

_log = logger(__name__)
_LAST_ATTEMPTS = 3.0
_IDLE = 5.0
_MESSAGE_ID = attrgetter("message_id")
Prepared = tuple[Batch, list[Delivery], Readings]
"""A batch ready to write, redeliveries of messages in it, and the other results of reading it."""


class Processor:
    """Two stages, each run as a task: :meth:`prepare` and :meth:`process`."""

    def __init__(
        self,
        settings: WorkerSettings,
        schema: Schema,
        *,
        database: Session,
        intake: Intake,
        link: Link,
        metrics: Metrics,
    ) -> None:
        self._database, self._intake, self._metrics = database, intake, metrics
        self._reader = Reader(Grammar(schema), max(2, settings.max_deliver))
        self.stops = Stops(metrics)
        """The entities that are stopped because of their tables."""
        self._writer = Writer(schema, self.persist, self.stops, metrics)
        self._copies = Copies(self.persist)
        self._finalizer = Finalizer(
            settings,
            persist=self.persist,
            reader=self._reader,
            writer=self._writer,
            stops=self.stops,
            intake=intake,
            link=link,
            metrics=metrics,
        )
        self._prepared: asyncio.Queue[Prepared | None] = asyncio.Queue(1)
        self._stopping = asyncio.Event()
        # At most two statements per table, and three more per transaction.
        self._stuck_after = _IDLE + RECONNECT.longest + (2 * len(schema.entities) + 5) * settings.database_timeout
        self._progressed = asyncio.get_running_loop().time()

    @property
    def stuck(self) -> float | None:
        """Seconds without progress of the processing stage, if that is longer than an outage explains; else None."""
        since = asyncio.get_running_loop().time() - self._progressed
        return since if since > self._stuck_after else None

    def stop(self) -> None:
        """Finish the remaining messages; from now on, wait through an outage for a few seconds only."""
        self._finalizer.stopping = True
        self._stopping.set()

    async def prepare(self) -> None:
        """Receive, parse and arrange batches, each while the previous one is written; ends with the intake."""
        while messages := await self._intake.next_batch():
            incarnation = self._intake.incarnation
            async with self._finalizer.exclusive:
                readings = self._reader.read(messages, incarnation)
                self._intake.divide(readings.parts)
                first, left = distinct(readings.valid, _MESSAGE_ID)
                batch = self._writer.batch(first)
            self._metrics.received.inc(len(messages))
            self._metrics.redelivered.inc(readings.redeliveries)
            self._metrics.pending.set(readings.pending)
            await self._prepared.put((batch, list(left), readings))
            # Wait until the batch is being written, so that the next one can still grow.
            await self._prepared.join()
        await self._prepared.put(None)

    async def process(self) -> None:
        """Write batches and handle failures; ends after the last batch. Raises AbandonedError."""
        while True:
            self._intake.note_idle(idle=True)
            try:
                async with asyncio.timeout(_IDLE):
                    prepared = await self._prepared.get()
            except TimeoutError:
                self._progressed = asyncio.get_running_loop().time()
                continue
            self._intake.note_idle(idle=False)
            self._prepared.task_done()
            if prepared is None:
                return
            self._progressed = asyncio.get_running_loop().time()
            batch, left, readings = prepared
            if await self._copies.settle(readings):
                first, others = distinct(readings.valid, _MESSAGE_ID)
                batch, left = self._writer.batch(first), list(others)
                await self._finalizer.postpone(readings.postponed)
            outcome = Outcome(failures=readings.failures)
            await self._writer.write(batch, outcome)
            while left:
                first, rest = distinct(left, _MESSAGE_ID)
                left = list(rest)
                await self._writer.write(self._writer.batch(first), outcome)
            await self._intake.respond([each.reply for each in outcome.processed], ACK)
            await self._finalizer.hold(outcome.held)
            await self._finalizer.finalize(outcome.failures)
            await self._finalizer.decide(readings.redelivered)

    async def persist(self, work: Callable[[asyncpg.Connection], Awaitable[Any]]) -> Any:
        """Run ``work`` on the database, waiting while PostgreSQL is unavailable; nothing is fetched meanwhile.

        Raises RefusedError if a message or its table may be the cause and PostgreSQL is available, and AbandonedError
        if the worker has to stop during the outage.
        """
        failures, last = 0, None
        clock = asyncio.get_running_loop().time
        while True:
            self._progressed = clock()
            try:
                try:
                    done = await self._database.run(work)
                except RefusedError as error:
                    if not error.certain:
                        await self._database.verify()
                    self._database.recover()
                    self._resume()
                    raise
            except OutageError as error:
                self._intake.pause()
                failures += 1
                if self._stopping.is_set():
                    last = last or clock() + _LAST_ATTEMPTS
                    if clock() >= last:
                        raise AbandonedError(f"PostgreSQL is unavailable: {error}") from error
                    await asyncio.sleep(RECONNECT.first)
                    continue
                try:
                    async with asyncio.timeout(RECONNECT.wait(failures)):
                        await self._stopping.wait()
                except TimeoutError:
                    continue
            else:
                self._resume()
                return done

    async def check(self) -> None:
        """Check PostgreSQL and the stopped tables: during an outage nothing is fetched, even with nothing to write."""
        await self._database.check()
        if self._database.reason is None and self.stops:
            try:
                await self._database.run(self.stops.check, "check")
            except (OutageError, RefusedError) as error:
                _log.debug("check of stopped entities failed", error=str(error))
        if self._database.reason is None:
            self._intake.resume()
        else:
            self._intake.pause()

    def _resume(self) -> None:
        if self._database.reason is None:
            self._intake.resume()
