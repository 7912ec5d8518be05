"""The end of background tasks."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

_PATIENCE = 0.5


async def end(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel tasks and wait until they have ended.

    Cancelled again where it was lost: before Python 3.12 ``asyncio.wait_for``, which nats-py asks with, drops a
    cancellation that comes together with its answer.
    """
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=_PATIENCE)
