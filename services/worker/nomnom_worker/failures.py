"""Failures: counts attempts, schedules retries, and turns messages into dead letters after the last attempt.

Attempts are counted in ``message_status.retry_count``, not by JetStream's delivery count: outages, worker restarts and
lost acks cause redeliveries of messages that have not failed.

A message that crashes its worker (a poison message) leaves no record; all that is known is its delivery count, which
is shared by the other messages of its batch. Therefore:

- The first deliveries of a message, fewer than MAX_DELIVER (and always the first one), are processed in batches.
- From then on, if it has more previous deliveries than recorded failures, it is processed in isolation: nothing else
  is parsed or written at that time, and a committed mark (status ``processing``) records that it is in progress.
- If it was delivered more than MAX_DELIVER times and has such a mark, older than half the ack wait, it becomes a dead
  letter without processing.

Other messages of a crashed batch pass their isolated attempt, as do messages whose worker was killed for another
reason. A mark older than the start of PostgreSQL is explained by its outage and ignored. If a worker that was paused
completes the message before the status is set, the dead letter is withdrawn; afterwards, it cannot complete it. A
worker killed externally during an isolated attempt is still misjudged; the dead letter has the reason ``unanswered``
and can be replayed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from enum import Enum, auto
from functools import partial
from typing import Any

import asyncpg
from nats.errors import Error as NatsError
from nats.js.errors import APIError

from nomnom.connections.nats import text_of
from nomnom.dead_letters import DeadLetterRejected, publish_dead_letter
from nomnom.envelope import Reason, Status, dead_headers, header_text
from nomnom.message_status import DEAD_LETTER, FAIL, MARK, PRIOR, UNMARK
from nomnom.retry import RetryPolicy
from nomnom.settings import WorkerSettings
from nomnom.telemetry import logger
from nomnom_worker.batches import bounds_of, claims_of, distinct
from nomnom_worker.deliveries import Delivery, Failure, Reader
from nomnom_worker.errors import RefusedError
from nomnom_worker.intake import Intake
from nomnom_worker.link import ACK, Link, nak
from nomnom_worker.metrics import Metrics
from nomnom_worker.stops import HOLD, Stops
from nomnom_worker.writer import Outcome, Persist, Writer, record_repeats

_log = logger(__name__)
_HOPELESS = frozenset({Reason.ENVELOPE, Reason.KEY_CONFLICT})
"""Reasons that another attempt cannot change."""


class Finalizer:
    """Handles messages that a batch did not complete: failures, dead letters and suspicious redeliveries."""

    def __init__(
        self,
        settings: WorkerSettings,
        *,
        persist: Persist,
        reader: Reader,
        writer: Writer,
        stops: Stops,
        intake: Intake,
        link: Link,
        metrics: Metrics,
    ) -> None:
        self._settings, self._persist = settings, persist
        self._reader, self._writer, self._stops = reader, writer, stops
        self._intake, self._link, self._metrics = intake, link, metrics
        self._retry = RetryPolicy(settings.retry_backoff, settings.retry_backoff_max)
        self.exclusive = asyncio.Lock()
        """Held during an isolated attempt: nothing else may be parsed or written."""
        self.stopping = False
        """Set when the worker is stopping: no more isolated attempts are started."""

    async def hold(self, deliveries: Sequence[Delivery]) -> None:
        """Return messages of stopped entities to the stream, to be delivered again later."""
        waits: dict[float, list[str]] = {}
        for each in deliveries:
            waits.setdefault(HOLD.wait(each.number), []).append(each.reply)
        for wait, replies in waits.items():
            await self._intake.respond(replies, nak(wait))

    async def finalize(self, failures: Sequence[Failure]) -> None:
        """Record failed attempts, then schedule retries or store dead letters. Raises AbandonedError."""
        while failures:
            now, failures = distinct(failures, lambda each: each.delivery.message_id)
            for failure in now:
                self._metrics.failed.labels(failure.reason.value).inc()
            first = now[0]
            _log.warning(
                "messages failed",
                count=len(now),
                first=first.delivery.message_id,
                reason=first.reason.value,
                error=header_text(first.error),
            )
            now = sorted(now, key=lambda each: each.delivery.message_id)
            attempts: dict[str, int] = {}
            for each, counted in await self._divide(self._record, now):
                if counted is None:
                    await self.postpone([failure.delivery for failure in each])
                    now = [failure for failure in now if failure not in each]
                else:
                    attempts |= counted
            retries: dict[int, list[str]] = {}
            final: list[Failure] = []
            processed: list[Delivery] = []
            for failure in now:
                count = attempts.get(failure.delivery.message_id)
                if count is None:
                    processed.append(failure.delivery)
                elif count >= self._settings.max_deliver or failure.reason in _HOPELESS:
                    final.append(failure)
                else:
                    retries.setdefault(count, []).append(failure.delivery.reply)
            await self._acknowledge_repeats(processed)
            for count, replies in retries.items():
                await self._intake.respond(replies, nak(self._retry.wait(count)))
            await self.dead_letter(final, attempts)

    async def dead_letter(self, failures: Sequence[Failure], attempts: dict[str, int]) -> None:
        """Store dead letters, then set the status of their messages, then acknowledge them. Raises AbandonedError.

        If the dead-letter stream rejects a dead letter, its message stays in the stream and is retried later.
        """
        if not failures:
            return
        sequences, rejected = await self._publish(failures, attempts)
        stored: list[Failure] = []
        published = [each for each in failures if each.delivery.message_id in sequences]
        for each, completed in await self._divide(_mark_dead, published) if published else ():
            if completed is None:
                # A repeat of the dead letter is recognized by its message ID.
                await self.postpone([failure.delivery for failure in each])
                continue
            stored += (failure for failure in each if failure.delivery.message_id not in completed)
            # Another worker, which had been taken for dead, has processed the message after all.
            done = [failure.delivery for failure in each if failure.delivery.message_id in completed]
            await self._withdraw([sequences[delivery.message_id] for delivery in done])
            await self._acknowledge_repeats(done)
        if stored:
            for failure in stored:
                self._metrics.dead.labels(failure.reason.value).inc()
            _log.warning("messages moved to dead letters", count=len(stored), first=stored[0].delivery.message_id)
            await self._intake.respond([each.delivery.reply for each in stored], ACK)
        if rejected:
            self._metrics.refused.inc(len(rejected))
            stream, reason = self._settings.streams.dead_stream, next(iter(rejected.values()))
            _log.error("dead letters rejected, messages kept", count=len(rejected), stream=stream, reason=reason)
            kept = [each.delivery.reply for each in failures if each.delivery.message_id in rejected]
            await self._intake.respond(kept, nak(self._retry.longest))

    async def decide(self, deliveries: Sequence[Delivery]) -> None:
        """Process messages that were redelivered often, as described above. Raises AbandonedError."""
        while deliveries:
            await self.hold([each for each in deliveries if self._stops.holds(each)])
            deliveries = [each for each in deliveries if not self._stops.holds(each)]
            now, deliveries = distinct(deliveries, lambda each: each.message_id)
            ids = [each.message_id for each in now]
            if not now:
                return
            known: list[asyncpg.Record] | None = await self._try_fetch(
                now, PRIOR, ids, *bounds_of(now), self._intake.ack_wait / 2
            )
            if known is None:
                continue
            rows = {str(row["message_id"]): row for row in known}
            decided: dict[_Decision, list[Delivery]] = {each: [] for each in _Decision}
            for delivery in now:
                decided[self._decide(delivery, rows.get(delivery.message_id))].append(delivery)
            await self._acknowledge_repeats(decided[_Decision.PROCESSED])
            poison = [_poison(each) for each in decided[_Decision.POISON]]
            await self.dead_letter(poison, {each.delivery.message_id: each.delivery.number - 1 for each in poison})
            async with self.exclusive:
                await self._process(decided[_Decision.BATCH])
            for delivery in decided[_Decision.ISOLATED]:
                if self.stopping:
                    return
                async with self.exclusive:
                    await self._process_isolated(delivery)

    def _decide(self, delivery: Delivery, row: asyncpg.Record | None) -> _Decision:
        replays, max_deliver = delivery.envelope.replays, self._settings.max_deliver
        if row is None or (row["replays"] < replays and row["status"] != Status.COMPLETED):
            return _Decision.BATCH if self._stops.explains(delivery) else _Decision.ISOLATED
        if row["replays"] > replays or row["status"] in (Status.COMPLETED, Status.DLQ):
            return _Decision.PROCESSED
        if row["marked"] and delivery.number > max_deliver:
            return _Decision.POISON
        if self._stops.explains(delivery):
            return _Decision.BATCH
        explained = row["retry_count"] >= min(delivery.number - 1, max_deliver)
        return _Decision.BATCH if explained else _Decision.ISOLATED

    async def _process_isolated(self, delivery: Delivery) -> None:
        marked: list[asyncpg.Record] | None = await self._try_fetch([delivery], MARK, *claims_of([delivery]))
        if marked is None:
            return
        if not marked:
            await self._acknowledge_repeats([delivery])
            return
        _log.warning("processing a message in isolation", message_id=delivery.message_id, deliveries=delivery.number)
        if held := await self._process([delivery]):
            reason = f"not attempted: {self._stops.reason}"
            await self._try_fetch([], UNMARK, [each.message_id for each in held], header_text(reason), *bounds_of(held))

    async def _acknowledge_repeats(self, deliveries: Sequence[Delivery]) -> None:
        """Acknowledge messages that were processed before."""
        if deliveries:
            try:
                await self._persist(lambda connection: record_repeats(connection, deliveries))
            except RefusedError as error:
                _log.error("repeats rejected, messages kept", count=len(deliveries), reason=str(error))
                await self.postpone(deliveries)
                return
            self._metrics.repeated.inc(len(deliveries))
            await self._intake.respond([each.reply for each in deliveries], ACK)

    async def _process(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        """Process deliveries; returns those of stopped entities, which were held."""
        failed = [self._reader.parse(each) for each in deliveries]
        valid = [each for each, failure in zip(deliveries, failed, strict=True) if failure is None]
        outcome = Outcome(failures=[failure for failure in failed if failure is not None])
        await self._writer.write(self._writer.batch(valid), outcome)
        await self._intake.respond([each.reply for each in outcome.processed], ACK)
        await self.hold(outcome.held)
        await self.finalize(outcome.failures)
        return outcome.held

    async def _divide(
        self, statement: Callable[[Sequence[Failure], asyncpg.Connection], Awaitable[Any]], failures: Sequence[Failure]
    ) -> list[tuple[Sequence[Failure], Any]]:
        """Run a statement on ``message_status``, bisecting what PostgreSQL rejects: the result for that is None."""
        try:
            return [(failures, await self._persist(partial(statement, failures)))]
        except RefusedError as error:
            if len(failures) == 1:
                message_id = failures[0].delivery.message_id
                _log.error("status rejected, message kept", message_id=message_id, reason=str(error))
                return [(failures, None)]
        middle = len(failures) // 2
        return [*await self._divide(statement, failures[:middle]), *await self._divide(statement, failures[middle:])]

    async def _try_fetch(self, deliveries: Sequence[Delivery], sql: str, *values: Any) -> list[asyncpg.Record] | None:
        """The rows of a statement on ``message_status``; if PostgreSQL rejects it, None, and messages are kept."""
        try:
            return await self._persist(partial(_fetch, sql, *values))
        except RefusedError as error:
            _log.error("status rejected, messages kept", count=len(deliveries), reason=str(error))
            await self.postpone(deliveries)
            return None

    async def postpone(self, deliveries: Sequence[Delivery]) -> None:
        """Return messages whose status cannot be written to the stream."""
        await self._intake.respond([each.reply for each in deliveries], nak(self._retry.longest))

    async def _record(self, failures: Sequence[Failure], connection: asyncpg.Connection) -> dict[str, int]:
        rows = await connection.fetch(
            FAIL,
            *claims_of(each.delivery for each in failures),
            [header_text(each.error) for each in failures],
            self._settings.max_deliver,
        )
        return {str(row["message_id"]): row["retry_count"] for row in rows}

    async def _withdraw(self, sequences: Sequence[int]) -> None:
        """Remove dead letters again; one that cannot be removed remains, and its replay changes nothing."""
        for each in sequences:
            client, stream = self._link.current, self._settings.streams.dead_stream
            if client is None:
                _log.warning("dead letter not withdrawn: NATS is unavailable", sequence=each)
                continue
            try:
                await client.jetstream().delete_msg(stream, each)
            except (APIError, OSError, NatsError, TimeoutError) as error:
                _log.warning("dead letter not withdrawn", sequence=each, reason=text_of(error))
            else:
                self._metrics.withdrawn.inc()

    async def _publish(
        self, failures: Sequence[Failure], attempts: dict[str, int]
    ) -> tuple[dict[str, int], dict[str, str]]:
        """Publish dead letters and wait for their acks; returns the sequences, and why others are not stored, both by
        message ID.
        """
        # One request each: nats-py's publish_async never completes if the stream rejects the message.
        results = await asyncio.gather(
            *(self._publish_one(each, attempts.get(each.delivery.message_id, 1)) for each in failures)
        )
        pairs = [(each.delivery.message_id, result) for each, result in zip(failures, results, strict=True)]
        return (
            {message_id: result for message_id, result in pairs if isinstance(result, int)},
            {message_id: result for message_id, result in pairs if isinstance(result, str)},
        )

    async def _publish_one(self, failure: Failure, attempts: int) -> int | str:
        """Publish one dead letter; returns its sequence, or why it was not stored."""
        envelope, payload = failure.delivery.envelope, failure.delivery.payload
        client = self._link.current
        if client is None:
            return self._link.problem or "NATS is unavailable"
        headers = dead_headers(envelope, failure.reason, failure.error, attempts, datetime.now(UTC))
        try:
            stream = self._settings.streams.dead_stream
            return (await publish_dead_letter(client, stream, envelope, payload, headers)).seq
        except DeadLetterRejected as error:
            return str(error)


class _Decision(Enum):
    """What to do with a message that was redelivered often."""

    PROCESSED = auto()
    POISON = auto()
    BATCH = auto()
    ISOLATED = auto()


def _poison(delivery: Delivery) -> Failure:
    error = (
        f"not acknowledged in {delivery.number - 1} deliveries, including one processed in isolation: "
        "it appears to crash workers"
    )
    return Failure(delivery, Reason.UNANSWERED, error)


async def _fetch(sql: str, *arguments: Any) -> list[asyncpg.Record]:
    *values, connection = arguments
    return await connection.fetch(sql, *values)


async def _mark_dead(failures: Sequence[Failure], connection: asyncpg.Connection) -> set[str]:
    """Set the statuses; returns the IDs of messages that were completed meanwhile."""
    ordered = sorted(failures, key=lambda each: each.delivery.message_id)
    bounds = bounds_of(each.delivery for each in ordered)
    marked = await connection.fetch(
        DEAD_LETTER,
        [each.delivery.message_id for each in ordered],
        [each.delivery.envelope.received_at for each in ordered],
        [each.delivery.envelope.replays for each in ordered],
        [header_text(each.error) for each in ordered],
        *bounds,
    )
    others = {each.delivery.message_id for each in ordered} - {str(row["message_id"]) for row in marked}
    if not others:
        return set()
    rows = await connection.fetch(PRIOR, list(others), *bounds, 0.0)
    return {str(row["message_id"]) for row in rows if row["status"] == Status.COMPLETED}
