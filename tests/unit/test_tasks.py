"""Cancellation of background tasks."""

from __future__ import annotations

import asyncio

from nomnom.tasks import end


async def test_task_that_swallows_a_cancellation_is_cancelled_again() -> None:
    lost = asyncio.Event()

    async def stubborn() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            lost.set()
        await asyncio.sleep(60)

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    await end(task)
    assert lost.is_set()
    assert task.cancelled()


async def test_error_during_cancellation_does_not_affect_other_tasks() -> None:
    async def failing() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            raise OSError("the connection is broken")

    tasks = [asyncio.create_task(failing()), asyncio.create_task(asyncio.sleep(60))]
    await asyncio.sleep(0)
    await end(*tasks, None)
    assert [each.done() for each in tasks] == [True, True]
