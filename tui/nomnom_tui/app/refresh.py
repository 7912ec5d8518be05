"""Feeds: each loads the data of a view at an interval.

Loads of a feed never overlap, a result is discarded if a newer one was requested meanwhile, and an error becomes a
:class:`LoadError` that the view shows together with the time of the next attempt. Feeds of hidden views do not run
(:class:`nomnom_tui.app.view.View` starts and stops them).
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
"""Seconds after which a load times out."""
LONGEST_RETRY = 15.0
_FIRST_RETRY = 1.0
_MAX_FIRST_RETRY = 2.0
"""Upper bound in seconds of the first retry, also for feeds with a long interval."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LoadError:
    """Why a feed has no new data: the reason, since when, and the next attempt (``retry_at`` on time.monotonic)."""

    text: str
    since: datetime
    retry_at: float

    @property
    def retry_in(self) -> float:
        """Seconds until the next attempt."""
        return max(0.0, self.retry_at - monotonic())


class Feed(Generic[T]):
    """Loads data every ``interval`` seconds and delivers it, until its task is cancelled."""

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
        self._requested = asyncio.Event()
        self._generation = 0
        self._failures = 0
        self._since: datetime | None = None
        self._loading: asyncio.Task[T] | None = None

    def refresh(self) -> None:
        """Load again now. A load in progress was for an earlier request (another filter or page) and is discarded."""
        self._generation += 1
        self._failures = 0
        self._requested.set()
        if self._loading is not None:
            self._loading.cancel()

    async def run(self) -> None:
        """Load, deliver and wait, forever. The caller must not run a feed twice at the same time."""
        while True:
            self._requested.clear()
            if await self._load_once():
                continue
            wait = self.interval if self.problem is None else self.problem.retry_in
            try:
                async with asyncio.timeout(wait):
                    await self._requested.wait()
            except TimeoutError:
                pass

    async def _load_once(self) -> bool:
        """Load once; returns true if the result was discarded for a newer request."""
        generation = self._generation
        loading = self._loading = asyncio.create_task(self._call_load())
        try:
            async with asyncio.timeout(self._timeout):
                result = await loading
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if generation == self._generation or (task is not None and task.cancelling()):
                raise  # not (only) discarded by refresh(): this task itself is cancelled
            return True
        except TimeoutError:
            self._fail(f"no response within {self._timeout:g} s")
        except (NomnomError, OSError) as error:
            self._fail(str(error) or type(error).__name__)
        except Exception as error:
            # No error may end the app: show it in place of the data and log it.
            logger.exception("feed %s", self.name)
            self._fail(f"unexpected {type(error).__name__}: {error} (type :log for the log file)")
        else:
            if generation != self._generation:
                return True
            self._succeed(result)
        finally:
            loading.cancel()
            # A restarted feed may already be loading when the previous run gets here.
            if self._loading is loading:
                self._loading = None
        return False

    async def _call_load(self) -> T:
        task = asyncio.current_task()
        try:
            # A loader may raise before it returns an awaitable.
            return await self._load()
        finally:
            if task is not None and task.cancelling():
                raise asyncio.CancelledError  # it may have been swallowed: see nomnom.tasks.end

    def _succeed(self, result: T) -> None:
        self._failures = 0
        self._since = None
        self.loaded_at = datetime.now(UTC)
        had_problem, self.problem = self.problem, None
        try:
            self._deliver(result)
        except Exception as error:
            logger.exception("view of feed %s", self.name)
            self._fail(f"cannot be displayed: {type(error).__name__}: {error} (type :log for the log file)")
            return
        if had_problem:
            logger.info("feed %s recovered", self.name)
        self._report(None)

    def _fail(self, text: str) -> None:
        self._failures += 1
        self._since = self._since or datetime.now(UTC)
        policy = RetryPolicy(first=max(_FIRST_RETRY, min(self.interval, _MAX_FIRST_RETRY)), longest=LONGEST_RETRY)
        self.problem = LoadError(text, self._since, monotonic() + policy.wait(self._failures))
        self._report(self.problem)
