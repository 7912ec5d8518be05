"""Expiry of messages on real servers: at every step it may be interrupted, or a worker may process the message."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest
from housekeeper_harness import PAST, Tasks, candidates, set_ages, stored, tasks
from worker_harness import (
    START,
    order,
    publish,
    publish_again,
    publish_orders,
    status,
    until_drained,
    until_status,
    worker,
)

from conftest import Deployment
from nomnom.connections.errors import DatabaseUnavailable, NatsUnavailable
from nomnom.connections.nats import NatsConnection
from nomnom.connections.postgres import Database
from nomnom.envelope import (
    ATTEMPTS,
    ERROR,
    REASON,
    Envelope,
    from_microseconds,
    idempotent_message_id,
    ingest_subject,
    replay_headers,
)
from nomnom.positions import position_of, sequence_of
from nomnom.schema import load_schema
from nomnom.streams import dead_stream
from nomnom_housekeeper.expiry import MessageExpiry

STEPS = ("begin", "publish", "mark", "remove")
KEYED = idempotent_message_id("caller", "key")


async def take_steps(own: Tasks, deployment: Deployment, count: int) -> None:
    """The first steps of an expiry, as if it were interrupted after them."""
    found = await candidates(own, deployment)
    for step in STEPS[:count]:
        if step == "begin":
            await own.expiry.begin(found, PAST)
        else:
            await getattr(own.expiry, step)(found)


async def check_expired(deployment: Deployment, ids: list[str]) -> None:
    """Check that each message is one dead letter, nothing else, and that nothing is left to do."""
    assert await stored(deployment, deployment.streams.stream) == []
    dead = await stored(deployment, deployment.streams.dead_stream)
    assert sorted((each.subject or "").split(".")[-1] for each in dead) == sorted(ids)
    assert {(each.headers or {})[REASON] for each in dead} == {"expired"}
    rows = await deployment.database.fetch("SELECT message_id, status, error_message FROM message_status")
    assert {str(row["message_id"]): row["status"] for row in rows} == dict.fromkeys(ids, "dlq")
    assert {row["error_message"] for row in rows} == {f"no worker processed it within {PAST} s (NATS_MAX_AGE)"}
    assert await deployment.database.fetchval("SELECT count(*) FROM nomnom_expiring") == 0


async def test_message_that_no_worker_processed_becomes_a_dead_letter(deployment: Deployment) -> None:
    ids = await publish_orders(deployment, range(5))
    await set_ages(deployment, messages=PAST)
    async with tasks(deployment, batch=2) as own:
        assert await own.expiry.run() == 5
        assert await own.expiry.run() == 0
    await check_expired(deployment, list(ids.values()))
    positions = await deployment.database.fetch("SELECT stream_position FROM message_status ORDER BY 1")
    assert [row[0] for row in positions] == [position_of(1, each) for each in range(1, 6)]


async def test_message_below_the_maximum_age_stays(deployment: Deployment) -> None:
    await publish_orders(deployment, range(3))
    async with tasks(deployment) as own:
        assert await own.expiry.run() == 0
        await set_ages(deployment, messages=3600)
        assert await own.expiry.run() == 0
    assert len(await stored(deployment, deployment.streams.stream)) == 3
    assert await stored(deployment, deployment.streams.dead_stream) == []


@pytest.mark.parametrize("count", range(5))
async def test_interruption_after_each_step(deployment: Deployment, count: int) -> None:
    ids = await publish_orders(deployment, range(3))
    await set_ages(deployment, messages=PAST)
    async with tasks(deployment) as interrupted:
        await take_steps(interrupted, deployment, count)
    async with tasks(deployment) as own:
        await own.expiry.run()
    await check_expired(deployment, list(ids.values()))


@pytest.mark.parametrize("count", range(5))
async def test_worker_that_processes_the_message_after_each_step(deployment: Deployment, count: int) -> None:
    """Before the status is set, the worker wins; after that, the housekeeper."""
    ids = await publish_orders(deployment, range(3))
    await set_ages(deployment, messages=PAST)
    async with tasks(deployment) as interrupted:
        await take_steps(interrupted, deployment, count)
        async with worker(deployment.settings):
            await until_drained(deployment)
        await take_rest(interrupted, deployment, count)
    async with tasks(deployment) as own:
        await own.expiry.run()
    orders = await deployment.database.fetchval("SELECT count(*) FROM orders")
    if count < 3:
        assert orders == 3
        rows = await deployment.database.fetch("SELECT status FROM message_status")
        assert [row["status"] for row in rows] == ["completed"] * 3
        assert await stored(deployment, deployment.streams.dead_stream) == []
        assert await deployment.database.fetchval("SELECT count(*) FROM nomnom_expiring") == 0
    else:
        assert orders == 0
        await check_expired(deployment, list(ids.values()))


async def take_rest(own: Tasks, deployment: Deployment, count: int) -> None:
    """What the interrupted housekeeper would do if it were only slow: nothing of it may do harm."""
    if count == 0:
        return
    found = await candidates(own, deployment)
    for step in STEPS[count:]:
        await getattr(own.expiry, step)(found)


async def test_slow_housekeeper_withdraws_the_dead_letter_of_a_completed_message(deployment: Deployment) -> None:
    await publish_orders(deployment, range(3))
    await set_ages(deployment, messages=PAST)
    async with tasks(deployment) as own:
        found = await candidates(own, deployment)
        await own.expiry.begin(found, PAST)
        await own.expiry.publish(found)
        async with worker(deployment.settings):
            await until_drained(deployment)
        assert len(await stored(deployment, deployment.streams.dead_stream)) == 3
        assert await own.expiry.mark(found) == 0
        await own.expiry.remove(found)
    assert await stored(deployment, deployment.streams.dead_stream) == []
    assert await deployment.database.fetchval("SELECT count(*) FROM orders") == 3
    assert await deployment.database.fetchval("SELECT count(*) FROM nomnom_expiring") == 0


async def test_two_housekeepers_at_once(deployment: Deployment) -> None:
    ids = await publish_orders(deployment, range(50))
    await set_ages(deployment, messages=PAST)
    async with tasks(deployment, batch=7) as one, tasks(deployment, batch=11) as other:
        await asyncio.gather(one.expiry.run(), other.expiry.run())
        await one.expiry.run()
    await check_expired(deployment, list(ids.values()))


async def test_worker_and_housekeeper_at_once(deployment: Deployment) -> None:
    ids = await publish_orders(deployment, range(300))
    await set_ages(deployment, messages=PAST)
    async with tasks(deployment, batch=5) as own:
        expiry = asyncio.create_task(own.expiry.run())
        async with worker(deployment.settings, batch_size=10):
            await expiry
            await until_drained(deployment)
        await own.expiry.run()
    rows = await deployment.database.fetch("SELECT message_id, status FROM message_status")
    completed = {str(row["message_id"]) for row in rows if row["status"] == "completed"}
    expired = {str(row["message_id"]) for row in rows if row["status"] == "dlq"}
    assert completed | expired == set(ids.values())
    written = await deployment.database.fetch("SELECT message_id FROM orders")
    assert {str(row["message_id"]) for row in written} == completed
    dead = await stored(deployment, deployment.streams.dead_stream)
    assert sorted((each.subject or "").split(".")[-1] for each in dead) == sorted(expired)


async def test_last_error_and_attempts_are_kept(deployment: Deployment) -> None:
    message_id = await publish(deployment, order(1).replace("2024-01-01", "2024-13-01"))
    async with worker(deployment.settings, retry_backoff=60, retry_backoff_max=60):
        await until_status(deployment, message_id, "failed")
    await set_ages(deployment, messages=PAST)
    async with tasks(deployment) as own:
        assert await own.expiry.run() == 1
    (dead,) = await stored(deployment, deployment.streams.dead_stream)
    assert (dead.headers or {})[ATTEMPTS] == "1"
    assert "the last attempt failed: line 1, field o_orderdate" in (dead.headers or {})[ERROR]


async def test_message_with_an_invalid_envelope(deployment: Deployment) -> None:
    await deployment.jetstream.publish("messages.ingest.orders.no-id", order(1).encode())
    await set_ages(deployment, messages=PAST)
    async with tasks(deployment) as own:
        assert await own.expiry.run() == 1
    assert len(await stored(deployment, deployment.streams.dead_stream)) == 1
    assert await deployment.database.fetchval("SELECT status FROM message_status") == "dlq"


async def test_replay_that_expires(deployment: Deployment) -> None:
    """Its sequence is recorded, and its status row is that of the original."""
    original = Envelope(KEYED.replace("-5", "-7", 1), "orders", from_microseconds(START), 0, position_of(1, 1))
    await publish(deployment, order(1), original.message_id)
    await set_ages(deployment, messages=PAST)
    async with tasks(deployment) as own:
        await own.expiry.run()
        headers = replay_headers(original, order(1).encode())
        subject = ingest_subject("orders", original.message_id)
        await deployment.jetstream.publish(subject, order(1).encode(), headers=headers)
        assert await own.expiry.run() == 1
    row = await status(deployment, original.message_id)
    assert row is not None
    assert (row["status"], row["replays"], row["stream_position"]) == ("dlq", 1, position_of(1, 1))
    copies = await deployment.database.fetch("SELECT position, message_id, kind FROM nomnom_sequences")
    assert [(sequence_of(each["position"]), str(each["message_id"]), each["kind"]) for each in copies] == [
        (2, original.message_id, "expired")
    ]
    dead = await stored(deployment, deployment.streams.dead_stream)
    assert [(each.headers or {})["Nomnom-Replays"] for each in dead] == ["0", "1"]


@pytest.mark.parametrize("together", [True, False])
async def test_repeat_under_the_same_key(deployment: Deployment, together: bool) -> None:
    await publish(deployment, order(1), KEYED)
    if together:
        await publish_again(deployment, order(1), KEYED, START + 1)
    await set_ages(deployment, messages=PAST)
    async with tasks(deployment) as own:
        assert await own.expiry.run() == 1
        if not together:
            await publish_again(deployment, order(1), KEYED, START + 1)
        assert await own.expiry.run() == 0
    await check_expired(deployment, [KEYED])
    copies = await deployment.database.fetch("SELECT position, kind FROM nomnom_sequences")
    assert [(sequence_of(each["position"]), each["kind"]) for each in copies] == [(2, "repeat")]


async def test_other_content_under_the_same_key(deployment: Deployment) -> None:
    await publish(deployment, order(1), KEYED)
    await publish_again(deployment, order(2), KEYED, START + 1)
    await set_ages(deployment, messages=PAST)
    async with tasks(deployment) as own:
        assert await own.expiry.run() == 2
    dead = await stored(deployment, deployment.streams.dead_stream)
    assert [(each.headers or {})[REASON] for each in dead] == ["expired", "key conflict"]
    assert await deployment.database.fetchval("SELECT count(*) FROM message_status WHERE status = 'dlq'") == 2


async def test_full_dead_letter_stream_keeps_the_message(deployment: Deployment) -> None:
    ids = await publish_orders(deployment, range(3))
    await set_ages(deployment, messages=PAST)
    config = dead_stream(deployment.streams)
    await deployment.jetstream.update_stream(dataclasses.replace(config, max_bytes=100))
    async with tasks(deployment) as own:
        assert await own.expiry.run() == 0
        assert len(await stored(deployment, deployment.streams.stream)) == 3
        assert await deployment.database.fetchval("SELECT count(*) FROM message_status") == 0
        assert await deployment.database.fetchval("SELECT count(*) FROM nomnom_expiring") == 0
        await deployment.jetstream.update_stream(config)
        assert await own.expiry.run() == 3
    await check_expired(deployment, list(ids.values()))


async def test_dead_letter_that_was_deleted_within_the_duplicate_window_is_stored_again(
    deployment: Deployment,
) -> None:
    ids = await publish_orders(deployment, range(1))
    await set_ages(deployment, messages=PAST)
    async with tasks(deployment) as own:
        await take_steps(own, deployment, 2)
        await deployment.jetstream.purge_stream(deployment.streams.dead_stream)
        assert await own.expiry.run() == 1
    await check_expired(deployment, list(ids.values()))


async def test_nothing_happens_while_a_server_is_unavailable(deployment: Deployment) -> None:
    await publish_orders(deployment, range(3))
    await set_ages(deployment, messages=PAST)
    nowhere = "postgresql://postgres@127.0.0.1:9/nomnom"
    async with tasks(deployment) as own:
        database = Database(nowhere, application="test")
        expiry = MessageExpiry(own.nats, database, deployment.streams, own.metrics, schema=load_schema("tpch"))
        with pytest.raises(DatabaseUnavailable):
            await expiry.run()
        nats = NatsConnection("nats://127.0.0.1:9", "test")
        with pytest.raises(NatsUnavailable):
            await MessageExpiry(nats, own.database, deployment.streams, own.metrics, schema=load_schema("tpch")).run()
        await nats.close()
    assert len(await stored(deployment, deployment.streams.stream)) == 3
    assert await stored(deployment, deployment.streams.dead_stream) == []
