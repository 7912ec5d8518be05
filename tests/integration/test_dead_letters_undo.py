"""Undo replays before, during and after processing; the message always exists in at least one stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from nats.aio.msg import Msg
from nats.js.api import RawStreamMsg

from conftest import ORDER, Deployment
from nomnom.envelope import MSG_ID, REPLAYS
from nomnom.inspection.dead_letters import Filter
from nomnom.inspection.jetstream import ConsumerReport
from nomnom.message_status import CLAIM
from nomnom_control.errors import ControlError
from nomnom_control.session.audit import Action
from nomnom_control.session.dead_letters import Edit, Result, Undone, UndoResult
from nomnom_control.session.dead_letters import undo as module
from nomnom_control.session.dead_letters.undo import Undo
from nomnom_control.session.pipeline import Pipeline
from operator_session import BROKEN, RECEIVED, bury, bury_many, open_session, stored

ALL = Filter()


@pytest.fixture
async def session(deployment: Deployment, tmp_path: Path) -> AsyncIterator[Pipeline]:
    async with open_session(deployment, tmp_path) as pipeline:
        yield pipeline


async def fetch(deployment: Deployment, count: int = 1) -> list[Msg]:
    """Fetch messages like a worker."""
    streams = deployment.streams
    subscription = await deployment.jetstream.pull_subscribe_bind(streams.consumer, stream=streams.stream)
    messages = await subscription.fetch(count, timeout=5)
    await subscription.unsubscribe()
    return messages


async def complete(deployment: Deployment, message: Msg) -> None:
    """Complete a message like a worker: write its status, then acknowledge it."""
    identity = message.subject.rpartition(".")[2]
    replays = int((message.headers or {}).get(REPLAYS, "0"))
    await deployment.database.execute(CLAIM, [identity], ["orders"], [RECEIVED], [replays], [0])
    await message.ack_sync(timeout=5)


async def bury_processed(deployment: Deployment, payload: str = BROKEN) -> tuple[int, str]:
    """Publish a dead letter with its status, like a worker."""
    sequence, identity = await bury(deployment, payload)
    insert = (
        "INSERT INTO message_status (message_id, entity_type, status, received_at) VALUES ($1, 'orders', 'dlq', $2)"
    )
    await deployment.database.execute(insert, identity, RECEIVED)
    return sequence, identity


async def replay(session: Pipeline, edit: Edit | None = None) -> str:
    progress = await (await session.dead_letters.replay(ALL, edit)).finish()
    assert set(progress.counts) == {Result.REPLAYED}
    return progress.run


async def contents(deployment: Deployment) -> tuple[list[RawStreamMsg], list[RawStreamMsg]]:
    streams = deployment.streams
    return await stored(deployment, streams.stream), await stored(deployment, streams.dead_stream)


def before_restoring(monkeypatch: pytest.MonkeyPatch, act: Callable[[], Awaitable[None]]) -> None:
    """Run ``act`` after the decision what to undo, before anything is changed."""
    restore = Undo._restore

    async def act_and_restore(undo: Undo, cases: Any) -> None:
        await act()
        await restore(undo, cases)

    monkeypatch.setattr(Undo, "_restore", act_and_restore)


@pytest.mark.parametrize("edit", [None, Edit(payload=ORDER.encode())], ids=["unchanged", "edited"])
async def test_undo_restores_the_dead_letter(deployment: Deployment, session: Pipeline, edit: Edit | None) -> None:
    sequence, identity = await bury_processed(deployment)
    before = await session.dead_letters.dead_letter(sequence)
    await replay(session, edit)
    (undone,) = await session.dead_letters.undo(message_id=identity)
    assert undone.result is UndoResult.UNDONE
    published, (dead_letter,) = await contents(deployment)
    assert published == []
    assert dead_letter.seq == undone.dead_letter
    after = await session.dead_letters.dead_letter(int(dead_letter.seq or 0))
    assert before is not None
    assert after is not None
    for name in (
        "message_id",
        "entity",
        "reason",
        "error",
        "attempts",
        "received_at",
        "failed_at",
        "replays",
        "payload",
    ):
        assert getattr(after, name) == getattr(before, name), name
    (entry,) = await session.audit.read(action=Action.UNDO)
    (replayed,) = await session.audit.read(action=Action.REPLAY)
    assert (entry.result, entry.undoes, entry.message_id) == ("undone", replayed.event, identity)
    with pytest.raises(ControlError, match="no replay to undo"):
        await session.dead_letters.undo(message_id=identity)


async def test_replay_after_undo_is_not_a_duplicate(deployment: Deployment, session: Pipeline) -> None:
    """The id of the first replay is still in JetStream's duplicate window, but its message is deleted."""
    _, identity = await bury_processed(deployment)
    for _ in range(3):
        await replay(session)
        published, dead_letters = await contents(deployment)
        assert (len(published), len(dead_letters)) == (1, 0)
        (undone,) = await session.dead_letters.undo(message_id=identity)
        assert undone.result is UndoResult.UNDONE
        published, dead_letters = await contents(deployment)
        assert (len(published), len(dead_letters)) == (0, 1)


