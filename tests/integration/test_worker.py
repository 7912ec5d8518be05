"""The worker on real servers: rows, statuses, order and redeliveries."""

from __future__ import annotations

import asyncio
import random
from datetime import date
from decimal import Decimal

import asyncpg
import pytest
from worker_harness import (
    START,
    check_all_applied_once,
    count_writes,
    order,
    publish,
    publish_again,
    publish_orders,
    status,
    until,
    until_drained,
    until_status,
    worker,
)

from conftest import LINE, ORDER, Deployment
from nomnom.envelope import POSITION, REPLAYS, Envelope, from_microseconds, replay_headers
from nomnom.positions import position_of
from nomnom.setup import set_up

LINE_KEYED = "OLI|123|789|1|100|2|123.45|0.05|0.07|N|O|2024-01-01|2024-01-02|2024-01-03|DELIVER|SHIP|test"


async def test_idle_worker_does_not_wait_for_a_batch_to_fill(deployment: Deployment) -> None:
    async with worker(deployment.settings, poll_interval_ms=60_000):
        for key in range(3):
            await publish(deployment, order(key))
            await until_drained(deployment)


async def test_record_is_written_and_completed(deployment: Deployment) -> None:
    async with worker(deployment.settings):
        message_id = await publish(deployment, ORDER)
        row = await until_status(deployment, message_id, "completed")
    assert row["entity_type"] == "orders"
    assert row["received_at"] == from_microseconds(START)
    assert row["processed_at"] is not None
    assert (row["retry_count"], row["error_message"], row["superseded"], row["replays"]) == (0, None, False, 0)
    stored = await deployment.database.fetchrow("SELECT * FROM orders")
    assert stored is not None
    assert stored["o_orderkey"] == 123
    assert stored["o_totalprice"] == Decimal("123.45")
    assert stored["o_orderdate"] == date(2024, 1, 1)
    assert str(stored["message_id"]) == message_id
    assert stored["received_at"] == from_microseconds(START)
    await until_drained(deployment)


async def test_parent_and_children_are_written_together(deployment: Deployment) -> None:
    async with worker(deployment.settings):
        message_id = await publish(deployment, f"{ORDER}\n{LINE}\n{LINE_KEYED}")
        await until_status(deployment, message_id, "completed")
    lines = await deployment.database.fetch("SELECT l_orderkey, l_linenumber, message_id FROM lineitem ORDER BY 2")
    assert [(row["l_orderkey"], row["l_linenumber"], str(row["message_id"])) for row in lines] == [
        (123, 1, message_id),
        (123, 100, message_id),
    ]


async def test_child_without_key_is_stored_under_its_message_id(deployment: Deployment) -> None:
    async with worker(deployment.settings):
        first, second = await publish(deployment, LINE), await publish(deployment, LINE)
        await until_status(deployment, first, "completed")
        row = await until_status(deployment, second, "completed")
    rows = await deployment.database.fetch("SELECT l_orderkey, message_id FROM lineitem")
    assert {str(row["message_id"]) for row in rows} == {first, second}
    assert {row["l_orderkey"] for row in rows} == {None}
    assert not row["superseded"]


async def test_last_accepted_wins_whatever_the_clock_of_the_api_said(deployment: Deployment) -> None:
    hour = 3_600_000_000
    async with worker(deployment.settings):
        for key in range(4):
            for number in range(3):
                # The clock jumps back by an hour with each message.
                received_at = START - number * hour
                last = await publish(deployment, order(key, f"number {number}"), received_at=received_at)
                if key % 2:  # one message per batch for every other key
                    await until_status(deployment, last, "completed")
            await until_drained(deployment)
            row = await deployment.database.fetchrow(
                "SELECT o_comment, message_id FROM orders WHERE o_orderkey=$1", key
            )
            assert row is not None
            assert (row["o_comment"], str(row["message_id"])) == ("number 2", last)


@pytest.mark.parametrize("together", [False, True])
async def test_outdated_message_is_completed_as_superseded(deployment: Deployment, together: bool) -> None:
    # The replay of a message that was accepted first, as its position says, and received last, as a clock said.
    replay = {REPLAYS: "1", POSITION: str(position_of(1, 1))}
    await publish(deployment, order(2))
    if together:
        newer = await publish(deployment, order(1, "new"))
        older = await publish(deployment, order(1, "old"), received_at=START + 1, extra=replay)
    async with worker(deployment.settings):
        if not together:
            newer = await publish(deployment, order(1, "new"))
            await until_status(deployment, newer, "completed")
            older = await publish(deployment, order(1, "old"), received_at=START + 1, extra=replay)
        row = await until_status(deployment, older, "completed")
        assert row["superseded"]
        assert "received later" in row["error_message"]
        kept = await until_status(deployment, newer, "completed")
        assert not kept["superseded"]
    assert await deployment.database.fetchval("SELECT o_comment FROM orders") == "new"


