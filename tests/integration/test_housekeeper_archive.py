"""The archive of dead letters on real servers: content, statuses, audit entries, interruptions."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from housekeeper_harness import PAST, set_ages, stored, tasks
from worker_harness import order, publish, until_drained, until_status, worker

from conftest import Deployment
from nomnom.envelope import Reason, ingest_subject, new_message_id, replay_headers
from nomnom.inspection.dead_letters import read_dead_letter
from nomnom.inspection.jetstream.messages import read_batch
from operator_session import BROKEN, ERROR, RECEIVED, bury, open_session

ROW = """
INSERT INTO message_status (message_id, entity_type, status, received_at, processed_at, replays, error_message)
VALUES ($1, 'orders', $2, $3, now(), $4, 'the error')
"""


async def test_dead_letter_past_its_retention_is_archived(deployment: Deployment) -> None:
    failed_at = datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC)
    sequence, message_id = await bury(deployment, failed_at=failed_at, position=7)
    await deployment.database.execute(ROW, message_id, "dlq", RECEIVED, 0)
    (dead,) = await stored(deployment, deployment.streams.dead_stream)
    await set_ages(deployment, dead_letters=PAST)
    async with tasks(deployment) as own:
        assert await own.archive.run() == 1
        assert await own.archive.run() == 0
    assert await stored(deployment, deployment.streams.dead_stream) == []
    row = await deployment.database.fetchrow("SELECT * FROM nomnom_archive")
    assert row is not None
    assert (row["sequence"], str(row["message_id"]), row["entity"], row["reason"], row["error"]) == (
        sequence,
        message_id,
        "orders",
        "record",
        ERROR,
    )
    assert (row["subject"], row["payload"]) == (dead.subject, BROKEN.encode())
    assert (row["failed_at"], row["received_at"]) == (failed_at, RECEIVED)
    assert msgspec.json.decode(row["headers"]) == dead.headers
    status = await deployment.database.fetchrow("SELECT * FROM message_status")
    assert status is not None
    assert (status["status"], status["processed_at"]) == ("expired", row["archived_at"])


@pytest.mark.parametrize(
    ("status", "replays", "expected"),
    [("dlq", 0, "expired"), ("completed", 0, "completed"), ("dlq", 1, "dlq"), ("deleted", 0, "deleted")],
)
async def test_only_the_status_of_this_generation_changes(
    deployment: Deployment, status: str, replays: int, expected: str
) -> None:
    _, message_id = await bury(deployment)
    await deployment.database.execute(ROW, message_id, status, RECEIVED, replays)
    await set_ages(deployment, dead_letters=PAST)
    async with tasks(deployment) as own:
        await own.archive.run()
    assert await deployment.database.fetchval("SELECT status FROM message_status") == expected


@pytest.mark.parametrize("count", [1, 2])
async def test_interruption_after_each_step(deployment: Deployment, count: int) -> None:
    ids = [(await bury(deployment))[1] for _ in range(5)]
    await set_ages(deployment, dead_letters=PAST)
    async with tasks(deployment) as own:
        found = await own.archive.find(1, datetime.now(UTC) + timedelta(minutes=1))
        assert await own.archive.store(found, PAST, new_message_id()) == 5
        if count == 2:
            await own.archive.remove(found[:2])
    async with tasks(deployment, batch=2) as own:
        assert await own.archive.run() == 0
    assert await stored(deployment, deployment.streams.dead_stream) == []
    rows = await deployment.database.fetch("SELECT message_id FROM nomnom_archive")
    assert sorted(str(row["message_id"]) for row in rows) == sorted(ids)
    entries = await deployment.database.fetch("SELECT result, detail FROM nomnom_audit WHERE action = 'expire'")
    assert [row["result"] for row in entries] == ["archived 5 dead letters"]


async def test_two_housekeepers_at_once(deployment: Deployment) -> None:
    ids = [(await bury(deployment))[1] for _ in range(30)]
    await set_ages(deployment, dead_letters=PAST)
    async with tasks(deployment, batch=4) as one, tasks(deployment, batch=7) as other:
        archived = await asyncio.gather(one.archive.run(), other.archive.run())
    assert sum(archived) == 30
    rows = await deployment.database.fetch("SELECT message_id FROM nomnom_archive")
    assert sorted(str(row["message_id"]) for row in rows) == sorted(ids)
    entries = await deployment.database.fetch("SELECT detail FROM nomnom_audit WHERE action = 'expire'")
    assert sum(msgspec.json.decode(row["detail"])["dead_letters"] for row in entries) == 30


async def test_history_of_a_message_names_its_expiry(deployment: Deployment, tmp_path: Path) -> None:
    message_id = await publish(deployment, order(1).replace("2024-01-01", "2024-13-01"))
    async with worker(deployment.settings):
        await until_status(deployment, message_id, "dlq")
        await until_drained(deployment)
    await set_ages(deployment, dead_letters=PAST)
    async with tasks(deployment) as own:
        await own.archive.run()
    row = await until_status(deployment, message_id, "expired")
    assert "o_orderdate" in row["error_message"]
    async with open_session(deployment, tmp_path) as session:
        (operation,) = await session.audit.history(message_id, row["processed_at"])
    assert str(operation) == "expire by housekeeper: archived 1 dead letter"


async def test_dead_letter_without_a_valid_id(deployment: Deployment) -> None:
    headers = {"Nomnom-Reason": Reason.ENVELOPE.value}
    await deployment.jetstream.publish("messages.dlq.odd", b"\x00\xff", headers=headers)
    await set_ages(deployment, dead_letters=PAST)
    async with tasks(deployment) as own:
        assert await own.archive.run() == 1
    row = await deployment.database.fetchrow("SELECT message_id, reason, payload FROM nomnom_archive")
    assert row is not None
    assert tuple(row) == (None, "envelope", b"\x00\xff")
    assert await deployment.database.fetchval("SELECT count(*) FROM message_status") == 0


async def test_replay_of_a_dead_letter_that_was_archived_meanwhile(deployment: Deployment) -> None:
    """The replay is a later generation: its result counts."""
    _, message_id = await bury(deployment, payload=order(1))
    await deployment.database.execute(ROW, message_id, "dlq", RECEIVED, 0)
    async with tasks(deployment) as own:
        found = (await read_batch(own.nats, deployment.streams.dead_stream, 1, 1)).messages
        headers = replay_headers(read_dead_letter(found[0]).envelope, order(1).encode())
        await deployment.jetstream.publish(ingest_subject("orders", message_id), order(1).encode(), headers=headers)
        await own.archive.store(found, PAST, new_message_id())
        await own.archive.remove(found)
    assert await deployment.database.fetchval("SELECT status FROM message_status") == "expired"
    async with worker(deployment.settings):
        await until_status(deployment, message_id, "completed")
