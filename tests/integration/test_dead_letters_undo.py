"""Undoing replays: before, while and after a worker takes the message; the message is always in one place at least."""

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


async def take(deployment: Deployment, count: int = 1) -> list[Msg]:
    """Be given messages, as a worker is."""
    streams = deployment.streams
    subscription = await deployment.jetstream.pull_subscribe_bind(streams.consumer, stream=streams.stream)
    messages = await subscription.fetch(count, timeout=5)
    await subscription.unsubscribe()
    return messages


async def complete(deployment: Deployment, message: Msg) -> None:
    """Complete a message, as a worker does: the answer, then the ack."""
    identity = message.subject.rpartition(".")[2]
    replays = int((message.headers or {}).get(REPLAYS, "0"))
    await deployment.database.execute(CLAIM, [identity], ["orders"], [RECEIVED], [replays])
    await message.ack_sync(timeout=5)


async def bury_answered(deployment: Deployment, payload: str = BROKEN) -> tuple[int, str]:
    """A dead letter with the row that its worker left."""
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


def before_taking_back(monkeypatch: pytest.MonkeyPatch, act: Callable[[], Awaitable[None]]) -> None:
    """Let something happen once it is decided what to take back, and nothing is taken back yet."""
    take_back = Undo._take_back

    async def acted(undo: Undo, cases: Any) -> None:
        await act()
        await take_back(undo, cases)

    monkeypatch.setattr(Undo, "_take_back", acted)


@pytest.mark.parametrize("edit", [None, Edit(payload=ORDER.encode())], ids=["as it was", "edited"])
async def test_the_letter_is_again_what_it_was(deployment: Deployment, session: Pipeline, edit: Edit | None) -> None:
    sequence, identity = await bury_answered(deployment)
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
    with pytest.raises(ControlError, match="no replay of"):
        await session.dead_letters.undo(message_id=identity)


async def test_replaying_again_what_was_undone_is_no_duplicate(deployment: Deployment, session: Pipeline) -> None:
    """JetStream remembers the first replay's id for two minutes, and its message is gone."""
    _, identity = await bury_answered(deployment)
    for _ in range(3):
        await replay(session)
        published, dead_letters = await contents(deployment)
        assert (len(published), len(dead_letters)) == (1, 0)
        (undone,) = await session.dead_letters.undo(message_id=identity)
        assert undone.result is UndoResult.UNDONE
        published, dead_letters = await contents(deployment)
        assert (len(published), len(dead_letters)) == (0, 1)


async def test_a_message_in_a_workers_hands_is_left_alone(deployment: Deployment, session: Pipeline) -> None:
    _, identity = await bury_answered(deployment)
    await replay(session)
    (message,) = await take(deployment)
    (undone,) = await session.dead_letters.undo(message_id=identity)
    assert undone.result is UndoResult.PROCESSING
    published, dead_letters = await contents(deployment)
    assert (len(published), len(dead_letters)) == (1, 0)
    await complete(deployment, message)
    (undone,) = await session.dead_letters.undo(message_id=identity)
    assert (undone.result, undone.dead_letter) == (UndoResult.TOO_LATE, None)
    assert "completed" in undone.detail
    assert await contents(deployment) == ([], [])


