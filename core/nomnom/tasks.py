"""Cancellation of background tasks."""

from __future__ import annotations

import asyncio
from typing import Any

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
