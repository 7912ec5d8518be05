"""The ages at which the housekeeper moves messages and dead letters, and how many have reached them, or soon will.

The streams themselves drop nothing by age: ``nomnom setup`` stores the ages in their metadata.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from nomnom.connections.nats import NatsConnection
from nomnom.inspection.jetstream.messages import read_batch_since
from nomnom.inspection.jetstream.streams import StreamReport
from nomnom.presentation import figures

MAX_AGE = "nomnom.max_age"
"""The key in a stream's metadata: the maximum age of its messages in seconds."""
SOON = 24 * 60 * 60.0
"""What reaches its maximum age within this many seconds is reported."""


@dataclass(frozen=True, slots=True)
class Retention:
    """How close the messages of a stream are to their maximum age. Ages in seconds.

    ``limit`` is None if the stream has none; ``oldest`` is None if it is empty. ``expiring`` messages reach the limit
    within :data:`SOON`, including those that have reached it.
    """

    limit: float | None
    oldest: float | None
    expiring: int

    @property
    def remaining(self) -> float | None:
        """Seconds until the oldest message reaches the limit, negative afterwards; None if none will."""
        return None if self.limit is None or self.oldest is None else self.limit - self.oldest

    @property
    def warning(self) -> str:
        """What to say of dead letters that will be archived soon; empty if there are none.

        With a maximum age of a day or less, only those in its last quarter are worth a warning.
        """
        limit, remaining = self.limit, self.remaining
        if not self.expiring or limit is None or remaining is None or (limit <= SOON and remaining > limit / 4):
            return ""
        first = f"the first in {figures.duration(remaining)}" if remaining > 0 else "the first now"
        return f"{figures.counted(self.expiring, 'dead letter')} will be archived within 24 hours, {first}"


def maximum_age(metadata: Mapping[str, str] | None, stream_limit: float = 0.0) -> float | None:
    """The maximum age of a stream's messages in seconds; ``stream_limit`` is what the stream itself applies (set by
    earlier versions, 0 for none). None if there is none.
    """
    text = (metadata or {}).get(MAX_AGE, "")
    try:
        age = float(text)
    except ValueError:
        age = 0.0
    return age if age > 0 else stream_limit or None


def maximum_age_of(report: StreamReport) -> float | None:
    """The maximum age of the messages of a reported stream in seconds; None if there is none."""
    return maximum_age(report.config.get("metadata"), int(report.config.get("max_age", 0)) / 1e9)


async def count_older(nats: NatsConnection, report: StreamReport, moment: datetime) -> int:
    """How many messages of a stream were stored before a time. Costs one request. Raises NatsUnavailable or NotSetUp.

    The result is exact unless messages come or go between the report and this request.
    """
    oldest = report.state.oldest
    if oldest is None or oldest >= moment:
        return 0
    later = await read_batch_since(nats, report.name, moment, 1)
    return max(0, report.state.messages - len(later.messages) - later.pending)


async def read_retention(nats: NatsConnection, report: StreamReport, now: datetime | None = None) -> Retention:
    """The retention of a reported stream's messages. Raises NatsUnavailable or NotSetUp."""
    now = now or datetime.now(UTC)
    limit, oldest = maximum_age_of(report), report.state.oldest
    age = max(0.0, (now - oldest).total_seconds()) if oldest else None
    if limit is None or age is None or age < limit - SOON:
        return Retention(limit, age, 0)
    return Retention(limit, age, await count_older(nats, report, now - timedelta(seconds=limit - SOON)))