async def test_what_a_worker_is_given_at_the_last_moment_is_left_alone(
    deployment: Deployment, session: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, identity = await bury_answered(deployment)
    await replay(session)
    held: list[Msg] = []

    async def work() -> None:
        held.extend(await take(deployment))

    look = session.jetstream.consumer

    async def consumer(stream: str, name: str) -> ConsumerReport:
        report = await look(stream, name)
        if not held:
            await work()
        return report

    monkeypatch.setattr(session.jetstream, "consumer", consumer)
    (undone,) = await session.dead_letters.undo(message_id=identity)
    assert undone.result is UndoResult.PROCESSING
    published, dead_letters = await contents(deployment)
    assert (len(published), len(dead_letters)) == (1, 0)


async def test_deliveries_are_held_back_and_go_on(
    deployment: Deployment, session: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, first = await bury_answered(deployment)
    _, second = await bury_answered(deployment)
    await replay(session)
    waiting: list[asyncio.Task[list[Msg]]] = []

    async def work() -> None:
        waiting.append(asyncio.create_task(take(deployment)))
        await asyncio.sleep(0.3)  # time in which a consumer that is not held would deliver
        assert not waiting[0].done()

    before_taking_back(monkeypatch, work)
    (undone,) = await session.dead_letters.undo(message_id=first)
    assert undone.result is UndoResult.UNDONE
    # The pull that waits is answered when deliveries go on, not when it is given up.
    (message,) = await asyncio.wait_for(waiting[0], 2)
    assert message.subject.endswith(second)
    streams = session.streams
    assert not (await session.jetstream.consumer(streams.stream, streams.consumer)).paused


async def test_a_pause_of_someone_else_stays(deployment: Deployment, session: Pipeline) -> None:
    streams = session.streams
    paused = await session.jetstream.pause(streams.stream, streams.consumer)
    _, identity = await bury_answered(deployment)
    await replay(session)
    (undone,) = await session.dead_letters.undo(message_id=identity)
    assert undone.result is UndoResult.UNDONE
    assert (await session.jetstream.consumer(streams.stream, streams.consumer)).paused_until == paused.paused_until


@pytest.mark.parametrize("completes", [True, False])
async def test_where_deliveries_are_not_held_back_the_workers_answer_decides(
    deployment: Deployment, session: Pipeline, monkeypatch: pytest.MonkeyPatch, *, completes: bool
) -> None:
    _, identity = await bury_answered(deployment)
    await replay(session)
    working: list[asyncio.Task[None]] = []
    held: list[Msg] = []

    @asynccontextmanager
    async def not_held(*_: object) -> AsyncIterator[None]:
        """As of a session that was stopped for longer than the pause lasts."""
        yield

    async def work() -> None:
        held.extend(await take(deployment))

        async def finish() -> None:
            await asyncio.sleep(0.3)
            await complete(deployment, held[0])

        if completes:
            working.append(asyncio.create_task(finish()))

    monkeypatch.setattr(module, "held", not_held)
    before_taking_back(monkeypatch, work)
    (undone,) = await session.dead_letters.undo(message_id=identity, settle=10 if completes else 0.1)
    published, dead_letters = await contents(deployment)
    assert len(held) == 1
    if completes:
        await working[0]
        assert (undone.result, undone.dead_letter) == (UndoResult.TOO_LATE, None)
        assert (published, dead_letters) == ([], [])
        return
    assert undone.result is UndoResult.UNCERTAIN
    assert (len(published), [each.seq for each in dead_letters]) == (0, [undone.dead_letter])
    # The worker completes it all the same: the letter that was kept does nothing more.
    await complete(deployment, held[0])
    progress = await (await session.dead_letters.replay(ALL)).finish()
    assert progress.counts == {Result.ALREADY: 1}
    assert await contents(deployment) == ([], [])


async def test_a_whole_run_is_undone(deployment: Deployment, session: Pipeline) -> None:
    buried = await bury_many(deployment, [BROKEN] * 150)
    run = await replay(session)
    taken = await take(deployment, 10)
    for message in taken[:4]:
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


async def test_an_undo_that_broke_in_the_middle_is_finished(deployment: Deployment, session: Pipeline) -> None:
    """The letter was put back and the message not taken out yet: one letter, no message, at the end."""
    _, identity = await bury_answered(deployment)
    await replay(session)
    (entry,) = await session.audit.read(message_id=identity)
    headers = {**entry.detail["letter"]["headers"], MSG_ID: f"{identity}.0.dead.undo.{entry.event}"}
    await deployment.jetstream.publish(entry.detail["letter"]["subject"], BROKEN.encode(), headers=headers)
    (undone,) = await session.dead_letters.undo(message_id=identity)
    assert undone.result is UndoResult.UNDONE
    published, dead_letters = await contents(deployment)
    assert (len(published), len(dead_letters)) == (0, 1)


async def test_replaying_a_letter_whose_undo_broke_in_the_middle(deployment: Deployment, session: Pipeline) -> None:
    _, identity = await bury_answered(deployment)
    await replay(session)
    (entry,) = await session.audit.read(message_id=identity)
    headers = {**entry.detail["letter"]["headers"], MSG_ID: f"{identity}.0.dead.undo.{entry.event}"}
    await deployment.jetstream.publish(entry.detail["letter"]["subject"], BROKEN.encode(), headers=headers)
    await replay(session)
    published, dead_letters = await contents(deployment)
    assert (len(published), len(dead_letters)) == (1, 0)


async def test_a_full_stream_of_dead_letters_keeps_the_message(deployment: Deployment, session: Pipeline) -> None:
    sequence, identity = await bury_answered(deployment, "O|" + "x" * 5000)
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


async def test_there_is_nothing_to_undo(session: Pipeline) -> None:
    with pytest.raises(ControlError, match="no replay of"):
        await session.dead_letters.undo(run="01a2094f-e5ef-70ae-9923-e7a71dde9744")
    with pytest.raises(ControlError, match="name what to undo"):
        await session.dead_letters.undo()
