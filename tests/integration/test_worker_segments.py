"""Segments: many messages stored as one, each with its own status, attempts and dead letter."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from worker_harness import (
    KILLER,
    START,
    Running,
    dead_letters,
    order,
    publish,
    set_ack_wait,
    status,
    until,
    until_drained,
    worker,
    worker_process,
)

from conftest import Deployment
from nomnom.account import Verifier, read_account
from nomnom.connections.nats import NatsConnection
from nomnom.connections.postgres import Database
from nomnom.envelope import headers, idempotent_message_id, ingest_subject, segment_subject
from nomnom.inspection.jetstream import JetStream
from nomnom.segments import join, keyed_segment_id, message_ids, new_segment_id
from operator_session import open_session

BROKEN = order(1).replace("2024-01-01", "2024-13-01")


async def publish_segment(
    deployment: Deployment, payloads: list[str], segment_id: str | None = None, deduplication_id: str | None = None
) -> list[str]:
    """Publish a segment; returns the IDs of its messages."""
    segment_id = segment_id or new_segment_id()
    content = join(each.encode() for each in payloads)
    subject = segment_subject("mixed", segment_id, len(payloads))
    await deployment.jetstream.publish(subject, content, headers=headers(START, deduplication_id))
    return message_ids(segment_id, len(payloads))


async def orders(deployment: Deployment) -> dict[int, str]:
    """The comments of the orders, by key."""
    rows = await deployment.database.fetch("SELECT o_orderkey, o_comment FROM orders")
    return {row["o_orderkey"]: row["o_comment"] for row in rows}


async def statuses(deployment: Deployment) -> Counter[str]:
    """How many messages have each status."""
    rows = await deployment.database.fetch("SELECT status, count(*) FROM message_status GROUP BY status")
    return Counter({row["status"]: row["count"] for row in rows})


async def test_messages_of_a_segment_are_written_and_completed(deployment: Deployment) -> None:
    lines = [order(key, f"c{key}") for key in range(1000)]
    ids = await publish_segment(deployment, lines)
    async with worker(deployment.settings, batch_size=100):
        await until_drained(deployment)
    assert await orders(deployment) == {key: f"c{key}" for key in range(1000)}
    rows = await deployment.database.fetch("SELECT message_id, entity_type, status FROM message_status ORDER BY 1")
    assert [(str(row["message_id"]), row["entity_type"], row["status"]) for row in rows] == [
        (each, "orders", "completed") for each in ids
    ]


async def test_last_of_a_segment_wins_also_across_transactions(deployment: Deployment) -> None:
    """A rejected message makes the worker write the segment in parts."""
    await deployment.database.execute("ALTER TABLE orders ADD CHECK (o_custkey <> 999)")
    lines = [order(key % 5, f"c{key}") for key in range(200)]
    lines[120] = order(7).replace("|456|", "|999|")
    await publish_segment(deployment, lines)
    async with worker(deployment.settings, max_deliver=1):
        await until_drained(deployment)
    assert await orders(deployment) == {key: f"c{195 + key}" for key in range(5)}
    assert await statuses(deployment) == {"completed": 199, "dlq": 1}


async def test_later_segment_wins_over_an_earlier_message_and_the_reverse(deployment: Deployment) -> None:
    await publish(deployment, order(1, "single"))
    await publish_segment(deployment, [order(1, "segment"), order(2, "segment")])
    await publish(deployment, order(2, "single"))
    async with worker(deployment.settings):
        await until_drained(deployment)
    assert await orders(deployment) == {1: "segment", 2: "single"}


async def test_failed_messages_leave_their_segment_as_dead_letters(deployment: Deployment) -> None:
    lines = [BROKEN if key % 10 == 3 else order(key) for key in range(50)]
    ids = await publish_segment(deployment, lines)
    async with worker(deployment.settings, max_deliver=3, retry_backoff=0.1, retry_backoff_max=0.1):
        await until_drained(deployment)
    letters = await dead_letters(deployment)
    assert [each.subject for each in letters] == [f"messages.dlq.orders.{each}" for each in ids[3::10]]
    assert {(each.data.decode(), each.headers["Nomnom-Attempts"]) for each in letters} == {(BROKEN, "3")}
    assert await statuses(deployment) == {"completed": 45, "dlq": 5}
    for each in ids[3::10]:
        row = await status(deployment, each)
        assert row is not None
        assert row["retry_count"] == 3


async def test_segment_whose_content_does_not_fit_is_a_dead_letter(deployment: Deployment) -> None:
    subject = segment_subject("orders", new_segment_id(), 3)
    await deployment.jetstream.publish(subject, b"O|1\x1eO|2", headers=headers(START))
    async with worker(deployment.settings):
        await until_drained(deployment)
    (letter,) = await dead_letters(deployment)
    assert letter.headers["Nomnom-Reason"] == "envelope"
    assert "has 2 messages; expected 3" in letter.headers["Nomnom-Error"]
    assert letter.data == b"O|1\x1eO|2"


@pytest.mark.parametrize("window", ["redelivered", "published again"])
async def test_segment_that_comes_twice_is_applied_once(deployment: Deployment, window: str) -> None:
    segment_id = keyed_segment_id(idempotent_message_id("a", "k"))
    lines = [BROKEN if key % 10 == 3 else order(key) for key in range(40)]
    await set_ack_wait(deployment, 1.0)
    ids = await publish_segment(deployment, lines, segment_id, "first")
    if window == "published again":
        await publish_segment(deployment, lines, segment_id, "second")
    async with worker(deployment.settings, max_deliver=1):
        await until_drained(deployment)
    if window == "redelivered":
        await publish_segment(deployment, lines, segment_id, "third")
        async with worker(deployment.settings, max_deliver=1):
            await until_drained(deployment)
    assert await statuses(deployment) == {"completed": 36, "dlq": 4}
    assert len(await dead_letters(deployment)) == 4
    assert [
        str(row[0]) for row in await deployment.database.fetch("SELECT message_id FROM message_status ORDER BY 1")
    ] == ids


async def test_other_content_under_the_key_of_a_segment_is_a_conflict(deployment: Deployment) -> None:
    segment_id = keyed_segment_id(idempotent_message_id("a", "k"))
    await publish_segment(deployment, [order(1, "first"), order(2, "first")], segment_id, "first")
    await publish_segment(deployment, [order(1, "second"), order(2, "second"), order(3)], segment_id, "second")
    async with worker(deployment.settings):
        await until_drained(deployment)
    assert await orders(deployment) == {1: "first", 2: "first"}
    letters = await dead_letters(deployment)
    assert [each.data.decode() for each in letters] == [order(1, "second"), order(2, "second"), order(3)]
    assert {each.headers["Nomnom-Reason"] for each in letters} == {"key conflict"}
    assert await statuses(deployment) == {"completed": 2, "dlq": 3}
    account = await explained(deployment)
    assert (account.accepted, account.completed, account.dead_letters) == (5, 2, 3)


async def test_workers_killed_in_a_segment_lose_and_double_nothing(deployment: Deployment, tmp_path: Path) -> None:
    chance, total = random.Random(5), 0
    await set_ack_wait(deployment, 1.0)
    for attempt in range(3):
        async with worker_process(deployment.settings, tmp_path / f"worker{attempt}.log", batch_size=50) as killed:
            for _ in range(6):
                lines = [BROKEN if key % 50 == 7 else order(key) for key in range(total, total + 200)]
                await publish_segment(deployment, lines)
                total += 200
            await asyncio.sleep(0.3 + chance.random() * 0.4)
            assert killed.process is not None
            killed.process.send(9)
    async with worker(deployment.settings, max_deliver=5, retry_backoff=0.1, retry_backoff_max=0.2):
        await until_drained(deployment, 60)
    dead = total // 50
    assert await statuses(deployment) == {"completed": total - dead, "dlq": dead}
    assert len(await orders(deployment)) == total - dead
    assert len({each.subject for each in await dead_letters(deployment)}) == dead
    account = await explained(deployment)
    assert (account.accepted, account.completed, account.dead_letters) == (total, total - dead, dead)


async def explained(deployment: Deployment, *, losses: bool = False):
    """The account, verified until nothing is suspicious."""
    nats = NatsConnection(deployment.settings.nats_url, "test")
    database = Database(deployment.settings.database_url, application="test")
    jetstream = JetStream(nats)
    verifier = Verifier(database, jetstream, deployment.streams, confirmation=0.2, rotation=0)

    async def verified() -> bool:
        result = await verifier.verify_all()
        return not result.suspicious and bool(result.unexplained) == losses

    await until(verified, 20, "verified")
    account = await read_account(database, jetstream, deployment.streams)
    await nats.close()
    await database.close()
    assert account.explained != losses
    return account


async def test_pending_messages_of_segments_are_in_the_account(deployment: Deployment) -> None:
    await publish(deployment, order(0))
    await publish_segment(deployment, [order(key) for key in range(300)])
    await publish_segment(deployment, [order(key) for key in range(50)])
    account = await explained(deployment)
    assert (account.accepted, account.pending) == (351, 351)
    async with worker(deployment.settings):
        await until_drained(deployment)
    account = await explained(deployment)
    assert (account.accepted, account.completed, account.pending) == (351, 351, 0)


async def test_missing_rows_of_a_segment_are_named(deployment: Deployment) -> None:
    await explained(deployment)
    async with worker(deployment.settings):
        ids = await publish_segment(deployment, [order(key) for key in range(100)])
        await publish_segment(deployment, [order(key) for key in range(100)])
        await until_drained(deployment)
    assert (await explained(deployment)).completed == 200
    kept = await deployment.database.fetch(
        "DELETE FROM message_status WHERE message_id = ANY ($1) RETURNING *", ids[3:7]
    )
    account = await explained(deployment, losses=True)
    assert [(each.kind, each.first_sequence, each.messages) for each in account.losses] == [("rows", 1, 4)]
    assert (account.accepted, account.completed, account.unexplained) == (200, 196, 4)
    names = ", ".join(kept[0].keys())
    values = ", ".join(f"${at}" for at in range(1, len(kept[0]) + 1))
    for row in kept:
        await deployment.database.execute(f"INSERT INTO message_status ({names}) VALUES ({values})", *row.values())
    assert (await explained(deployment)).completed == 200


async def test_removed_segment_is_named(deployment: Deployment) -> None:
    await explained(deployment)
    await publish_segment(deployment, [order(key) for key in range(100)])
    await publish_segment(deployment, [order(key) for key in range(100)])
    await deployment.jetstream.delete_msg(deployment.streams.stream, 1)
    account = await explained(deployment, losses=True)
    assert [(each.kind, each.first_sequence) for each in account.losses] == [("sequence", 1)]
    assert account.pending == 100


async def test_account_of_a_period_within_pending_segments(deployment: Deployment) -> None:
    await publish_segment(deployment, [order(key) for key in range(30)])
    await asyncio.sleep(0.05)
    moment = datetime.now(UTC)
    await asyncio.sleep(0.05)
    await publish_segment(deployment, [order(key) for key in range(20)])
    nats = NatsConnection(deployment.settings.nats_url, "test")
    database = Database(deployment.settings.database_url, application="test")
    jetstream = JetStream(nats)
    await Verifier(database, jetstream, deployment.streams).verify_all()
    since = await read_account(database, jetstream, deployment.streams, since=moment)
    until_then = await read_account(database, jetstream, deployment.streams, until=moment)
    assert (since.pending, until_then.pending) == (20, 30)
    later = await read_account(database, jetstream, deployment.streams, since=moment + timedelta(hours=1))
    assert later.pending == 0
    await nats.close()
    await database.close()


@pytest.mark.slow
async def test_poison_message_is_found_in_its_segment(deployment: Deployment, tmp_path: Path) -> None:
    """In the end the messages of the segment are tried one by one: only the one that ends the worker is dead."""
    await set_ack_wait(deployment, 1.0)
    ids = await publish_segment(deployment, [order(key, "deadly" if key == 13 else "c") for key in range(20)])

    async def drained() -> bool:
        return (await deployment.jetstream.stream_info("MESSAGES")).state.messages == 0

    starts = 0
    while not await drained():
        starts += 1
        assert starts < 12
        async with worker_process(deployment.settings, tmp_path / "log", KILLER) as running:
            assert running.process is not None

            async def ended(running: Running = running) -> bool:
                assert running.process is not None
                return running.process.exit_code is not None or await drained()

            await until(ended, 30)
    assert await statuses(deployment) == {"completed": 19, "dlq": 1}
    row = await status(deployment, ids[13])
    assert row is not None
    assert row["status"] == "dlq"


async def test_pending_message_of_a_segment_is_read_as_if_it_were_stored_alone(
    deployment: Deployment, tmp_path: Path
) -> None:
    ids = await publish_segment(deployment, [order(key, f"comment {key}") for key in range(3)])
    async with open_session(deployment, tmp_path) as session:
        found = await session.jetstream.pending(deployment.streams.stream, ids[1], session.schema.entity_name)
    assert found is not None
    assert (found.subject, found.payload) == (ingest_subject("orders", ids[1]), order(1, "comment 1").encode())


async def test_purged_messages_of_a_segment_with_a_key_have_a_status(deployment: Deployment, tmp_path: Path) -> None:
    """Each of the first copy; a second content under the key has messages of its own; a repeat has none."""
    key = keyed_segment_id(idempotent_message_id("caller", "batch"))
    first, second = [order(key) for key in range(3)], [order(key) for key in range(10, 13)]
    ids = await publish_segment(deployment, first, key, "one")
    for number, payloads in enumerate((second, first)):
        await publish_segment(deployment, payloads, key, f"other {number}")
    async with open_session(deployment, tmp_path) as session:
        await session.jetstream.purge("MESSAGES", confirm="MESSAGES")
    assert await statuses(deployment) == {"purged": 6}
    for each in ids:
        row = await status(deployment, each)
        assert row is not None
        assert row["status"] == "purged"
