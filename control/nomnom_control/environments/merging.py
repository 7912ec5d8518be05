"""Run several long operations concurrently as one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import cast

from nomnom_control.environments import Progress


async def merge(*operations: AsyncIterator[Progress]) -> AsyncIterator[Progress]:
    """Events of concurrent operations in order of arrival; the first error cancels the others and is raised."""
    queue: asyncio.Queue[Progress | None] = asyncio.Queue()

    async def run(operation: AsyncIterator[Progress]) -> None:
        try:
            async with aclosing(cast("AsyncGenerator[Progress, None]", operation)) as events:
                async for event in events:
                    queue.put_nowait(event)
        finally:
            queue.put_nowait(None)

    tasks = [asyncio.ensure_future(run(each)) for each in operations]
    running = len(tasks)
    try:
        while running:
            event = await queue.get()
            if event is not None:
                yield event
                continue
            running -= 1
            for each in tasks:
                if each.done():
                    each.result()
    finally:
        for each in tasks:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
