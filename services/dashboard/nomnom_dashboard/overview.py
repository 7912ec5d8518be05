"""Polls PostgreSQL and JetStream in the background and keeps the newest snapshot.

The load on the servers does not depend on the number of clients. Each query to PostgreSQL is repeated after at least
20 times its own duration, so a large or slow database is polled less often.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise

from nomnom.account import read_balance
from nomnom.connections.errors import DatabaseUnavailable, RequestError
from nomnom.connections.postgres import Database
from nomnom.envelope import Status
from nomnom.inspection.dead_letters import DeadLetterIndex
from nomnom.inspection.jetstream import ConsumerReport, JetStream, StreamReport
from nomnom.inspection.retention import read_retention
from nomnom.inspection.statuses import StatusCount, Statuses
from nomnom.message_status import ARRIVALS, FLOW, PROCESSED_SECONDS
from nomnom.schema import Schema
from nomnom.streams import StreamSettings
from nomnom.tasks import end
from nomnom.telemetry import logger
from nomnom_dashboard.answers import (
    Balance,
    Count,
    Counts,
    Lag,
    MessageSummary,
    Rates,
    Snapshot,
    SourceState,
    Stats,
    Workers,
)
from nomnom_dashboard.errors import InvalidQueryError
from nomnom_dashboard.messages import Messages
from nomnom_dashboard.throughput import BUCKET, RETENTION, Latency, Point, Throughput, utc_time

WINDOWS = {"5m": (300, 10), "1h": (3600, 10), "6h": (6 * 3600, 60), "24h": (24 * 3600, 300)}
"""Windows of the time series: length and step, in seconds."""
NEWEST = 10
_LIVE = 300
_RATE_SECONDS = 5.0
_RECOUNTED = 5.0
"""Seconds whose processed messages are counted again each time: their transactions may have ended since."""
_DUTY = 20
_CHUNK = 600
_UNSETTLED = 30
"""Seconds during which a bucket is read again: a transaction may commit later than the timestamps it wrote."""
_LATENCY_WINDOW = 300
# A worker has one connection, which bears its name.
_WORKERS = """
SELECT count(*) AS workers
FROM pg_stat_activity
WHERE datname = current_database() AND application_name LIKE 'nomnom-worker%'
"""
_log = logger(__name__)


@dataclass(frozen=True, slots=True)
class Sample:
    """One time: messages in the stream, and how many ever became dead letters."""

    at: float
    dead: int
    lag: int


@dataclass(slots=True)
class _Schedule:
    """When work is due again: after ``seconds``, or ``_DUTY`` times its own duration if that is longer."""

    seconds: float
    due: float = 0.0

    async def run(self, work: Callable[[], Awaitable[None]]) -> None:
        begun = time.monotonic()
        if begun < self.due:
            return
        try:
            await work()
        finally:
            took = time.monotonic() - begun
            self.due = begun + max(self.seconds, took * _DUTY)


class Overview:
    """Keeps the newest snapshot up to date; calls ``publish`` with each."""

    def __init__(
        self,
        database: Database,
        jetstream: JetStream,
        streams: StreamSettings,
        schema: Schema,
        messages: Messages,
        *,
        dead_letters: DeadLetterIndex,
        interval: float,
        publish: Callable[[Snapshot], None],
    ) -> None:
        self._database, self._jetstream, self._streams, self._schema = database, jetstream, streams, schema
        self._messages, self._index = messages, dead_letters
        self._interval, self._publish = interval, publish
        self._throughput = Throughput()
        self._samples: deque[Sample] = deque(maxlen=max(_LIVE, int(_LIVE / interval)))
        self._processed: dict[int, int] = {}
        """How many messages left the stream in each second of the samples."""
        self._processed_until = 0.0
        self._backlog = 0
        self._statuses = Statuses(database)
        self._counts: list[StatusCount] | None = None
        self._workers: int | None = None
        self._balance: Balance | None = None
        self._newest: list[MessageSummary] | None = None
        self._stream: StreamReport | None = None
        self._consumer: ConsumerReport | None = None
        self._dead: StreamReport | None = None
        self._expiring: str | None = None
        self._sequence = 0
        self._database_state = SourceState(ok=False, detail="PostgreSQL: not connected yet")
        self._nats_state = SourceState(ok=False, detail="NATS: not connected yet")
        self._tasks: list[asyncio.Task[None]] = []
        self._counting, self._flowing = _Schedule(2.0), _Schedule(5.0)
        self._listing, self._indexing, self._aging = _Schedule(interval), _Schedule(1.0), _Schedule(10.0)
        self.last: Snapshot | None = None

    def start(self) -> None:
        """Start the background tasks."""
        self._tasks = [
            asyncio.create_task(self._repeat(self._watch_nats, self._interval), name="watch nats"),
            asyncio.create_task(self._repeat(self._watch_database, min(self._interval, 1.0)), name="watch database"),
            asyncio.create_task(self._repeat(self._read_history, 1.0), name="read history"),
            asyncio.create_task(self._repeat(self._read_dead_letters, 1.0), name="read dead letters"),
            asyncio.create_task(self._repeat(self._renew, self._interval), name="renew snapshot"),
        ]

    async def close(self) -> None:
        """Stop the background tasks."""
        await end(*self._tasks)

    @property
    def nats_answers(self) -> bool:
        """Whether JetStream answered the last poll."""
        return self._nats_state.ok

    @property
    def dead_letters_changed(self) -> bool:
        """Whether the dead-letter stream, as last watched, holds something else than the index."""
        if self._dead is None:
            return False
        watched, indexed = self._dead.state, self._index.state
        return (watched.last_seq, watched.messages) != (indexed.last_seq, indexed.messages)

    def snapshot(self) -> Snapshot:
        """The newest snapshot; raises DatabaseUnavailable while PostgreSQL is unavailable."""
        snapshot = self.last or self._snapshot()
        if not self._database_state.ok:
            raise DatabaseUnavailable(self._database_state.detail)
        return snapshot

    def stats(self, window: str) -> Stats:
        """The snapshot with the time series of a window; raises InvalidQueryError or DatabaseUnavailable."""
        if window not in WINDOWS:
            raise InvalidQueryError(f"window: expected one of {', '.join(WINDOWS)}", list(WINDOWS))
        snapshot = self.snapshot()
        seconds, step = WINDOWS[window]
        now = time.time()
        end = int(now // step + 1) * step
        points = self._throughput.points(end - seconds, end, step)
        if window == "5m":
            points = self._with_live(points)
        known = min(self._throughput.known, default=None)
        fields = {name: getattr(snapshot, name) for name in Snapshot.__struct_fields__}
        return Stats(
            **fields,
            window=window,
            step=step,
            points=points,
            complete_from=utc_time(known) if known is not None else None,
        )

    async def _repeat(self, work: Callable[[], Awaitable[None]], seconds: float) -> None:
        while True:
            begun = time.monotonic()
            try:
                await work()
            except Exception:  # noqa: BLE001  see below
                # Expected errors are handled by the work itself. Any other is logged and must not stop the polling.
                _log.exception("polling failed")
                await asyncio.sleep(1)
            await asyncio.sleep(max(0.0, seconds - (time.monotonic() - begun)))

    async def _watch_nats(self) -> None:
        jetstream, streams = self._jetstream, self._streams
        try:
            stream, consumer, dead = await asyncio.gather(
                jetstream.stream(streams.stream),
                jetstream.consumer(streams.stream, streams.consumer),
                jetstream.stream(streams.dead_stream),
            )
        except RequestError as error:
            self._nats_state = SourceState(ok=False, detail=str(error))
            self._stream = self._consumer = self._dead = self._expiring = None
            return
        if self._stream is not None and stream.created != self._stream.created:
            self._samples.clear()
        self._stream, self._consumer, self._dead = stream, consumer, dead
        try:
            self._backlog = await jetstream.backlog(stream)
        except RequestError as error:
            self._nats_state = SourceState(ok=False, detail=str(error))
            self._stream = self._consumer = self._dead = self._expiring = None
            return
        self._samples.append(Sample(time.time(), dead.state.last_seq, self._backlog))
        try:
            await self._aging.run(lambda: self._read_retention(dead))
        except RequestError as error:
            self._expiring = None
            _log.warning("retention", problem=str(error))
        self._nats_state = SourceState(ok=True, detail=jetstream.nats.address)

    async def _read_retention(self, dead: StreamReport) -> None:
        self._expiring = (await read_retention(self._jetstream.nats, dead)).warning or None

    async def _watch_database(self) -> None:
        try:
            await self._read_processed()
            await self._listing.run(self._read_newest)
            await self._counting.run(self._count)
        except RequestError as error:
            self._database_state = SourceState(ok=False, detail=str(error))
            self._counts = self._workers = self._newest = self._balance = None
            self._processed.clear()
        else:
            self._database_state = SourceState(ok=True, detail=self._database.address)

    async def _read_processed(self) -> None:
        begun = time.time()
        seconds = _RECOUNTED if self._processed else _LIVE
        for row in await self._database.fetch(PROCESSED_SECONDS, seconds):
            self._processed[row["second"]] = row["messages"]
        # The first second is cut off.
        self._processed.pop(int(begun - seconds), None)
        self._processed = {at: number for at, number in self._processed.items() if at > begun - _LIVE - 1}
        self._processed_until = begun

    async def _read_newest(self) -> None:
        self._newest = await self._messages.newest(NEWEST)

    async def _count(self) -> None:
        counts = await self._statuses.counts()
        workers = await self._database.fetch_row(_WORKERS)
        balance = await read_balance(self._database, self._streams)
        self._counts, self._workers = counts, workers["workers"] if workers else 0
        self._balance = Balance(balance.unexplained, balance.since, balance.verified_at)

    async def _read_history(self) -> None:
        if not self._database_state.ok:
            return
        try:
            await self._flowing.run(self._read_recent)
            await self._read_older()
        except RequestError as error:
            _log.warning("history", problem=str(error))

    async def _read_recent(self) -> None:
        now = time.time()
        end = int(now // BUCKET + 1) * BUCKET
        # From the end of the last read, and at least the buckets that may still change.
        settled = max((at for at in self._throughput.known if at < end - BUCKET), default=end - _CHUNK)
        await self._read(min(settled, end - _UNSETTLED) - BUCKET, end)
        self._throughput.forget(now - RETENTION)

    async def _read_older(self) -> None:
        """Read the 24 hours before this process started, in chunks, newest first."""
        oldest = min(self._throughput.known, default=None)
        limit = int((time.time() - RETENTION) // BUCKET) * BUCKET
        while oldest is not None and oldest > limit:
            begun = time.monotonic()
            begin = max(oldest - _CHUNK, limit)
            await self._read(begin, oldest)
            oldest = begin
            await asyncio.sleep((time.monotonic() - begun) * 3)
            if time.monotonic() >= self._flowing.due:
                return

    async def _read(self, begin: int, end: int) -> None:
        flow = await self._database.fetch(FLOW, utc_time(begin), utc_time(end))
        arrivals = await self._database.fetch(ARRIVALS, utc_time(begin), utc_time(end))
        self._throughput.replace(
            begin,
            end,
            ((row["bucket"], row["status"], row["step"], row["messages"]) for row in flow),
            ((row["bucket"], row["messages"]) for row in arrivals),
        )

    async def _read_dead_letters(self) -> None:
        if not self.dead_letters_changed:
            return
        try:
            await self._indexing.run(self._refresh_index)
        except RequestError as error:
            _log.warning("dead letters", problem=str(error))

    async def _refresh_index(self) -> None:
        await self._index.refresh()

    async def _renew(self) -> None:
        self.last = self._snapshot()
        self._publish(self.last)

    def _snapshot(self) -> Snapshot:
        self._sequence += 1
        lag, rates, latency = self._lag(), self._rates(), self._latency()
        return Snapshot(
            sequence=self._sequence,
            at=datetime.now(UTC),
            schema=self._schema.name,
            database=self._database_state,
            nats=self._nats_state,
            counts=self._counted(),
            rates=rates,
            lag=lag,
            workers=self._seen_workers(),
            latency=latency,
            account=self._balance,
            dead_letters=self._dead.state.messages if self._dead else None,
            expiring=self._expiring,
            point=Point(
                time.time(),
                rates.accepted,
                rates.completed,
                rates.dead,
                lag.total if lag else None,
                *((latency.p50, latency.p95, latency.p99) if latency else (None, None, None)),
            ),
            newest=self._newest,
        )

    def _counted(self) -> Counts | None:
        if self._counts is None:
            return None
        found = {each.status: Count(each.messages, each.exact) for each in self._counts}
        consumer, failed = self._consumer, found[Status.FAILED]
        in_progress, exact = self._in_progress(consumer) if consumer else (0, False)
        # A failed message that awaits its next attempt is also unacknowledged; count it once, as failed.
        processing = max(0, in_progress - failed.value)
        return Counts(
            accepted=Count(self._backlog - in_progress, exact=exact) if consumer else None,
            processing=Count(processing, exact=exact) if consumer else None,
            completed=found[Status.COMPLETED],
            failed=failed,
            dlq=found[Status.DLQ],
            deleted=found[Status.DELETED],
            purged=found[Status.PURGED],
            expired=found[Status.EXPIRED],
            total=Count(sum(each.value for each in found.values()), all(each.exact for each in found.values())),
        )

    def _rates(self) -> Rates:
        if not self._nats_state.ok or not self._database_state.ok or not self._samples:
            return Rates(None, None, None)
        newest = self._samples[-1]
        before = next(
            (each for each in reversed(self._samples) if each.at <= newest.at - _RATE_SECONDS), self._samples[0]
        )
        return self._rate(before, newest)

    def _lag(self) -> Lag | None:
        if self._stream is None or self._consumer is None:
            return None
        stream, consumer = self._stream, self._consumer
        processing, _ = self._in_progress(consumer)
        waits = stream.state.messages > 0
        age = (datetime.now(UTC) - stream.state.first_ts).total_seconds() if waits else None
        return Lag(
            waiting=self._backlog - processing,
            processing=processing,
            total=self._backlog,
            redelivered=consumer.num_redelivered,
            oldest_seconds=max(0.0, age) if age is not None else None,
            bytes=stream.state.bytes,
            max_bytes=stream.max_bytes,
            paused=consumer.paused,
        )

    def _in_progress(self, consumer: ConsumerReport) -> tuple[int, bool]:
        """How many messages of the backlog were delivered to workers, and whether that is exact: which segments were
        delivered is not known, only how many.
        """
        delivered, stored = consumer.num_ack_pending, consumer.lag
        if not delivered or not stored:
            return 0, True
        if delivered == stored or self._backlog <= stored:
            return min(self._backlog, self._backlog * delivered // stored), True
        return self._backlog * delivered // stored, False

    def _seen_workers(self) -> Workers | None:
        if self._workers is None:
            return None
        return Workers(self._workers, self._consumer.num_waiting if self._consumer else None)

    def _latency(self) -> Latency | None:
        if not self._throughput.known or not self._database_state.ok:
            return None
        return self._throughput.latency(int(time.time() // BUCKET + 1) * BUCKET, _LATENCY_WINDOW)

    def _with_live(self, points: list[Point]) -> list[Point]:
        """The points up to the first live sample, followed by the samples, at most one per second."""
        samples: list[Sample] = []
        for sample in self._samples:
            if not samples or sample.at - samples[-1].at >= 0.9:
                samples.append(sample)
        if len(samples) < 2:
            return points
        latencies = {point.at: point for point in points}
        live: list[Point] = []
        for before, after in pairwise(samples):
            rates = self._rate(before, after)
            bucket = latencies.get(after.at // BUCKET * BUCKET)
            percentiles = (bucket.p50, bucket.p95, bucket.p99) if bucket else (None, None, None)
            live.append(Point(after.at, rates.accepted, rates.completed, rates.dead, after.lag, *percentiles))
        return [point for point in points if point.at + BUCKET <= live[0].at] + live

    def _rate(self, before: Sample, after: Sample) -> Rates:
        until = min(after.at, self._processed_until)
        seconds = until - before.at
        if seconds <= 0:
            return Rates(None, None, None)
        processed = sum(
            number * max(0.0, min(until, at + 1) - max(before.at, at)) / min(1.0, max(self._processed_until - at, 0.01))
            for at, number in self._processed.items()
        )
        dead = max(0, after.dead - before.dead)
        # The stream counts segments, so what was accepted follows from what was processed and what waits.
        return Rates(
            accepted=max(0.0, processed + after.lag - before.lag) / seconds,
            completed=max(0.0, processed - dead) / seconds,
            dead=dead / seconds,
        )
