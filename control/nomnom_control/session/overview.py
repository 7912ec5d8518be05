"""The pipeline's key figures at one moment, cheap enough to read every second, and rates between two of them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from nomnom.account import Balance, read_balance
from nomnom.envelope import Status
from nomnom.errors import NomnomError
from nomnom.inspection.jetstream import ConsumerReport, StreamReport
from nomnom.inspection.retention import Retention, read_retention
from nomnom.inspection.statuses import StatusCount

if TYPE_CHECKING:
    from nomnom_control.session.pipeline import Pipeline


@dataclass(frozen=True, slots=True)
class Overview:
    """The key figures. The parts of an unavailable server are None, with the reason in its ``_problem``."""

    at: datetime
    stream: StreamReport | None
    consumer: ConsumerReport | None
    dead: StreamReport | None
    counts: tuple[StatusCount, ...] | None
    nats_problem: str = ""
    database_problem: str = ""
    retention: Retention | None = None
    """How close the dead letters are to their maximum age."""
    balance: Balance | None = None
    lag: int | None = None
    """Messages that are not acknowledged by a worker: each of a segment counts."""
    processed: int | None = None
    """Messages that left the stream since the overview before; None for the first one, or if it is unknown."""

    @property
    def oldest(self) -> float | None:
        """Age of the oldest message in the stream in seconds; None if it is empty."""
        first = self.stream.state.oldest if self.stream else None
        return max(0.0, (self.at - first).total_seconds()) if first else None

    @property
    def dead_letters(self) -> int | None:
        """The number of dead letters."""
        return self.dead.state.messages if self.dead else None

    @property
    def oldest_dead(self) -> float | None:
        """Age of the oldest dead letter in seconds; None if there is none."""
        first = self.dead.state.oldest if self.dead else None
        return max(0.0, (self.at - first).total_seconds()) if first else None

    def count(self, status: Status) -> StatusCount | None:
        """The number of messages with a status."""
        return next((each for each in self.counts or () if each.status is status), None)


@dataclass(frozen=True, slots=True)
class Rates:
    """Messages per second between two overviews: ``accepted`` messages entered the stream, ``processed`` ones were
    completed, removed or became dead letters, ``failed`` ones became dead letters.
    """

    accepted: float
    processed: float
    failed: float

    @property
    def error_share(self) -> float | None:
        """Fraction of the processed messages that became dead letters, 0 to 1; None if none were processed."""
        return min(1.0, self.failed / self.processed) if self.processed > 0 else None


def rates(earlier: Overview, later: Overview) -> Rates | None:
    """The rates between two overviews, the later one read with the earlier one; None if the rates are unknown, or the
    streams were recreated.
    """
    seconds = (later.at - earlier.at).total_seconds()
    if not earlier.stream or not later.stream or not earlier.dead or not later.dead or seconds <= 0:
        return None
    if earlier.stream.created != later.stream.created or earlier.dead.created != later.dead.created:
        return None
    if later.processed is None or earlier.lag is None or later.lag is None:
        return None
    processed = later.processed
    # The stream counts segments, so what was accepted follows from what was processed and what waits.
    accepted = max(0, processed + later.lag - earlier.lag)
    failed = later.dead.state.last_seq - earlier.dead.state.last_seq
    return Rates(accepted / seconds, processed / seconds, failed / seconds)


async def read_overview(pipeline: Pipeline, previous: Overview | None = None) -> Overview:
    """Read the figures, and what was processed since the ``previous`` ones; never raises: those of an unavailable
    server are None.
    """
    jetstream, streams = pipeline.jetstream, pipeline.streams
    nats_problem = database_problem = ""
    stream = consumer = dead = counts = retention = balance = lag = processed = None

    async def read_nats() -> None:
        nonlocal stream, consumer, dead, retention, lag, nats_problem
        try:
            stream = await jetstream.stream(streams.stream)
            lag = await jetstream.backlog(stream)
            dead = await jetstream.stream(streams.dead_stream)
            retention = await read_retention(pipeline.nats, dead)
            consumer = await jetstream.consumer(streams.stream, streams.consumer)
        except NomnomError as error:
            nats_problem = str(error)

    async def read_database() -> None:
        nonlocal counts, balance, processed, database_problem
        try:
            if previous is not None:
                processed = await pipeline.statuses.processed((datetime.now(UTC) - previous.at).total_seconds())
            counts = tuple(await pipeline.statuses.counts())
            balance = await read_balance(pipeline.database, streams)
        except NomnomError as error:
            database_problem = str(error)

    await asyncio.gather(read_nats(), read_database())
    at = datetime.now(UTC)
    return Overview(
        at,
        stream,
        consumer,
        dead,
        counts,
        nats_problem,
        database_problem,
        retention=retention,
        balance=balance,
        lag=lag,
        processed=processed,
    )
