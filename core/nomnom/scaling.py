"""How the number of workers follows the lag: the policy's defaults, limits and arithmetic.

The local autoscaler, the chart's values, the command line and the app take them from here. The arithmetic is that of
KEDA's nats-jetstream scaler.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import ceil

import msgspec

from nomnom.errors import NomnomError

LOCAL_LIMIT = 64
"""The most workers on one machine: each is a process with connections to PostgreSQL, which has 200."""
CLUSTER_LIMIT = 1000
"""The most workers on a cluster: a larger number is taken for a mistake."""


class ScalingError(NomnomError):
    """A scaling policy or a number of workers that is not possible."""


@dataclass(frozen=True, slots=True)
class ScalingPolicy:
    """A worker for each ``threshold`` messages of lag, from ``minimum`` to ``maximum``; times in seconds.

    The defaults are the chart's.
    """

    minimum: int = 0
    maximum: int = 10
    threshold: int = 100
    cooldown: float = 300.0
    """Time without lag until the last worker ends."""
    polling: float = 15.0
    """Time between two readings of the lag."""

    def share(self, lag: int) -> int:
        """The workers for a lag, before minimum and maximum."""
        return ceil(lag / self.threshold)

    def desired(self, lag: int) -> int:
        """The workers for a lag: at least one if there is any, within minimum and maximum."""
        return min(max(self.share(lag), self.minimum, 1 if lag > 0 else 0), self.maximum)

    def changed(self, changes: Mapping[str, float], limit: int) -> ScalingPolicy:
        """The policy with other values, ``limit`` workers at most. Raises ScalingError."""
        whole = {name: int(value) if value == int(value) else value for name, value in changes.items()}
        try:
            policy = msgspec.convert({**asdict(self), **whole}, ScalingPolicy)
        except msgspec.ValidationError as error:
            raise ScalingError(f"scaling policy: {error}") from error
        policy.check(limit)
        return policy

    def check(self, limit: int) -> None:
        """Raise ScalingError if the values contradict each other or exceed ``limit`` workers."""
        if not 0 <= self.minimum <= self.maximum <= limit or self.maximum < 1:
            raise ScalingError(f"expected 0 <= minimum <= maximum <= {limit:,} and a maximum of at least 1")
        if self.threshold < 1 or self.cooldown < 0 or self.polling < 0.1:
            raise ScalingError("expected a threshold of at least 1, a cooldown from 0 s, polling from 0.1 s")


def check_number(workers: int, limit: int) -> None:
    """Raise ScalingError for a number of workers below zero or above ``limit``."""
    if not 0 <= workers <= limit:
        raise ScalingError(f"expected 0 to {limit:,} workers, found {workers:,}")


def local_policy() -> ScalingPolicy:
    """The policy of a new local environment: a worker for each CPU, quick to start and to end."""
    return ScalingPolicy(maximum=max(2, os.cpu_count() or 2), threshold=500, cooldown=30.0, polling=0.5)


KEDA_DEFAULTS = ScalingPolicy(minimum=0, maximum=100, threshold=10, cooldown=300.0, polling=30.0)
"""What KEDA assumes if a ScaledObject does not state it."""
