"""Messages that operators remove: their statuses, whatever step a session is killed at."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from test_roles import roles, url_of
from worker_harness import START, dead_letters, order, publish, publish_again, status, until_status, worker

from conftest import ORDER, Deployment, free_port
from nomnom.connections.errors import DatabaseUnavailable
from nomnom.envelope import (
    POSITION,
    Envelope,
    Status,
    copy_id,
    dead_subject,
    idempotent_message_id,
    new_message_id,
    read_envelope,
)
from nomnom.inspection.dead_letters import Filter
from nomnom.message_status import CLAIM, DEAD_LETTER, FAIL
from nomnom.positions import position_of, sequence_of
from nomnom.setup import set_up
from nomnom_control.session.audit import Action
from nomnom_control.session.dead_letters import Edit, Outcome, Result, UndoResult
from nomnom_control.session.jetstream import purging
from nomnom_control.session.pipeline import Pipeline
from operator_session import BROKEN, RECEIVED, bury, open_session, stored

ALL = Filter()


@pytest.fixture
async def session(deployment: Deployment, tmp_path: Path) -> AsyncIterator[Pipeline]:
    async with open_session(deployment, tmp_path) as pipeline:
        yield pipeline


async def make_dead_letters(deployment: Deployment, count: int = 1) -> list[str]:
    """Messages that a worker has moved to the dead letters; returns their IDs."""
    ids = [await publish(deployment, BROKEN) for _ in range(count)]
    async with worker(deployment.settings, max_deliver=2):
        for each in ids:
            await until_status(deployment, each, "dlq")
    return ids


async def statuses(deployment: Deployment) -> dict[str, str]:
    """The status of every message by its ID."""
    rows = await deployment.database.fetch("SELECT message_id, status FROM message_status")
    return {str(row["message_id"]): row["status"] for row in rows}


async def copies(deployment: Deployment) -> list[tuple[int, str, str]]:
    """The recorded copies: stream sequence, message ID, kind."""
    rows = await deployment.database.fetch("SELECT position, message_id, kind FROM nomnom_sequences ORDER BY 1")
    return [(sequence_of(row["position"]), str(row["message_id"]), row["kind"]) for row in rows]


async def unexplained(deployment: Deployment) -> set[int]:
    """Sequences of MESSAGES that are neither in the stream, nor in a status, nor a recorded copy."""
    rows = await deployment.database.fetch(
        "SELECT stream_position FROM message_status UNION SELECT position FROM nomnom_sequences"
    )
    explained = {sequence_of(row[0]) for row in rows}
    present = {int(each.seq or 0) for each in await stored(deployment, "MESSAGES")}
    last = (await deployment.jetstream.stream_info("MESSAGES")).state.last_seq
    return set(range(1, last + 1)) - explained - present


_SESSION = """
import asyncio, os, signal, sys, msgspec
from pathlib import Path
from nomnom.schema import load_schema
from nomnom.inspection.dead_letters import Filter
from nomnom_control.environments import Endpoints
from nomnom_control.session.audit import Ledger
from nomnom_control.session.dead_letters import deletion, undo
from nomnom_control.session.jetstream import purging
from nomnom_control.session.pipeline import Pipeline

given = msgspec.json.decode(sys.stdin.buffer.readline())

def killed(owner, name, *, after=False):
    step = getattr(owner, name)
    async def die(*arguments, **options):
        if after:
            await step(*arguments, **options)
        os.kill(os.getpid(), signal.SIGKILL)
    setattr(owner, name, die)

async def main():
    endpoints = Endpoints("http://127.0.0.1:9", given["nats"], "", given["database"])
    async with Pipeline(endpoints, load_schema("tpch"), spool=Path(given["spool"]), actor="killed@here") as pipeline:
        exec(given["crash"])
        await eval(given["act"])