async def test_message_with_one_effective_row_is_not_superseded(deployment: Deployment) -> None:
    async with worker(deployment.settings):
        newer = await publish(deployment, ORDER, received_at=START + 1)
        await until_status(deployment, newer, "completed")
        older = await publish(deployment, f"{ORDER}\n{LINE}")
        row = await until_status(deployment, older, "completed")
    assert not row["superseded"]
    assert await deployment.database.fetchval("SELECT count(*) FROM lineitem") == 1


async def test_completed_message_is_not_applied_again(deployment: Deployment) -> None:
    await count_writes(deployment.database)
    async with worker(deployment.settings) as running:
        message_id = await publish(deployment, ORDER)
        first = await until_status(deployment, message_id, "completed")
        for _ in range(3):
            await publish_again(deployment, order(123, "changed"), message_id)
        await until_drained(deployment)
        assert await running.metric("repeated_total") == 3
    assert await status(deployment, message_id) == first
    await check_all_applied_once(deployment, {123: message_id})


async def test_duplicate_in_a_batch_is_applied_once(deployment: Deployment) -> None:
    await count_writes(deployment.database)
    ids = await publish_orders(deployment, range(20))
    for key, message_id in ids.items():
        await publish_again(deployment, order(key), message_id)
    async with worker(deployment.settings):
        await check_all_applied_once(deployment, ids)


async def test_concurrent_workers_apply_each_message_once(deployment: Deployment) -> None:
    await count_writes(deployment.database)
    ids = await publish_orders(deployment, range(400))
    again = list(ids.items())
    random.Random(1).shuffle(again)
    for key, message_id in again:
        await publish_again(deployment, order(key), message_id)
    async with (
        worker(deployment.settings, batch_size=20),
        worker(deployment.settings, batch_size=20),
        worker(deployment.settings, batch_size=20),
    ):
        await check_all_applied_once(deployment, ids)


async def test_concurrent_workers_on_the_same_rows_keep_the_last_accepted(deployment: Deployment) -> None:
    rounds = [(key, age) for age in range(40) for key in range(25)]
    random.Random(2).shuffle(rounds)
    last: dict[int, str] = {}
    for key, age in rounds:
        text = "\n".join([order(key, f"{age}"), LINE.replace("OLI|1|", f"OLI|{key}|")])
        last[key] = str(age)
        await publish(deployment, text, received_at=START + age)
    async with worker(deployment.settings, batch_size=30) as one, worker(deployment.settings, batch_size=30) as two:
        await until_drained(deployment)
        assert await one.metric('failed_total{reason="data"}') == await two.metric('failed_total{reason="data"}') == 0
    rows = await deployment.database.fetch("SELECT o_orderkey, o_comment FROM orders")
    assert {row["o_orderkey"]: row["o_comment"] for row in rows} == last
    states = await deployment.database.fetch("SELECT status, count(*) FROM message_status GROUP BY 1")
    assert [tuple(row) for row in states] == [("completed", 1000)]


async def test_redelivery_of_an_earlier_generation_changes_nothing(deployment: Deployment) -> None:
    async with worker(deployment.settings, max_deliver=1):
        message_id = await publish(deployment, "O|not an order")
        await until_status(deployment, message_id, "dlq")
        envelope = Envelope(message_id, "orders", from_microseconds(START))
        fixed = order(5, "fixed").encode()
        await publish(deployment, fixed, message_id, extra=replay_headers(envelope, fixed))
        row = await until_status(deployment, message_id, "completed")
        assert (row["replays"], row["retry_count"], row["error_message"]) == (1, 0, None)
        await publish_again(deployment, "O|not an order", message_id)
        await until_drained(deployment)
    assert await status(deployment, message_id) == row


async def test_worker_waits_for_streams_and_tables_and_never_creates_them(deployment: Deployment) -> None:
    await deployment.jetstream.delete_stream("MESSAGES")
    await deployment.database.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    async with worker(deployment.settings) as running:
        state = await until(lambda: _reason(running, "consumer", "nomnom setup"))
        assert state["status"] == "not ready"
        names = [each.config.name for each in await deployment.jetstream.streams_info()]
        assert names == ["MESSAGESDLQ"]
        await set_up(deployment.settings, wait=5)
        await until(running.ready)
        message_id = await publish(deployment, ORDER)
        await until_status(deployment, message_id, "completed")


async def test_missing_table_uses_up_no_attempt(deployment: Deployment) -> None:
    await deployment.database.execute("DROP TABLE orders")
    message_id = await publish(deployment, ORDER)
    async with worker(deployment.settings) as running:

        async def stopped() -> bool:
            return "run nomnom setup" in ((await running.get("/ready")).json()["entities"]["reason"] or "")

        await until(stopped)
        await deployment.database.execute("DELETE FROM nomnom_migrations WHERE name LIKE 'orders%'")
        await set_up(deployment.settings, wait=5)
        row = await until_status(deployment, message_id, "completed")
    assert row["retry_count"] == 0


