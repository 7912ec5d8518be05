"""Refreshing, in one place: what a view shows is loaded at an interval by a feed.

A feed's loads never overlap (each waits for the one before), a result is dropped when something newer was asked for in
the meantime, and an error becomes a :class:`LoadError` that the view shows, with the time of the next try. Feeds of
views that nobody sees do not run (:class:`nomnom_tui.app.view.View` starts and stops them).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic
from typing import Generic, TypeVar

from nomnom.errors import NomnomError
from nomnom.retry import RetryPolicy

T = TypeVar("T")

TIMEOUT = 10.0
"""Seconds after which a load is given up."""
LONGEST_RETRY = 15.0
_FIRST_RETRY = 1.0
_SOON = 2.0
"""Seconds that the first retry takes at most: what is loaded seldom is missed as soon as the rest."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LoadError:
    """Why a feed has nothing new: the reason, since when, and when it tries again (``retry_at`` on time.monotonic)."""

    text: str
    since: datetime
    retry_at: float

    @property
    def retry_in(self) -> float:
        """Seconds until the next try."""
        return max(0.0, self.retry_at - monotonic())


class Feed(Generic[T]):
    """Loads something every ``interval`` seconds and delivers it, until its task is cancelled."""

    def __init__(
        self,
        name: str,
        interval: float,
        load: Callable[[], Awaitable[T]],
        deliver: Callable[[T], None],
        report: Callable[[LoadError | None], None],
        *,
        timeout: float = TIMEOUT,
    ) -> None:
        self.name = name
        self.interval = interval
        self.problem: LoadError | None = None
        self.loaded_at: datetime | None = None
        self._load = load
        self._deliver = deliver
        self._report = report
        self._timeout = timeout
        self._asked = asyncio.Event()
        self._generation = 0
        self._failures = 0
        self._since: datetime | None = None
        self._loading: asyncio.Task[T] | None = None

    def refresh(self) -> None:
        """Load again now. What is being loaded was asked for earlier (another filter, another page): it is dropped."""
        self._generation += 1
        self._failures = 0
        self._asked.set()
        if self._loading is not None:
            self._loading.cancel()

    async def run(self) -> None:
        """Load, deliver, wait; for ever. One at a time: the caller sees to it that a feed runs once."""
        while True:
            self._asked.clear()
            if await self._round():
                continue
            wait = self.interval if self.problem is None else self.problem.retry_in
            try:
                async with asyncio.timeout(wait):
                    await self._asked.wait()
            except TimeoutError:
                pass

    async def _round(self) -> bool:
        """One load; true where it was dropped for a newer one."""
        generation = self._generation
        loading = self._loading = asyncio.create_task(self._ask())
        try:
            async with asyncio.timeout(self._timeout):
                result = await loading
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if generation == self._generation or (task is not None and task.cancelling()):
                raise  # not (only) dropped by refresh(): this task is to end
            return True
        except TimeoutError:
            self._fail(f"no answer within {self._timeout:g} s")
        except (NomnomError, OSError) as error:
            self._fail(str(error) or type(error).__name__)
        except Exception as error:
            # Whatever it is, it must not end the app: it is shown where the data would be, and written to the log.
            logger.exception("feed %s", self.name)
            self._fail(f"unexpected {type(error).__name__}: {error} (see the log: :log)")
        else:
            if generation != self._generation:
                return True
            self._succeed(result)
        finally:
            loading.cancel()
            # A feed that is started anew has begun to load before the run that it ends has come here.
            if self._loading is loading:
                self._loading = None
        return False

    async def _ask(self) -> T:
        task = asyncio.current_task()
        try:
            # A loader may raise before it returns something to wait for.
            return await self._load()
        finally:
            if task is not None and task.cancelling():
                raise asyncio.CancelledError  # it may have been lost: see nomnom.tasks.end

    def _succeed(self, result: T) -> None:
        self._failures = 0
        self._since = None
        self.loaded_at = datetime.now(UTC)
        had_problem, self.problem = self.problem, None
        try:
            self._deliver(result)
        except Exception as error:
            logger.exception("view of feed %s", self.name)
            self._fail(f"cannot be shown: {type(error).__name__}: {error} (see the log: :log)")
            return
        if had_problem:
            logger.info("feed %s is back", self.name)
        self._report(None)

    def _fail(self, text: str) -> None:
        self._failures += 1
        self._since = self._since or datetime.now(UTC)
        policy = RetryPolicy(first=max(_FIRST_RETRY, min(self.interval, _SOON)), longest=LONGEST_RETRY)
        self.problem = LoadError(text, self._since, monotonic() + policy.wait(self._failures))
        self._report(self.problem)
