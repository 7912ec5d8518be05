"""Background tasks end when they are told to."""

from __future__ import annotations

import asyncio

from nomnom.tasks import end


async def test_a_task_that_loses_a_cancellation_is_ended_too() -> None:
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


async def test_an_error_at_the_end_stops_no_other_from_ending() -> None:
    async def failing() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            raise OSError("the connection is broken")

    tasks = [asyncio.create_task(failing()), asyncio.create_task(asyncio.sleep(60))]
    await asyncio.sleep(0)
    await end(*tasks, None)
    assert [each.done() for each in tasks] == [True, True]
