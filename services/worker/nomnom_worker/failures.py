"""Failures: attempts are counted, messages asked for again later, and at the last attempt made dead letters.

Attempts are those recorded in ``message_status.retry_count``, never JetStream's number of deliveries: an outage, a
worker's end or a lost ack deliver a message again without anything being wrong with it.

A message that ends the worker which takes it leaves no record, so its number of deliveries is all there is to go by,
and that its neighbours in a batch share. The rule: a message's first deliveries, fewer than MAX_DELIVER (and always the
first), go in ordinary batches. From then on, where more deliveries than recorded failures preceded, the message is
tried alone: nothing else is parsed or written meanwhile, and a committed mark (status ``processing``) says that it is
being tried. Delivered more than MAX_DELIVER times and found with such a mark, it becomes a dead letter unprocessed.
Neighbours get a lone attempt each and come through, a message on which workers were merely killed likewise. A mark
older than the start of PostgreSQL is explained by its outage and does not count. What can still be wrong is a worker
killed by others in the very moment of a lone attempt: the dead letter says so (``unanswered``), and can be replayed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from enum import Enum, auto
from functools import partial
from typing import Any

import asyncpg
from nats.errors import Error as NatsError
from nats.js.errors import APIError

from nomnom.envelope import Reason, Status, dead_headers, dead_subject, header_text
from nomnom.message_status import BURY, FAIL, MARK, PRIOR
from nomnom.settings import WorkerSettings
from nomnom.telemetry import logger
from nomnom_worker.batches import distinct
from nomnom_worker.deliveries import Delivery, Failure, Reader
from nomnom_worker.intake import Intake
from nomnom_worker.link import ACK, Link, nak
from nomnom_worker.metrics import Metrics
from nomnom_worker.writer import Outcome, Persist, Writer

_log = logger(__name__)
_PUBLISH = 5.0
_MARGIN = 64
"""More than the header block takes beside its lines."""


class Settler:
    """Settles what an ordinary batch could not: failures, dead letters, messages delivered suspiciously often."""

    def __init__(
        self,
        settings: WorkerSettings,
        *,
        persist: Persist[Any],
        reader: Reader,
        writer: Writer,
        intake: Intake,
        link: Link,
        metrics: Metrics,
    ) -> None:
        self._settings, self._persist = settings, persist
        self._reader, self._writer = reader, writer
        self._intake, self._link, self._metrics = intake, link, metrics
        self.alone = asyncio.Lock()
        """Held while one message is tried alone: nobody else may parse or write then."""
        self.stopping = False
        """Set when the worker is to end: no further message is tried alone."""

    async def settle(self, failures: Sequence[Failure]) -> None:
        """Record failed attempts; ask for their messages again, or make them dead letters. Raises AbandonedError."""
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
            attempts: dict[str, int] = await self._persist(partial(self._record, now))
            again: dict[int, list[str]] = {}
            last: list[Failure] = []
            answered: list[str] = []
            for failure in now:
                count = attempts.get(failure.delivery.message_id)
                if count is None:
                    answered.append(failure.delivery.reply)
                elif count >= self._settings.max_deliver or failure.reason is Reason.ENVELOPE:
                    last.append(failure)
                else:
                    again.setdefault(count, []).append(failure.delivery.reply)
            self._metrics.repeated.inc(len(answered))
            await self._intake.answer(answered, ACK)
            for count, replies in again.items():
                await self._intake.answer(replies, nak(self._backoff(count)))
            await self.bury(last, attempts)

    async def bury(self, failures: Sequence[Failure], attempts: dict[str, int]) -> None:
        """Store dead letters, then set their messages' status, then acknowledge them. Raises AbandonedError.

        A message whose dead letter is refused stays in the stream and is asked for again later.
        """
        if not failures:
            return
        refused = await self._publish(failures, attempts)
        stored = [each for each in failures if each.delivery.reply not in refused]
        if stored:
            await self._persist(partial(_mark_dead, stored))
            for failure in stored:
                self._metrics.dead.labels(failure.reason.value).inc()
            _log.warning("messages became dead letters", count=len(stored), first=stored[0].delivery.message_id)
            await self._intake.answer([each.delivery.reply for each in stored], ACK)
        if refused:
            self._metrics.refused.inc(len(refused))
            stream, reason = self._settings.streams.dead_stream, next(iter(refused.values()))
            _log.error(
                "dead letters were refused; their messages are kept", count=len(refused), stream=stream, reason=reason
            )
            await self._intake.answer(list(refused), nak(self._settings.retry_backoff_max))

    async def judge(self, deliveries: Sequence[Delivery]) -> None:
        """Process messages delivered often, by the rule above. Raises AbandonedError."""
        while deliveries:
            now, deliveries = distinct(deliveries, lambda each: each.message_id)
            ids = [each.message_id for each in now]
            known: list[asyncpg.Record] = await self._persist(partial(_fetch, PRIOR, ids))
            rows = {str(row["message_id"]): row for row in known}
            judged: dict[_Course, list[Delivery]] = {each: [] for each in _Course}
            for delivery in now:
                judged[self._course(delivery, rows.get(delivery.message_id))].append(delivery)
            answered = [each.reply for each in judged[_Course.ANSWERED]]
            self._metrics.repeated.inc(len(answered))
            await self._intake.answer(answered, ACK)
            unanswered = [_unanswered(each) for each in judged[_Course.UNANSWERED]]
            await self.bury(unanswered, {each.delivery.message_id: each.delivery.number - 1 for each in unanswered})
            async with self.alone:
                await self._process(judged[_Course.ORDINARY])
            for delivery in judged[_Course.ALONE]:
                if self.stopping:
                    return
                async with self.alone:
                    await self._try_alone(delivery)

    def _course(self, delivery: Delivery, row: asyncpg.Record | None) -> _Course:
        life, most = delivery.envelope.replays, self._settings.max_deliver
        if row is None or (row["replays"] < life and row["status"] != Status.COMPLETED):
            return _Course.ALONE
        if row["replays"] > life or row["status"] in (Status.COMPLETED, Status.DLQ):
            return _Course.ANSWERED
        if row["marked"] and delivery.number > most:
            return _Course.UNANSWERED
        explained = row["retry_count"] >= min(delivery.number - 1, most)
        return _Course.ORDINARY if explained else _Course.ALONE

    async def _try_alone(self, delivery: Delivery) -> None:
        mark = self._writer.batch([delivery]).claims
        marked: list[asyncpg.Record] = await self._persist(partial(_fetch, MARK, *mark))
        if not marked:
            await self._intake.answer([delivery.reply], ACK)
            return
        _log.warning("a message is tried alone", message_id=delivery.message_id, deliveries=delivery.number)
        await self._process([delivery])

    async def _process(self, deliveries: Sequence[Delivery]) -> None:
        failed = [self._reader.parse(each) for each in deliveries]
        sound = [each for each, failure in zip(deliveries, failed, strict=True) if failure is None]
        outcome = Outcome(failures=[failure for failure in failed if failure is not None])
        await self._writer.write(self._writer.batch(sound), outcome)
        await self._intake.answer([each.reply for each in outcome.answered], ACK)
        await self.settle(outcome.failures)

    async def _record(self, failures: Sequence[Failure], connection: asyncpg.Connection) -> dict[str, int]:
        envelopes = [each.delivery.envelope for each in failures]
        rows = await connection.fetch(
            FAIL,
            [each.message_id for each in envelopes],
            [each.entity for each in envelopes],
            [each.received_at for each in envelopes],
            [each.replays for each in envelopes],
            [header_text(each.error) for each in failures],
            self._settings.max_deliver,
        )
        return {str(row["message_id"]): row["retry_count"] for row in rows}

    def _backoff(self, attempts: int) -> float:
        return min(self._settings.retry_backoff * 2 ** min(attempts - 1, 32), self._settings.retry_backoff_max)

    async def _publish(self, failures: Sequence[Failure], attempts: dict[str, int]) -> dict[str, str]:
        """Publish dead letters, each with its ack; returns why not, by reply subject, for those not stored."""
        # A request each: nats-py's publish_async never resolves where the stream refuses.
        refusals = await asyncio.gather(
            *(self._refusal(each, attempts.get(each.delivery.message_id, 1)) for each in failures)
        )
        pairs = zip(failures, refusals, strict=True)
        return {each.delivery.reply: refusal for each, refusal in pairs if refusal is not None}

    async def _refusal(self, failure: Failure, attempts: int) -> str | None:
        """Publish one dead letter; returns why it is not stored, or None where it is."""
        envelope, payload = failure.delivery.envelope, failure.delivery.message.data
        client, jetstream = self._link.client, self._link.jetstream
        if client is None or jetstream is None:
            return self._link.reason or "NATS is away"
        headers = dead_headers(envelope, failure.reason, failure.error, attempts, datetime.now(UTC))
        size = len(payload) + sum(len(name) + len(text.encode()) + 4 for name, text in headers.items())
        if size + _MARGIN > client.max_payload:
            # NATS would not refuse it but close the connection.
            return f"with its headers it is larger than the server's max_payload, {client.max_payload}"
        subject = dead_subject(envelope.entity, envelope.message_id)
        try:
            ack = await jetstream.publish(subject, payload, timeout=_PUBLISH, headers=headers)
        except APIError as error:
            return error.description or str(error)
        except (OSError, NatsError, TimeoutError) as error:
            return str(error) or type(error).__name__
        stream = self._settings.streams.dead_stream
        return None if ack.stream == stream else f"stream {ack.stream} took it, not {stream}: their subjects overlap"


class _Course(Enum):
    """How a message delivered often goes on."""

    ANSWERED = auto()
    UNANSWERED = auto()
    ORDINARY = auto()
    ALONE = auto()


def _unanswered(delivery: Delivery) -> Failure:
    error = (
        f"delivered {delivery.number} times; it was tried alone, and that attempt ended without an answer: "
        "it seems to end the workers that take it"
    )
    return Failure(delivery, Reason.UNANSWERED, error)


async def _fetch(sql: str, *arguments: Any) -> list[asyncpg.Record]:
    *values, connection = arguments
    return await connection.fetch(sql, *values)


async def _mark_dead(failures: Sequence[Failure], connection: asyncpg.Connection) -> None:
    ordered = sorted(failures, key=lambda each: each.delivery.message_id)
    await connection.execute(
        BURY,
        [each.delivery.message_id for each in ordered],
        [each.delivery.envelope.replays for each in ordered],
        [header_text(each.error) for each in ordered],
    )