async def test_delivered_message_is_not_undone(deployment: Deployment, session: Pipeline) -> None:
    _, identity = await bury_processed(deployment)
    await replay(session)
    (message,) = await fetch(deployment)
    (undone,) = await session.dead_letters.undo(message_id=identity)
    assert undone.result is UndoResult.PROCESSING
    published, dead_letters = await contents(deployment)
    assert (len(published), len(dead_letters)) == (1, 0)
    await complete(deployment, message)
    (undone,) = await session.dead_letters.undo(message_id=identity)
    assert (undone.result, undone.dead_letter) == (UndoResult.TOO_LATE, None)
    assert "completed" in undone.detail
    assert await contents(deployment) == ([], [])


async def test_message_delivered_before_the_pause_is_not_undone(
    deployment: Deployment, session: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, identity = await bury_processed(deployment)
    await replay(session)
    delivered: list[Msg] = []

    async def work() -> None:
        delivered.extend(await fetch(deployment))

    read_consumer = session.jetstream.consumer

    async def consumer(stream: str, name: str) -> ConsumerReport:
        report = await read_consumer(stream, name)
        if not delivered:
            await work()
        return report

    monkeypatch.setattr(session.jetstream, "consumer", consumer)
    (undone,) = await session.dead_letters.undo(message_id=identity)
    assert undone.result is UndoResult.PROCESSING
    published, dead_letters = await contents(deployment)
    assert (len(published), len(dead_letters)) == (1, 0)


async def test_deliveries_are_paused_during_undo(
    deployment: Deployment, session: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, first = await bury_processed(deployment)
    _, second = await bury_processed(deployment)
    await replay(session)
    waiting: list[asyncio.Task[list[Msg]]] = []

    async def work() -> None:
        waiting.append(asyncio.create_task(fetch(deployment)))
        await asyncio.sleep(0.3)  # a consumer that is not paused would deliver in this time
        assert not waiting[0].done()

    before_restoring(monkeypatch, work)
    (undone,) = await session.dead_letters.undo(message_id=first)
    assert undone.result is UndoResult.UNDONE
    # The pending pull gets a message as soon as the consumer is resumed, not only after it expires.
    (message,) = await asyncio.wait_for(waiting[0], 2)
    assert message.subject.endswith(second)
    streams = session.streams
    assert not (await session.jetstream.consumer(streams.stream, streams.consumer)).paused


async def test_existing_pause_is_kept(deployment: Deployment, session: Pipeline) -> None:
    streams = session.streams
    paused = await session.jetstream.pause(streams.stream, streams.consumer)
    _, identity = await bury_processed(deployment)
    await replay(session)
    (undone,) = await session.dead_letters.undo(message_id=identity)
    assert undone.result is UndoResult.UNDONE
    assert (await session.jetstream.consumer(streams.stream, streams.consumer)).paused_until == paused.paused_until


@pytest.mark.parametrize("completes", [True, False])
async def test_undo_after_delivery_waits_for_the_worker(
    deployment: Deployment, session: Pipeline, monkeypatch: pytest.MonkeyPatch, *, completes: bool
) -> None:
    _, identity = await bury_processed(deployment)
    await replay(session)
    working: list[asyncio.Task[None]] = []
    delivered: list[Msg] = []

    @asynccontextmanager
    async def not_paused(*_: object) -> AsyncIterator[None]:
        """Simulates a pause that expired."""
        yield

    async def work() -> None:
        delivered.extend(await fetch(deployment))

        async def finish() -> None:
            await asyncio.sleep(0.3)
            await complete(deployment, delivered[0])

        if completes:
            working.append(asyncio.create_task(finish()))

    monkeypatch.setattr(module, "paused", not_paused)
    before_restoring(monkeypatch, work)
    (undone,) = await session.dead_letters.undo(message_id=identity, settle=10 if completes else 0.1)
    published, dead_letters = await contents(deployment)
    assert len(delivered) == 1
    if completes:
        await working[0]
        assert (undone.result, undone.dead_letter) == (UndoResult.TOO_LATE, None)
        assert (published, dead_letters) == ([], [])
        return
    assert undone.result is UndoResult.UNCERTAIN
    assert (len(published), [each.seq for each in dead_letters]) == (0, [undone.dead_letter])
    # The worker completes it anyway: replaying the kept dead letter has no effect.
    await complete(deployment, delivered[0])
    progress = await (await session.dead_letters.replay(ALL)).finish()
    assert progress.counts == {Result.ALREADY: 1}
    assert await contents(deployment) == ([], [])


async def test_undo_of_a_run(deployment: Deployment, session: Pipeline) -> None:
    buried = await bury_many(deployment, [BROKEN] * 150)
    run = await replay(session)
    fetched = await fetch(deployment, 10)
    for message in fetched[:4]:
        await complete(deployment, message)
    progress: list[tuple[int, int]] = []
    results = await session.dead_letters.undo(run=run, progress=lambda *now: progress.append(now))
    counts: dict[UndoResult, list[Undone]] = {}
    for each in results:
        counts.setdefault(each.result, []).append(each)
    assert {result: len(each) for result, each in counts.items()} == {
        UndoResult.TOO_LATE: 4,
        UndoResult.PROCESSING: 6,
        UndoResult.UNDONE: 140,
    }
    assert progress[-1] == (150, 150)
    published, dead_letters = await contents(deployment)
    assert (len(published), len(dead_letters)) == (6, 140)
    completed = {each.message_id for each in counts[UndoResult.TOO_LATE]}
    everywhere = {str(each.subject).rpartition(".")[2] for each in [*published, *dead_letters]} | completed
    assert everywhere == {identity for _, identity in buried}
    again = await session.dead_letters.undo(run=run)
    assert {each.result for each in again} == {UndoResult.PROCESSING}
    assert len(again) == 6


async def test_interrupted_undo_is_completed(deployment: Deployment, session: Pipeline) -> None:
    """The dead letter was restored but the message not deleted: in the end there is one dead letter and no message."""
    _, identity = await bury_processed(deployment)
    await replay(session)
    (entry,) = await session.audit.read(message_id=identity)
    headers = {**entry.detail["letter"]["headers"], MSG_ID: f"{identity}.0.dead.undo.{entry.event}"}
    await deployment.jetstream.publish(entry.detail["letter"]["subject"], BROKEN.encode(), headers=headers)
    (undone,) = await session.dead_letters.undo(message_id=identity)
    assert undone.result is UndoResult.UNDONE
    published, dead_letters = await contents(deployment)
    assert (len(published), len(dead_letters)) == (0, 1)


async def test_replay_after_interrupted_undo(deployment: Deployment, session: Pipeline) -> None:
    _, identity = await bury_processed(deployment)
    await replay(session)
    (entry,) = await session.audit.read(message_id=identity)
    headers = {**entry.detail["letter"]["headers"], MSG_ID: f"{identity}.0.dead.undo.{entry.event}"}
    await deployment.jetstream.publish(entry.detail["letter"]["subject"], BROKEN.encode(), headers=headers)
    await replay(session)
    published, dead_letters = await contents(deployment)
    assert (len(published), len(dead_letters)) == (1, 0)


async def test_full_dead_letter_stream_keeps_the_message(deployment: Deployment, session: Pipeline) -> None:
    sequence, identity = await bury_processed(deployment, "O|" + "x" * 5000)
    await replay(session)
    config = (await deployment.jetstream.stream_info(session.streams.dead_stream)).config
    await deployment.jetstream.update_stream(config.evolve(max_bytes=1000))
    (undone,) = await session.dead_letters.undo(message_id=identity)
    assert undone.result is UndoResult.FAILED
    assert "nothing changed" in undone.detail
    published, dead_letters = await contents(deployment)
    assert (len(published), len(dead_letters)) == (1, 0)
    await deployment.jetstream.update_stream(config)
    (undone,) = await session.dead_letters.undo(message_id=identity)
    assert undone.result is UndoResult.UNDONE
    assert sequence != undone.dead_letter


async def test_nothing_to_undo(session: Pipeline) -> None:
    with pytest.raises(ControlError, match="no replay to undo"):
        await session.dead_letters.undo(run="01a2094f-e5ef-70ae-9923-e7a71dde9744")
    with pytest.raises(ControlError, match="give either a message ID or the run ID"):
        await session.dead_letters.undo()
