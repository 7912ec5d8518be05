"""How long to wait between attempts: the one policy of everything that is tried again.

By hand, because most callers need only the next wait (a nak's delay, a process's restart, a connection that is kept
open), while stamina and tenacity wrap calls.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import count
from typing import TypeVar

T = TypeVar("T")
_MOST_STEPS = 64
"""More than any wait needs to reach its limit; it keeps the power finite."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential backoff, in seconds: ``first``, then each wait ``factor`` times as long, at most ``longest``.

    ``jitter``, from 0 to 1, is the share of a wait that is random, so that many clients do not come back at once.
    """

    first: float
    longest: float
    factor: float = 2.0
    jitter: float = 0.0

    def wait(self, failures: int) -> float:
        """The wait after that many failures in a row, from 1 on."""
        seconds = min(self.longest, self.first * self.factor ** min(failures - 1, _MOST_STEPS))
        return seconds * random.uniform(1 - self.jitter, 1) if self.jitter else seconds  # noqa: S311


RECONNECT = RetryPolicy(first=0.1, longest=2.0, jitter=0.5)
"""Waits before another attempt to reach a server that is unavailable."""


async def retry(
    action: Callable[[], Awaitable[T]], policy: RetryPolicy, errors: tuple[type[Exception], ...], *, within: float
) -> T:
    """Call ``action`` until it succeeds; raises its last error if the next attempt would begin after ``within``
    seconds, and any error that is not one of ``errors`` at once.
    """
    clock = asyncio.get_running_loop().time
    deadline = clock() + within
    for failures in count(1):
        try:
            return await action()
        except errors:
            wait = policy.wait(failures)
            if clock() + wait > deadline:
                raise
        await asyncio.sleep(wait)
    raise AssertionError
