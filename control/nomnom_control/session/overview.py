"""The pipeline's figures at one moment, cheap enough to ask every second; rates come from two of them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from nomnom.envelope import Status
from nomnom.errors import NomnomError
from nomnom.inspection.jetstream import ConsumerReport, StreamReport
from nomnom.inspection.statuses import StatusCount

if TYPE_CHECKING:
    from nomnom_control.session.pipeline import Pipeline


@dataclass(frozen=True, slots=True)
class Overview:
    """What is where. A part that is away is None, and its trouble says why."""

    at: datetime
    stream: StreamReport | None
    consumer: ConsumerReport | None
    dead: StreamReport | None
    counts: tuple[StatusCount, ...] | None
    nats_problem: str = ""
    database_problem: str = ""

    @property
    def lag(self) -> int | None:
        """Messages that no worker has answered."""
        return self.consumer.lag if self.consumer else None

    @property
    def oldest(self) -> float | None:
        """Age of the oldest message in the stream, in seconds; None where there is none."""
        first = self.stream.state.oldest if self.stream else None
        return max(0.0, (self.at - first).total_seconds()) if first else None

    @property
    def dead_letters(self) -> int | None:
        """How many dead letters wait."""
        return self.dead.state.messages if self.dead else None

    @property
    def oldest_dead(self) -> float | None:
        """Age of the oldest dead letter, in seconds."""
        first = self.dead.state.oldest if self.dead else None
        return max(0.0, (self.at - first).total_seconds()) if first else None

    def count(self, status: Status) -> StatusCount | None:
        """Messages of a status."""
        return next((each for each in self.counts or () if each.status is status), None)


@dataclass(frozen=True, slots=True)
class Rates:
    """Messages a second between two overviews.

    ``accepted`` came into the stream, ``processed`` left it (a purge and an expiry look the same), ``failed`` became
    dead letters. ``error_share`` is failed of processed, from 0 to 1.
    """

    accepted: float
    processed: float
    failed: float

    @property
    def error_share(self) -> float | None:
        """Share of the processed messages that became dead letters; None where none were processed."""
        return min(1.0, self.failed / self.processed) if self.processed > 0 else None


def rates(earlier: Overview, later: Overview) -> Rates | None:
    """The rates from one overview to the next; None where either lacks the streams, or they were made anew."""
    seconds = (later.at - earlier.at).total_seconds()
    if not earlier.stream or not later.stream or not earlier.dead or not later.dead or seconds <= 0:
        return None
    if earlier.stream.created != later.stream.created or earlier.dead.created != later.dead.created:
        return None
    before, after = earlier.stream.state, later.stream.state
    accepted = after.last_seq - before.last_seq
    processed = accepted - (after.messages - before.messages)
    failed = later.dead.state.last_seq - earlier.dead.state.last_seq
    return Rates(accepted / seconds, max(0, processed) / seconds, failed / seconds)


async def look(pipeline: Pipeline) -> Overview:
    """Take the figures; what is away leaves its part empty and never raises."""
    jetstream, streams = pipeline.jetstream, pipeline.streams
    nats_problem = database_problem = ""
    stream = consumer = dead = counts = None

    async def ask_nats() -> None:
        nonlocal stream, consumer, dead, nats_problem
        try:
            stream = await jetstream.stream(streams.stream)
            dead = await jetstream.stream(streams.dead_stream)
            consumer = await jetstream.consumer(streams.stream, streams.consumer)
        except NomnomError as error:
            nats_problem = str(error)

    async def ask_database() -> None:
        nonlocal counts, database_problem
        try:
            counts = tuple(await pipeline.statuses.counts())
        except NomnomError as error:
            database_problem = str(error)

    await asyncio.gather(ask_nats(), ask_database())
    return Overview(datetime.now(UTC), stream, consumer, dead, counts, nats_problem, database_problem)