async def _reason(running, part: str, text: str):
    answer = await running.get("/ready")
    state = answer.json()
    reason = state[part]["reason"] or ""
    return state if answer.status_code == 503 and text in reason else None


async def test_consumer_is_deleted_and_recreated(deployment: Deployment) -> None:
    async with worker(deployment.settings) as running:
        await until(running.ready)
        await deployment.jetstream.delete_consumer("MESSAGES", "workers")
        await until(lambda: _reason(running, "consumer", "consumer workers of stream MESSAGES does not exist"))
        await set_up(deployment.settings, wait=5)
        message_id = await publish(deployment, ORDER)
        await until_status(deployment, message_id, "completed")


async def test_health_port(deployment: Deployment) -> None:
    await publish_orders(deployment, range(30))
    async with worker(deployment.settings) as running:
        await until_drained(deployment)
        alive, ready = await running.get("/health"), await running.get("/ready")
        assert (alive.status_code, alive.json()["status"]) == (200, "alive")
        assert ready.status_code == 200
        assert ready.json() == {
            "status": "ready",
            **{part: {"ready": True, "reason": None} for part in ("nats", "consumer", "database", "entities")},
        }
        assert await running.metric("received_total") == 30
        assert await running.metric("completed_total") == 30
        assert await running.metric('rows_total{table="orders"}') == 30
        assert await running.metric("batch_messages_sum") == 30
        assert await running.metric("held_messages") == 0
        assert await running.metric("pending_messages") == 0
        assert await running.metric('outage{server="nats"}') == 0
        assert await running.metric("last_batch_timestamp_seconds") > 0
        assert (await running.get("/nothing")).status_code == 404


async def test_messages_that_fill_several_batches_are_written(deployment: Deployment) -> None:
    lines = "\n".join([ORDER, *(LINE.replace("OLI|1|", f"OLI|{at}|") for at in range(9000))])
    assert 700_000 < len(lines) < 1_048_576
    ids = [await publish(deployment, lines.replace("O|123|", f"O|{at}|")) for at in range(12)]
    async with worker(deployment.settings):
        for message_id in ids:
            await until_status(deployment, message_id, "completed", wait=60)
    assert await deployment.database.fetchval("SELECT count(*) FROM lineitem") == 12 * 9000


async def test_terminated_database_connection_is_replaced(deployment: Deployment) -> None:
    await count_writes(deployment.database)
    ids = await publish_orders(deployment, range(1500))
    async with worker(deployment.settings, batch_size=10):
        for _ in range(5):
            await asyncio.sleep(0.05)
            await deployment.database.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = 'nomnom-worker' AND datname = current_database()"
            )
        await check_all_applied_once(deployment, ids)


async def test_deadlock_is_retried(deployment: Deployment) -> None:
    """Another client locks rows in another order: PostgreSQL aborts one transaction, and no attempt is used up."""
    ids = await publish_orders(deployment, range(2))
    other = await asyncpg.connect(deployment.settings.database_url)
    for key in ids:
        values = f"{key}, 1, 'F', 1, '2024-01-01', '', '', 1, '', 'epoch', gen_random_uuid()"
        await other.execute(f"INSERT INTO orders VALUES ({values})")
    await other.execute("SET deadlock_timeout = '10s'")
    transaction = other.transaction()
    await transaction.start()
    await other.execute("UPDATE orders SET o_clerk = 'other' WHERE o_orderkey = 1")
    async with worker(deployment.settings):

        async def waiting() -> bool:
            query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name = $1"
            return bool(await deployment.database.fetchval(query, "nomnom-worker"))

        await until(waiting)
        locking = asyncio.create_task(other.execute("UPDATE orders SET o_clerk = 'other' WHERE o_orderkey = 0"))
        await locking  # the worker has waited longer, so PostgreSQL aborts its transaction
        await transaction.commit()
        await check_all_applied_once(deployment, ids)
    await other.close()


async def test_message_larger_than_the_pull_limit_is_fetched_alone(deployment: Deployment) -> None:
    """With valid settings, the limit of the stream prevents such messages."""
    large = "\n".join([ORDER, *(LINE.replace("OLI|1|", f"OLI|{at}|") for at in range(100))])
    before = await publish_orders(deployment, range(5))
    message_id = await publish(deployment, large)
    after = await publish_orders(deployment, range(5, 10))
    async with worker(deployment.settings, batch_bytes=1000):
        await until_status(deployment, message_id, "completed")
        await until_drained(deployment)
    assert await deployment.database.fetchval("SELECT count(*) FROM orders") == len(before) + len(after) + 1
