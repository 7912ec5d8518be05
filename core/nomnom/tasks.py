"""Tasks: their cancellation, and work that completes despite it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

T = TypeVar("T")

_CLEANUP_SECONDS = 2.0
"""Longer than the cleanup of a cancelled task takes, in seconds."""


async def end(*tasks: asyncio.Future[Any] | None) -> None:
    """Cancel tasks and wait until they have ended, without raising their exceptions.

    Tasks that do not end are cancelled again: before Python 3.12, ``asyncio.wait_for``, which nats-py uses, loses a
    cancellation that coincides with the completion of its awaitable.
    """
    pending = {each for each in tasks if each is not None}
    while pending:
        for each in pending:
            each.cancel()
        done, pending = await asyncio.wait(pending, timeout=_CLEANUP_SECONDS)
        for each in done:
            if not each.cancelled():
                each.exception()  # retrieved, so that asyncio does not log it


async def finish(work: Awaitable[T]) -> T:
    """Await ``work`` to its end even if the caller is cancelled; the cancellation is raised after it.

    For operations that have to reach a known result once they were started; each of their steps has its own timeout.
    """
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        if not task.cancelled():
            task.exception()  # mark as retrieved: the caller gets the cancellation
        raise cancelled
    return task.result()