asyncio.run(main())
"""


async def run_killed(deployment: Deployment, spool: Path, crash: str, act: str) -> None:
    """Run a session that is killed at a step."""
    given = {
        "nats": deployment.settings.nats_url,
        "database": deployment.settings.database_url,
        "spool": str(spool),
        "crash": crash,
        "act": act,
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _SESSION, stdin=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    _, errors = await asyncio.wait_for(process.communicate(msgspec.json.encode(given) + b"\n"), 30)
    assert process.returncode == -signal.SIGKILL, errors.decode()


async def test_deleted_message_says_when_and_by_whom(deployment: Deployment, session: Pipeline) -> None:
    first, second = await make_dead_letters(deployment, 2)
    (chosen,) = await session.dead_letters.find(first)
    assert chosen.position == position_of(1, 1)
    await session.dead_letters.delete([chosen.sequence], expected_count=1)
    assert await statuses(deployment) == {first: "deleted", second: "dlq"}
    row = await session.statuses.find(first)
    assert row is not None
    (entry,) = await session.audit.read(action=Action.DELETE)
    assert row.processed_at == entry.at
    assert "o_orderdate" in (row.error or ""), "why it was a dead letter is kept"
    (operation,) = await session.audit.history(first, row.processed_at)
    assert (str(operation), operation.at) == ("delete by tester@here: deleted", entry.at)
    assert await session.audit.history(second, None) == []
    assert await unexplained(deployment) == set()


async def test_deletion_leaves_completed_and_replayed_messages_alone(deployment: Deployment, session: Pipeline) -> None:
    """An uncertain undo leaves a dead letter of an earlier life: deleting it does not change what happened later."""
    (identity,) = await make_dead_letters(deployment)
    await (await session.dead_letters.replay(ALL, Edit(payload=ORDER.encode()))).finish()
    async with worker(deployment.settings):
        await until_status(deployment, identity, "completed")
    (replayed,) = await session.audit.read(action=Action.REPLAY)
    dead_letter = replayed.detail["letter"]
    await deployment.jetstream.publish(dead_letter["subject"], BROKEN.encode(), headers=dead_letter["headers"])
    await session.dead_letters.delete(ALL, expected_count=1)
    assert await statuses(deployment) == {identity: "completed"}


@pytest.mark.parametrize(
    ("crash", "deleted"),
    [
        ("killed(deletion, 'delete_message')", False),
        ("killed(deletion, 'delete_message', after=True)", True),
        ("killed(Ledger, 'write')", True),
        ("killed(Ledger, 'write', after=True)", True),
    ],
    ids=["spooled", "deleted", "before the status", "after the status"],
)
async def test_killed_deletion(deployment: Deployment, tmp_path: Path, crash: str, *, deleted: bool) -> None:
    (identity,) = await make_dead_letters(deployment)
    await run_killed(deployment, tmp_path, crash, "pipeline.dead_letters.delete(Filter(), expected_count=1)")
    assert (await stored(deployment, "MESSAGESDLQ") == []) is deleted
    async with open_session(deployment, tmp_path) as session:
        (entry,) = await session.audit.read(action=Action.DELETE)
        assert (entry.result, entry.actor) == ("deleted" if deleted else "not deleted", "killed@here")
        assert await statuses(deployment) == {identity: "deleted" if deleted else "dlq"}
        if not deleted:
            await session.dead_letters.delete(ALL, expected_count=1)
            assert await statuses(deployment) == {identity: "deleted"}
    assert not list(tmp_path.rglob("*.jsonl"))


async def test_spool_waits_for_nats(deployment: Deployment, tmp_path: Path) -> None:
    """Without NATS nobody knows whether the dead letter was deleted; the audit log can be read nevertheless."""
    (identity,) = await make_dead_letters(deployment)
    act = "pipeline.dead_letters.delete(Filter(), expected_count=1)"
    await run_killed(deployment, tmp_path, "killed(Ledger, 'write')", act)
    async with open_session(deployment, tmp_path, nats=f"nats://127.0.0.1:{free_port()}") as session:
        assert await session.audit.read() == []
    assert await statuses(deployment) == {identity: "dlq"}
    async with open_session(deployment, tmp_path) as session:
        assert [each.result for each in await session.audit.read()] == ["deleted"]
    assert await statuses(deployment) == {identity: "deleted"}


async def test_purged_messages_have_a_status(deployment: Deployment, session: Pipeline) -> None:
    dead, replayed = await make_dead_letters(deployment, 2)
    (chosen,) = await session.dead_letters.find(replayed)
    await (await session.dead_letters.replay([chosen.sequence])).finish()
    pending = [await publish(deployment, order(key)) for key in range(3)]
    await deployment.jetstream.publish("messages.ingest.strange", b"not ours")
    last = (await deployment.jetstream.stream_info("MESSAGES")).state.last_seq
    later = await publish(deployment, order(9))
    progress: list[tuple[int, int]] = []

    def note(done: int, total: int) -> None:
        progress.append((done, total))

    purged = await session.jetstream.purge("MESSAGES", confirm="MESSAGES", last=last, progress=note)
    assert purged == 5
    assert progress == [(5, 6)]
    assert [str(each.subject).rpartition(".")[2] for each in await stored(deployment, "MESSAGES")] == [later]
    foreign = copy_id(position_of(1, last))
    expected = dict.fromkeys([*pending, replayed, foreign], "purged")
    assert await statuses(deployment) == {**expected, dead: "dlq"}
    assert [each[1:] for each in await copies(deployment)] == [(replayed, "purged")]
    assert await unexplained(deployment) == set()
    (entry,) = await session.audit.read(action=Action.PURGE)
    assert (entry.result, entry.detail["last_sequence"]) == ("purged 5 messages", last)
    row = await session.statuses.find(pending[0])
    assert row is not None
    assert (row.status, row.processed_at) == (Status.PURGED, entry.at)
    (operation,) = await session.audit.history(pending[0], row.processed_at)
    assert str(operation) == "purge by tester@here: purged 5 messages"
    counts = {each.status: each.messages for each in await session.statuses.counts()}
    assert (counts[Status.PURGED], counts[Status.COMPLETED], counts[Status.DLQ]) == (5, 0, 1)
    assert len(await session.statuses.recent(Status.PURGED)) == 5


async def test_purged_key_keeps_its_content(deployment: Deployment, session: Pipeline) -> None:
    keyed = idempotent_message_id("caller", "key")
    await publish(deployment, order(1, "first"), keyed)
    await session.jetstream.purge("MESSAGES", confirm="MESSAGES")
    assert await statuses(deployment) == {keyed: "purged"}
    async with worker(deployment.settings):
        await publish_again(deployment, order(2, "second"), keyed, START + 5)
        conflict = copy_id(position_of(1, 2))
        await until_status(deployment, conflict, "dlq")
        await publish_again(deployment, order(1, "first"), keyed, START + 9)
        await until_status(deployment, keyed, "completed")
    assert await statuses(deployment) == {keyed: "completed", conflict: "dlq"}


async def test_repeats_and_conflicts_are_purged_as_what_they_are(deployment: Deployment, session: Pipeline) -> None:
    keyed = idempotent_message_id("caller", "key")
    async with worker(deployment.settings):
        await publish(deployment, order(1, "first"), keyed)
        await until_status(deployment, keyed, "completed")
    await publish_again(deployment, order(1, "first"), keyed, START + 5)
    await publish_again(deployment, order(2, "second"), keyed, START + 9)
    await session.jetstream.purge("MESSAGES", confirm="MESSAGES")
    assert await statuses(deployment) == {keyed: "completed", copy_id(position_of(1, 3)): "purged"}
    assert await copies(deployment) == [(2, keyed, "purged")]


async def test_purged_message_that_a_worker_holds(deployment: Deployment, session: Pipeline) -> None:
    """It is completed, or remains purged after a failed attempt, as there is no other one."""
    completed, failed, final = [await publish(deployment, each) for each in (order(1), BROKEN, BROKEN)]
    subscription = await deployment.jetstream.pull_subscribe_bind("workers", stream="MESSAGES")
    held = await subscription.fetch(3, timeout=5)
    await session.jetstream.purge("MESSAGES", confirm="MESSAGES")
    assert set((await statuses(deployment)).values()) == {"purged"}
    envelopes = [
        read_envelope(each.subject, each.headers, position=position_of(1, at)) for at, each in enumerate(held, start=1)
    ]

    async def execute(statement: str, *values: Any) -> None:
        await deployment.database.execute(statement, *values)

    def given(envelope: Envelope) -> list[list[Any]]:
        return [
            [envelope.message_id],
            [envelope.entity],
            [envelope.received_at],
            [envelope.replays],
            [envelope.position],
        ]

    await execute(CLAIM, *given(envelopes[0]))
    for each in envelopes[1:]:
        await execute(FAIL, *given(each), ["no luck"], 3)
    time = envelopes[2].received_at
    await execute(DEAD_LETTER, [final], [time], [0], ["no luck"], time, time)
    assert await statuses(deployment) == {completed: "completed", failed: "purged", final: "dlq"}


async def test_purged_attempts_do_not_remain_failed(deployment: Deployment, session: Pipeline) -> None:
    await deployment.database.execute("ALTER TABLE orders ADD CONSTRAINT small CHECK (o_orderkey < 10)")
    failed = await publish(deployment, order(11))
    async with worker(deployment.settings, max_deliver=5, retry_backoff=30, retry_backoff_max=60):
        await until_status(deployment, failed, "failed")
    await session.jetstream.purge("MESSAGES", confirm="MESSAGES")
    row = await status(deployment, failed)
    assert row is not None
    assert (row["status"], row["retry_count"]) == ("purged", 1)


async def test_purged_dead_letters_have_a_status(deployment: Deployment, session: Pipeline) -> None:
    first, second = await make_dead_letters(deployment, 2)
    unknown = new_message_id()
    await bury(deployment, message_id=unknown)
    await deployment.jetstream.publish(dead_subject("strange", "x"), b"not ours")
    last = (await deployment.jetstream.stream_info("MESSAGESDLQ")).state.last_seq
    _, later = await bury(deployment)
    assert await session.jetstream.purge("MESSAGESDLQ", confirm="MESSAGESDLQ", last=last) == 4
    assert await statuses(deployment) == {first: "purged", second: "purged", unknown: "purged"}
    assert [each.message_id for each in (await session.dead_letters.page()).dead_letters] == [later]


@pytest.mark.parametrize("stream", ["MESSAGES", "MESSAGESDLQ"])
@pytest.mark.parametrize(
    ("crash", "purged"),
    [
        ("killed(purging.Purge, '_set_statuses')", False),
        ("killed(purging, 'purge')", False),
        ("killed(purging, 'purge', after=True)", True),
        ("killed(Ledger, 'write')", True),
    ],
    ids=["spooled", "statuses set", "purged", "before the entry"],
)
async def test_killed_purge(deployment: Deployment, tmp_path: Path, stream: str, crash: str, *, purged: bool) -> None:
    dead = await make_dead_letters(deployment)
    pending = [await publish(deployment, order(1))]
    await run_killed(deployment, tmp_path, crash, f"pipeline.jetstream.purge('{stream}', confirm='{stream}')")
    assert (await stored(deployment, stream) == []) is purged
    gone, other = (pending, dead) if stream == "MESSAGES" else (dead, pending)
    async with open_session(deployment, tmp_path) as session:
        (entry,) = await session.audit.read(action=Action.PURGE)
        assert (entry.result, entry.actor) == ("purged" if purged else "not purged: interrupted", "killed@here")
        found = await statuses(deployment)
        if purged:
            assert found[gone[0]] == "purged"
            assert await unexplained(deployment) == set()
        else:
            assert found.get(gone[0]) in ({"dlq"} if stream == "MESSAGESDLQ" else {None, "failed"})
            assert await session.jetstream.purge(stream, confirm=stream) == 1
            assert (await statuses(deployment))[gone[0]] == "purged"
        assert found.get(other[0]) in ({"dlq"} if other is dead else {None})
    assert not list(tmp_path.rglob("*.jsonl"))


async def test_message_of_an_interrupted_purge_is_processed(deployment: Deployment, tmp_path: Path) -> None:
    identity = await publish(deployment, order(1))
    await run_killed(
        deployment, tmp_path, "killed(purging, 'purge')", "pipeline.jetstream.purge('MESSAGES', confirm='MESSAGES')"
    )
    assert await statuses(deployment) == {identity: "purged"}
    async with worker(deployment.settings):
        await until_status(deployment, identity, "completed")
    async with open_session(deployment, tmp_path) as session:
        await session.audit.read()
    assert await statuses(deployment) == {identity: "completed"}


async def test_purge_requires_postgresql(deployment: Deployment, tmp_path: Path) -> None:
    await publish(deployment, order(1))
    nowhere = f"postgresql://someone:secret@127.0.0.1:{free_port()}/nomnom"
    async with open_session(deployment, tmp_path, database=nowhere) as session:
        with pytest.raises(DatabaseUnavailable, match="stream MESSAGES is not purged, because the statuses"):
            await session.jetstream.purge("MESSAGES", confirm="MESSAGES")
    assert len(await stored(deployment, "MESSAGES")) == 1


async def test_purge_that_loses_postgresql_takes_its_statuses_back(
    deployment: Deployment, session: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    (identity,) = await make_dead_letters(deployment)

    async def lose(*_: object) -> int:
        raise DatabaseUnavailable("PostgreSQL is unavailable")

    with monkeypatch.context() as patch:
        patch.setattr(purging, "purge", lose)
        with pytest.raises(DatabaseUnavailable, match="is not purged"):
            await session.jetstream.purge("MESSAGESDLQ", confirm="MESSAGESDLQ")
    assert await statuses(deployment) == {identity: "purged"}
    assert [each.result for each in await session.audit.read()] == ["not purged: interrupted"]
    assert await statuses(deployment) == {identity: "dlq"}


async def test_undone_replay_is_recorded(deployment: Deployment, session: Pipeline) -> None:
    (identity,) = await make_dead_letters(deployment)
    await (await session.dead_letters.replay(ALL)).finish()
    (undone,) = await session.dead_letters.undo(message_id=identity)
    assert undone.result is UndoResult.UNDONE
    assert await statuses(deployment) == {identity: "dlq"}
    assert [each[1:] for each in await copies(deployment)] == [(identity, "undone")]
    assert await unexplained(deployment) == set()
    (dead_letter,) = await stored(deployment, "MESSAGESDLQ")
    assert (dead_letter.headers or {})[POSITION] == str(position_of(1, 1))


@pytest.mark.parametrize(
    ("crash", "restored"),
    [
        ("killed(undo, 'delete_message')", False),
        ("killed(undo, 'delete_message', after=True)", True),
        ("killed(Ledger, 'write')", True),
    ],
    ids=["restored", "removed", "before the entry"],
)
async def test_killed_undo(deployment: Deployment, tmp_path: Path, crash: str, *, restored: bool) -> None:
    (identity,) = await make_dead_letters(deployment)
    async with open_session(deployment, tmp_path) as session:
        await (await session.dead_letters.replay(ALL)).finish()
    act = f"pipeline.dead_letters.undo(message_id='{identity}')"
    await run_killed(deployment, tmp_path, crash, act)
    async with open_session(deployment, tmp_path) as session:
        await session.audit.read()
        recorded = [(identity, "undone")] if restored else []
        assert [each[1:] for each in await copies(deployment)] == recorded
        assert await unexplained(deployment) == set()
        (undone,) = await session.dead_letters.undo(message_id=identity)
        assert undone.result is UndoResult.UNDONE
    assert [each[1:] for each in await copies(deployment)] == [(identity, "undone")]
    assert await statuses(deployment) == {identity: "dlq"}
    assert len(await stored(deployment, "MESSAGESDLQ")) == 1


@pytest.mark.parametrize("ended", ["deleted", "purged", "expired"])
async def test_replay_of_a_restored_dead_letter(deployment: Deployment, session: Pipeline, ended: str) -> None:
    """A dead letter that was published again from a copy, after its message had ended, also a life after it."""
    (identity,) = await make_dead_letters(deployment)
    (message,) = await dead_letters(deployment)
    await deployment.database.execute("UPDATE message_status SET status = $1, replays = 1", ended)
    await deployment.jetstream.publish(message.subject, ORDER.encode(), headers={**message.headers, "Nats-Msg-Id": "x"})
    await deployment.jetstream.delete_msg("MESSAGESDLQ", int(message.seq))
    (prediction,) = [each async for part in session.dead_letters.dry_run(ALL) for each in part]
    assert prediction.outcome is Outcome.COMPLETES
    progress = await (await session.dead_letters.replay(ALL)).finish()
    assert progress.counts == {Result.REPLAYED: 1}
    async with worker(deployment.settings):
        await until_status(deployment, identity, "completed")
    assert await deployment.database.fetchval("SELECT count(*) FROM orders") == 1


async def test_prediction_compares_positions(deployment: Deployment, session: Pipeline) -> None:
    """The order of messages is that of the stream, whatever the API's clock said."""
    envelope = Envelope(new_message_id(), "orders", RECEIVED, position=position_of(1, 5))
    await bury(deployment, ORDER, message_id=envelope.message_id, position=envelope.position)
    insert = "INSERT INTO orders SELECT 123, 1, 'F', 1, now(), 'a', 'b', 1, 'c', $1, gen_random_uuid(), $2"
    for at, expected in ((4, Outcome.COMPLETES), (6, Outcome.SUPERSEDED)):
        await deployment.database.execute("DELETE FROM orders")
        await deployment.database.execute(insert, RECEIVED.replace(year=2027), position_of(1, at))
        for deep in (False, True):
            found = [each async for part in session.dead_letters.dry_run(ALL, deep=deep) for each in part]
            assert [each.outcome for each in found] == [expected]


async def test_operator_role_may_remove(deployment: Deployment, tmp_path: Path) -> None:
    """The privileges of the operator's role suffice for what is recorded."""
    operator = next(each for each in roles(deployment) if each.component == "operator")
    await set_up(deployment.settings, wait=5, roles=[operator])
    (identity,) = await make_dead_letters(deployment)
    keyed = idempotent_message_id("caller", "key")
    await publish(deployment, order(1), keyed)
    url = url_of(deployment, operator.name, "s3cret-%C3%84")
    async with open_session(deployment, tmp_path, database=url) as session:
        await session.dead_letters.delete(ALL, expected_count=1)
        await session.jetstream.purge("MESSAGES", confirm="MESSAGES")
    assert await statuses(deployment) == {identity: "deleted", keyed: "purged"}
