"""Throughput and latency over time, in memory: 10-second buckets of the last 24 hours, read from PostgreSQL.

Requests read these buckets only, so their cost does not depend on the size of the table. The newest buckets are read
again while they can still change; older buckets are read once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime

import msgspec

from nomnom.envelope import Status

BUCKET = 10
"""Length of a bucket, in seconds."""
RETENTION = 24 * 60 * 60
"""Age up to which buckets are kept, in seconds."""
STEP = math.log(1.1)
"""Width of a latency step on a logarithmic scale: each step is 10 % longer than the previous one."""


class Point(msgspec.Struct, frozen=True, array_like=False):
    """One step of a time series. Rates are messages per second, latencies are seconds; null if unknown."""

    at: float
    """Start of the step, in seconds since the epoch."""
    accepted: float | None
    completed: float | None
    dead: float | None
    lag: int | None
    p50: float | None
    p95: float | None
    p99: float | None


class Latency(msgspec.Struct, frozen=True):
    """Seconds from accepted to completed, of the messages completed in the last ``window`` seconds; accurate to 5 %."""

    window: int
    messages: int
    p50: float | None
    p95: float | None
    p99: float | None


@dataclass(slots=True)
class Bucket:
    """Counts of 10 seconds; ``steps`` counts completed messages by latency step."""

    completed: int = 0
    dead: int = 0
    steps: dict[int, int] = field(default_factory=dict[int, int])


class Throughput:
    """The buckets. ``known`` holds the times of those that have been read, even if empty: all others are unknown."""

    def __init__(self) -> None:
        self.buckets: dict[int, Bucket] = {}
        self.arrivals: dict[int, int] = {}
        self.known: set[int] = set()

    def replace(
        self,
        begin: int,
        end: int,
        flow: Iterable[tuple[int, str, int, int]],
        arrivals: Iterable[tuple[int, int]],
    ) -> None:
        """Replace the buckets of [begin, end) by what was read."""
        for at in range(begin, end, BUCKET):
            self.buckets.pop(at, None)
            self.arrivals.pop(at, None)
            self.known.add(at)
        for at, status, step, messages in flow:
            bucket = self.buckets.setdefault(at, Bucket())
            if status == Status.COMPLETED:
                bucket.completed += messages
                bucket.steps[step] = bucket.steps.get(step, 0) + messages
            elif status == Status.DLQ:
                bucket.dead += messages
        self.arrivals.update(arrivals)

    def forget(self, before: float) -> None:
        """Drop buckets older than ``before``, in seconds since the epoch."""
        for at in [at for at in self.known if at < before - BUCKET]:
            self.known.discard(at)
            self.buckets.pop(at, None)
            self.arrivals.pop(at, None)

    def points(self, begin: int, end: int, step: int) -> list[Point]:
        """The series of [begin, end) in steps of ``step`` seconds, a multiple of the bucket length."""
        return [self._point(at, step, end) for at in range(begin, end, step)]

    def latency(self, end: int, window: int) -> Latency:
        """Latency percentiles of the ``window`` seconds before ``end``."""
        steps = _merge(self.buckets[at].steps for at in range(end - window, end, BUCKET) if at in self.buckets)
        p50, p95, p99 = percentiles(steps)
        return Latency(window, sum(steps.values()), p50, p95, p99)

    def _point(self, at: int, step: int, end: int) -> Point:
        known = [each for each in range(at, min(at + step, end), BUCKET) if each in self.known]
        if not known:
            return Point(at, None, None, None, None, None, None, None)
        seconds = len(known) * BUCKET
        filled = [self.buckets[each] for each in known if each in self.buckets]
        p50, p95, p99 = percentiles(_merge(each.steps for each in filled))
        return Point(
            at,
            sum(self.arrivals.get(each, 0) for each in known) / seconds,
            sum(each.completed for each in filled) / seconds,
            sum(each.dead for each in filled) / seconds,
            None,
            p50,
            p95,
            p99,
        )


def percentiles(steps: dict[int, int]) -> tuple[float | None, float | None, float | None]:
    """The 50th, 95th and 99th percentile in seconds, each the midpoint of its latency step."""
    total = sum(steps.values())
    if not total:
        return None, None, None
    ranks = [math.ceil(total * share) for share in (0.5, 0.95, 0.99)]
    found: list[float] = []
    seen = 0
    for step in sorted(steps):
        seen += steps[step]
        while len(found) < len(ranks) and seen >= ranks[len(found)]:
            found.append(math.exp((step + 0.5) * STEP))
    return found[0], found[1], found[2]


def utc_time(epoch: float) -> datetime:
    """The UTC time of a number of seconds since the epoch."""
    return datetime.fromtimestamp(epoch, UTC)


def _merge(each: Iterable[dict[int, int]]) -> dict[int, int]:
    merged: dict[int, int] = {}
    for steps in each:
        for step, messages in steps.items():
            merged[step] = merged.get(step, 0) + messages
    return merged
