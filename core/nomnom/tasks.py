"""The end of background tasks."""

from __future__ import annotations

import asyncio
from typing import Any

_PATIENCE = 2.0
"""Seconds: longer than what a task puts in order when it is told to end."""


async def end(*tasks: asyncio.Future[Any] | None) -> None:
    """Cancel tasks and wait until they have ended; what they ended with is not raised.

    Cancelled again where it was lost: before Python 3.12 ``asyncio.wait_for``, which nats-py asks with, drops a
    cancellation that comes together with its answer.
    """
    pending = {each for each in tasks if each is not None}
    while pending:
        for each in pending:
            each.cancel()
        done, pending = await asyncio.wait(pending, timeout=_PATIENCE)
        for each in done:
            if not each.cancelled():
                each.exception()  # else asyncio reports that nobody asked for it
