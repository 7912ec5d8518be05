"""An incident with a real worker: bad records arrive, are found, dry-run, fixed, replayed and completed."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from conftest import ORDER, Deployment, free_port
from nomnom.envelope import Status, headers, ingest_subject, new_message_id
from nomnom.inspection.dead_letters import Filter, GroupBy
from nomnom_control.environments.local.processes import ChildProcess
from nomnom_control.session.dead_letters import Edit, Outcome, Result, UndoResult
from nomnom_control.session.pipeline import Pipeline
from operator_session import open_session, stored


@pytest.fixture
async def session(deployment: Deployment, tmp_path: Path) -> AsyncIterator[Pipeline]:
    async with open_session(deployment, tmp_path) as pipeline:
        yield pipeline


@pytest.fixture
async def worker(deployment: Deployment, tmp_path: Path) -> AsyncIterator[ChildProcess]:
    settings = {
        **deployment.environment,
        "WORKER_HEALTH_PORT": str(free_port()),
        "WORKER_HEALTH_HOST": "127.0.0.1",
        "LOG_FORMAT": "json",
        "RETRY_BACKOFF": "0.05",
    }
    process = ChildProcess("worker", [sys.executable, "-m", "nomnom_worker"], tmp_path / "worker.log", settings)
    await process.start()
    yield process
    await process.stop(20)


async def send(deployment: Deployment, text: str) -> str:
    identity = new_message_id()
    stamp = time.time_ns() // 1000
    await deployment.jetstream.publish(
        ingest_subject("orders", identity), text.encode(), headers=headers(stamp, identity)
    )
    return identity


async def completed(session: Pipeline, count: int) -> None:
    """Wait until ``count`` messages are completed."""
    async with asyncio.timeout(60):
        while True:
            found = {each.status: each.messages for each in await session.statuses.counts()}
            if found[Status.COMPLETED] >= count:
                return
            await asyncio.sleep(0.1)


async def dead_letters(session: Pipeline, count: int) -> None:
    """Wait until there are ``count`` dead letters."""
    async with asyncio.timeout(60):
        while (await session.dead_letters.page(limit=1)).total < count:  # noqa: ASYNC110
            await asyncio.sleep(0.1)


async def test_bad_records_are_repaired(deployment: Deployment, session: Pipeline, worker: ChildProcess) -> None:
    orders = [ORDER.replace("O|123|", f"O|{key}|") for key in range(1, 41)]
    bad = {await send(deployment, each.replace("2024-01-01", "2024-01-32")): each for each in orders[:20]}
    for each in orders[20:]:
        await send(deployment, each)
    await dead_letters(session, 20)
    await completed(session, 20)

    wanted = Filter.parse("entity:orders reason:record o_orderdate")
    (group,) = await session.dead_letters.groups(GroupBy.ERROR, wanted)
    assert (group.count, set(await session.dead_letters.matching(group.filter))) == (
        20,
        set(await session.dead_letters.matching(wanted)),
    )
    edit = Edit(fields={"o_orderdate": "2024-01-31"})
    predicted = [each async for part in session.dead_letters.dry_run(wanted, edit, deep=True) for each in part]
    assert {each.outcome for each in predicted} == {Outcome.COMPLETES}
    (one, *rest) = await session.dead_letters.matching(wanted)
    unchanged = await (await session.dead_letters.replay([one])).finish()
    assert unchanged.counts == {Result.REPLAYED: 1}
    await dead_letters(session, 20)  # the unchanged one became a dead letter again
    assert (await session.dead_letters.page(limit=1)).dead_letters[0].replays == 1

    repaired = await (await session.dead_letters.replay(wanted, edit)).finish()
    assert repaired.counts == {Result.REPLAYED: 20}
    await completed(session, 40)
    rows = await deployment.database.fetch(
        "SELECT o_orderkey, message_id::text FROM orders WHERE o_orderdate = '2024-01-31'"
    )
    assert {row["message_id"]: row["o_orderkey"] for row in rows} == {
        identity: int(text.split("|")[1]) for identity, text in bad.items()
    }
    assert await stored(deployment, session.streams.dead_stream) == []
    undone = await session.dead_letters.undo(run=repaired.run)
    assert {each.result for each in undone} == {UndoResult.TOO_LATE}
    assert len(rest) == 19
    assert worker.exit_code is None


async def test_undo_while_a_worker_is_running(deployment: Deployment, session: Pipeline, worker: ChildProcess) -> None:
    """Replay and undo concurrently with a working worker: afterwards each message is in exactly one place."""
    bad = {await send(deployment, f"O|{key}|broken") for key in range(300)}
    await dead_letters(session, 300)
    edit = Edit(replacements=((r"O\|(\d+)\|broken", ORDER.replace("|123|", r"|\1|")),))
    replay = await session.dead_letters.replay(Filter(), edit, concurrency=100)
    results: dict[str, UndoResult] = {}
    async for progress in replay:
        for each in await session.dead_letters.undo(run=progress.run):
            results[each.message_id] = each.result
    async with asyncio.timeout(60):
        while (await session.overview()).lag:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    remaining = {str(each.subject).rpartition(".")[2] for each in await stored(deployment, session.streams.dead_stream)}
    applied = {str(row[0]) for row in await deployment.database.fetch("SELECT message_id FROM orders")}
    assert remaining | applied == bad
    undone = {identity for identity, result in results.items() if result is UndoResult.UNDONE}
    assert undone == remaining - {each for each, result in results.items() if result is UndoResult.UNCERTAIN}
    assert undone.isdisjoint(applied)
    assert worker.exit_code is None
