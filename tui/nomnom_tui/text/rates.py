"""Rates from the monotonic counters of the servers."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from datetime import datetime

WINDOW = 10.0
"""Seconds over which a rate is averaged: long enough to be steady, short enough to be current."""


class RateMeter:
    """Derives rates from counters, by key."""

    def __init__(self) -> None:
        self._readings: dict[Hashable, deque[tuple[datetime, int]]] = {}

    def read(self, key: Hashable, counter: int, at: datetime) -> float | None:
        """Return the recent increase per second; None at the first reading and after the counter was reset."""
        readings = self._readings.setdefault(key, deque(maxlen=60))
        if readings and (counter < readings[-1][1] or at < readings[-1][0]):
            readings.clear()
        readings.append((at, counter))
        while len(readings) > 2 and (at - readings[0][0]).total_seconds() > WINDOW:
            readings.popleft()
        first_at, first = readings[0]
        elapsed = (at - first_at).total_seconds()
        return (counter - first) / elapsed if elapsed > 0 else None

    def clear(self) -> None:
        """Drop all readings."""
        self._readings.clear()
