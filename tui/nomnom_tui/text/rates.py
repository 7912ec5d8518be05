"""Rates from counters that only grow, as the servers give them."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from datetime import datetime

WINDOW = 10.0
"""Seconds over which a rate is taken: long enough to be calm, short enough to be of now."""


class RateMeter:
    """Counters by key, each read now and then."""

    def __init__(self) -> None:
        self._readings: dict[Hashable, deque[tuple[datetime, int]]] = {}

    def read(self, key: Hashable, counter: int, at: datetime) -> float | None:
        """How much the counter grew each second lately; None at the first reading, and after it began anew."""
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
        """Forget what was read."""
        self._readings.clear()
