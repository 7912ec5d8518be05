"""Throughput and latency over time, in memory: ten-second buckets of the last day, read once each from PostgreSQL.

What a request costs does not depend on the table's size: it reads these buckets. What keeping them costs depends on
the flow alone: the newest buckets are read again while they can still change, older ones never.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime

import msgspec

from nomnom.envelope import Status

BUCKET = 10
"""Seconds in a bucket."""
KEPT = 24 * 60 * 60
"""Seconds that are kept."""
STEP = math.log(1.1)
"""Width of a latency step: each is a tenth longer than the one before."""


class Point(msgspec.Struct, frozen=True, array_like=False):
    """One step of a series. Rates are messages a second, latencies seconds; null where nothing is known."""

    at: float
    """Seconds since the epoch at which the step begins."""
    accepted: float | None
    completed: float | None
    dead: float | None
    lag: int | None
    p50: float | None
    p95: float | None
    p99: float | None


class Latency(msgspec.Struct, frozen=True):
    """Seconds from accepted to completed, of the messages completed in the last ``window`` seconds, within 5 %."""

    window: int
    messages: int
    p50: float | None
    p95: float | None
    p99: float | None


@dataclass(slots=True)
class Bucket:
    """What was done in ten seconds; ``steps`` counts completed messages by latency step."""

    completed: int = 0
    dead: int = 0
    steps: dict[int, int] = field(default_factory=dict[int, int])


class Flow:
    """The buckets. ``known`` holds those that have been read, filled or not: the others are unknown, not zero."""

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
        """Put what was read of [begin, end) in the place of what was there before."""
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
        """Drop what is older than ``before``."""
        for at in [at for at in self.known if at < before - BUCKET]:
            self.known.discard(at)
            self.buckets.pop(at, None)
            self.arrivals.pop(at, None)

    def points(self, begin: int, end: int, step: int) -> list[Point]:
        """The series of [begin, end) in steps of ``step`` seconds (a multiple of the bucket)."""
        return [self._point(at, step, end) for at in range(begin, end, step)]

    def latency(self, end: int, window: int) -> Latency:
        """Percentiles of the last ``window`` seconds before ``end``."""
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
    """The 50th, 95th and 99th percentile in seconds, each the middle of its latency step."""
    total = sum(steps.values())
    if not total:
        return None, None, None
    wanted = [math.ceil(total * share) for share in (0.5, 0.95, 0.99)]
    found: list[float] = []
    seen = 0
    for step in sorted(steps):
        seen += steps[step]
        while len(found) < len(wanted) and seen >= wanted[len(found)]:
            found.append(math.exp((step + 0.5) * STEP))
    return found[0], found[1], found[2]


def moment(epoch: float) -> datetime:
    """Seconds since the epoch as a time."""
    return datetime.fromtimestamp(epoch, UTC)


def _merge(each: Iterable[dict[int, int]]) -> dict[int, int]:
    merged: dict[int, int] = {}
    for steps in each:
        for step, messages in steps.items():
            merged[step] = merged.get(step, 0) + messages
    return merged
