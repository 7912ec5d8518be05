"""Failing messages in the worker: attempts, dead letters, and messages that crash workers."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import nats
import pytest
from worker_harness import (
    KILLER,
    START,
    dead_letters,
    order,
    publish,
    publish_orders,
    set_ack_wait,
    status,
    until,
    until_drained,
    until_status,
    worker,
    worker_process,
)

from conftest import ORDER, Deployment
from nomnom.envelope import Envelope, from_microseconds, header_text, new_message_id, replay_headers
from nomnom_worker import failures

BAD = "O|123|456|F|much|2024-01-01|urgent|clerk1|1|comment"


async def test_invalid_record_becomes_a_dead_letter_after_max_deliver_attempts(deployment: Deployment) -> None:
    async with worker(deployment.settings) as running:
        message_id = await publish(deployment, BAD)
        row = await until_status(deployment, message_id, "dlq")
        await until_drained(deployment)
        assert await running.metric('failed_total{reason="record"}') == 3
        assert await running.metric('dead_letters_total{reason="record"}') == 1
    assert row["retry_count"] == 3
    assert "line 1, field o_totalprice (4): expected a decimal number" in row["error_message"]
    (dead_letter,) = await dead_letters(deployment)
    assert dead_letter.subject == f"messages.dlq.orders.{message_id}"
    assert dead_letter.data == BAD.encode()
    assert dead_letter.headers["Nomnom-Reason"] == "record"
    assert dead_letter.headers["Nomnom-Error"] == row["error_message"]
    assert dead_letter.headers["Nomnom-Attempts"] == "3"
    assert dead_letter.headers["Nomnom-Received-At"] == str(START)
    assert dead_letter.headers["Nomnom-Replays"] == "0"
    assert int(dead_letter.headers["Nomnom-Failed-At"]) > START
    assert await deployment.database.fetchval("SELECT count(*) FROM orders") == 0


async def test_status_between_attempts_is_failed_with_the_error(deployment: Deployment) -> None:
    async with worker(deployment.settings, retry_backoff=30.0, retry_backoff_max=30.0):
        message_id = await publish(deployment, BAD)
        row = await until_status(deployment, message_id, "failed")
        assert (row["retry_count"], row["processed_at"] is not None) == (1, True)
        assert "o_totalprice" in row["error_message"]
        assert await dead_letters(deployment) == []


async def test_max_deliver_of_one_makes_a_dead_letter_immediately(deployment: Deployment) -> None:
    async with worker(deployment.settings, max_deliver=1):
        message_id = await publish(deployment, BAD)
        row = await until_status(deployment, message_id, "dlq")
    assert row["retry_count"] == 1


@pytest.mark.parametrize(
    "payload", [b"", b"\xff\xfe", b"O|1\x00", b"nonsense", b"OLI|1|2", b"O|\xc3", "O|1|2\n\u2028".encode()]
)
async def test_arbitrary_payload_becomes_a_dead_letter_without_affecting_others(
    deployment: Deployment, payload: bytes
) -> None:
    valid = await publish_orders(deployment, range(5))
    message_id = await publish(deployment, payload)
    async with worker(deployment.settings):
        await until_drained(deployment)
    row = await status(deployment, message_id)
    assert row is not None
    assert (row["status"], bool(row["error_message"])) == ("dlq", True)
    (dead_letter,) = await dead_letters(deployment)
    assert (dead_letter.data or b"") == payload
    assert await deployment.database.fetchval("SELECT count(*) FROM orders") == len(valid)


async def test_rejected_rows_do_not_affect_the_rest_of_the_batch(deployment: Deployment) -> None:
    await deployment.database.execute("ALTER TABLE orders ADD CONSTRAINT no_thirteens CHECK (o_orderkey % 100 <> 13)")
    ids = await publish_orders(deployment, range(300))
    rejected = {ids[key] for key in (13, 113, 213)}
    async with worker(deployment.settings) as running:
        await until_drained(deployment)
        assert await running.metric('failed_total{reason="data"}') == 9
    rows = await deployment.database.fetch("SELECT * FROM message_status")
    assert {str(row["message_id"]) for row in rows if row["status"] == "dlq"} == rejected
    assert {row["status"] for row in rows if str(row["message_id"]) not in rejected} == {"completed"}
    assert {row["retry_count"] for row in rows if str(row["message_id"]) in rejected} == {3}
    assert await deployment.database.fetchval("SELECT count(*) FROM orders") == 297
    found = await dead_letters(deployment)
    assert {dead_letter.headers["Nomnom-Reason"] for dead_letter in found} == {"data"}
    assert all("no_thirteens" in dead_letter.headers["Nomnom-Error"] for dead_letter in found)


async def test_error_raised_by_a_trigger_is_a_data_error(deployment: Deployment) -> None:
    await deployment.database.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN IF new.o_orderkey = 7 THEN RAISE EXCEPTION 'sevens are closed'; END IF; RETURN new; END $$;"
        "CREATE TRIGGER refusing BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION refuse()"
    )
    ids = await publish_orders(deployment, range(10))
    async with worker(deployment.settings):
        row = await until_status(deployment, ids[7], "dlq")
        await until_drained(deployment)
    assert "sevens are closed" in row["error_message"]
    assert await deployment.database.fetchval("SELECT count(*) FROM orders") == 9


async def test_message_is_completed_after_the_cause_is_fixed(deployment: Deployment) -> None:
    await deployment.database.execute("ALTER TABLE orders ADD CONSTRAINT closed CHECK (false) NOT VALID")
    async with worker(deployment.settings, max_deliver=100):
        message_id = await publish(deployment, ORDER)
        await until_status(deployment, message_id, "failed")
        await deployment.database.execute("ALTER TABLE orders DROP CONSTRAINT closed")
        row = await until_status(deployment, message_id, "completed")
    assert row["retry_count"] >= 1
    assert row["error_message"] is None


async def test_thousands_of_invalid_records_become_dead_letters(deployment: Deployment) -> None:
    for at in range(3000):
        await publish(deployment, f"O|{at}|broken")
    valid = await publish_orders(deployment, range(50))
    async with worker(deployment.settings):
        await until_drained(deployment, wait=60)
    states = await deployment.database.fetch("SELECT status, retry_count, count(*) FROM message_status GROUP BY 1, 2")
    assert {tuple(row) for row in states} == {("completed", 0, len(valid)), ("dlq", 3, 3000)}
    assert (await deployment.jetstream.stream_info("MESSAGESDLQ")).state.messages == 3000


async def test_replay_starts_a_new_count_of_attempts(deployment: Deployment) -> None:
    async with worker(deployment.settings) as running:
        message_id = await publish(deployment, BAD)
        await until_status(deployment, message_id, "dlq")
        envelope = Envelope(message_id, "orders", from_microseconds(START))
        await publish(deployment, BAD, message_id, extra=replay_headers(envelope, BAD.encode()))
        await until_drained(deployment)
        row = await until_status(deployment, message_id, "dlq")
        assert (row["replays"], row["retry_count"]) == (1, 3)
        assert await running.metric('failed_total{reason="record"}') == 6
    first, second = await dead_letters(deployment)
    assert (first.headers["Nomnom-Replays"], second.headers["Nomnom-Replays"]) == ("0", "1")


async def test_replay_older_than_the_row_is_superseded(deployment: Deployment) -> None:
    async with worker(deployment.settings, max_deliver=1):
        message_id = await publish(deployment, BAD)
        await until_status(deployment, message_id, "dlq")
        await until_status(deployment, await publish(deployment, ORDER, received_at=START + 5), "completed")
        fixed = order(123, "too late").encode()
        envelope = Envelope(message_id, "orders", from_microseconds(START))
        await publish(deployment, fixed, message_id, extra=replay_headers(envelope, fixed))
        row = await until_status(deployment, message_id, "completed")
    assert row["superseded"]
    assert await deployment.database.fetchval("SELECT o_comment FROM orders") == "comment"


async def test_message_without_headers_becomes_a_dead_letter_immediately(deployment: Deployment) -> None:
    message_id = new_message_id()
    await deployment.jetstream.publish(f"messages.ingest.orders.{message_id}", ORDER.encode())
    async with worker(deployment.settings) as running:
        row = await until_status(deployment, message_id, "dlq")
        assert await running.metric('dead_letters_total{reason="envelope"}') == 1
    assert "Nomnom-Received-At" in row["error_message"]
    (dead_letter,) = await dead_letters(deployment)
    assert dead_letter.subject == f"messages.dlq.orders.{message_id}"
    assert dead_letter.headers["Nomnom-Reason"] == "envelope"


async def test_message_without_id_becomes_a_dead_letter_under_a_generated_id(deployment: Deployment) -> None:
    await deployment.jetstream.publish("messages.ingest.orders", ORDER.encode())
    await deployment.jetstream.publish("messages.ingest.a.b.c", ORDER.encode())
    async with worker(deployment.settings):
        await until_drained(deployment)
    one, two = await dead_letters(deployment)
    for dead_letter in (one, two):
        assert dead_letter.subject.startswith("messages.dlq.unknown.")
        assert uuid.UUID(dead_letter.subject.rpartition(".")[2])
        assert dead_letter.data == ORDER.encode()
    assert one.subject != two.subject
    rows = await deployment.database.fetch("SELECT message_id, status FROM message_status")
    assert {(str(row["message_id"]), row["status"]) for row in rows} == {
        (each.subject.rpartition(".")[2], "dlq") for each in (one, two)
    }


async def test_full_dead_letter_stream_keeps_messages_in_the_stream(deployment: Deployment) -> None:
    config = (await deployment.jetstream.stream_info("MESSAGESDLQ")).config
    await deployment.jetstream.update_stream(config.evolve(max_msgs=1))
    await deployment.jetstream.publish("messages.dlq.orders.other", b"x")
    valid = await publish_orders(deployment, range(20))
    bad = [await publish(deployment, BAD) for _ in range(3)]
    async with worker(deployment.settings) as running:

        async def rejected() -> bool:
            return await running.metric("dead_letters_refused_total") >= 6

        await until(rejected)
        rows = [await status(deployment, message_id) for message_id in bad]
        assert [(row["status"], row["retry_count"]) for row in rows if row] == [("failed", 3)] * 3
        assert (await deployment.jetstream.stream_info("MESSAGES")).state.messages == 3
        await deployment.jetstream.update_stream(config)
        await until_drained(deployment)
    for message_id in bad:
        row = await status(deployment, message_id)
        assert row is not None
        assert (row["status"], row["retry_count"]) == ("dlq", 3)
    found = (await dead_letters(deployment))[1:]
    assert sorted(dead_letter.subject.rpartition(".")[2] for dead_letter in found) == sorted(bad)
    assert await deployment.database.fetchval("SELECT count(*) FROM orders") == len(valid)


async def test_missing_dead_letter_stream_keeps_messages_in_the_stream(deployment: Deployment) -> None:
    config = (await deployment.jetstream.stream_info("MESSAGESDLQ")).config
    await deployment.jetstream.delete_stream("MESSAGESDLQ")
    async with worker(deployment.settings) as running:
        message_id = await publish(deployment, BAD)

        async def rejected() -> bool:
            return await running.metric("dead_letters_refused_total") >= 1

        await until(rejected)
        await deployment.jetstream.add_stream(config)
        await until_status(deployment, message_id, "dlq")


async def redeliver(deployment: Deployment, count: int) -> None:
    """Have all messages delivered ``count`` times without recording anything about them."""
    client = await nats.connect(deployment.settings.nats_url)
    subscription = await client.jetstream().pull_subscribe_bind("workers", "MESSAGES")
    total = (await deployment.jetstream.stream_info("MESSAGES")).state.messages
    for _ in range(count):
        received = 0
        while received < total:
            messages = await subscription.fetch(total - received, timeout=5)
            received += len(messages)
            for message in messages:
                await message.nak()
    await client.flush()
    await client.close()


async def test_redelivered_messages_are_completed(deployment: Deployment) -> None:
    """The delivery count alone makes no dead letters: each message gets an isolated attempt."""
    ids = await publish_orders(deployment, range(40))
    bad = await publish(deployment, BAD)
    await redeliver(deployment, 5)
    async with worker(deployment.settings):
        await until_drained(deployment)
    rows = await deployment.database.fetch("SELECT status, retry_count, count(*) FROM message_status GROUP BY 1, 2")
    assert {tuple(row) for row in rows} == {("completed", 0, len(ids)), ("dlq", 3, 1)}
    assert (await until_status(deployment, bad, "dlq"))["retry_count"] == 3


_INSERT_MARK = (
    "INSERT INTO message_status (message_id, entity_type, status, received_at, processed_at)"
    " VALUES ($1, 'orders', 'processing', $2, $3)"
)


async def test_isolated_attempt_without_acknowledgement_makes_a_dead_letter(deployment: Deployment) -> None:
    await set_ack_wait(deployment, 0.5)
    message_id = await publish(deployment, ORDER)
    explained = await publish(deployment, order(2))
    await redeliver(deployment, 3)
    now = await deployment.database.fetchval("SELECT now()")
    await deployment.database.execute(_INSERT_MARK, message_id, from_microseconds(START), now)
    # PostgreSQL was started later, so its outage explains the missing result.
    await deployment.database.execute(_INSERT_MARK, explained, from_microseconds(START), from_microseconds(START))
    await asyncio.sleep(0.3)
    async with worker(deployment.settings):
        row = await until_status(deployment, message_id, "dlq")
        await until_status(deployment, explained, "completed")
    assert "it appears to crash workers" in row["error_message"]
    (dead_letter,) = await dead_letters(deployment)
    assert dead_letter.headers["Nomnom-Reason"] == "unanswered"
    assert dead_letter.headers["Nomnom-Attempts"] == "3"
    assert dead_letter.data == ORDER.encode()


async def test_message_that_another_worker_is_processing_becomes_no_dead_letter(deployment: Deployment) -> None:
    """Its mark is fresh."""
    message_id = await publish(deployment, ORDER)
    await redeliver(deployment, 3)
    now = await deployment.database.fetchval("SELECT now()")
    await deployment.database.execute(_INSERT_MARK, message_id, from_microseconds(START), now)
    async with worker(deployment.settings):
        await until_status(deployment, message_id, "completed")
    assert await dead_letters(deployment) == []


async def test_dead_letter_is_withdrawn_if_a_paused_worker_completes_its_message(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    await set_ack_wait(deployment, 0.5)
    message_id = await publish(deployment, ORDER)
    await redeliver(deployment, 3)
    now = await deployment.database.fetchval("SELECT now()")
    await deployment.database.execute(_INSERT_MARK, message_id, from_microseconds(START), now)
    await asyncio.sleep(0.3)
    publish_dead_letter = failures.publish_dead_letter

    async def complete_meanwhile(*arguments: Any) -> Any:
        ack = await publish_dead_letter(*arguments)
        await deployment.database.execute("UPDATE message_status SET status = 'completed'")
        return ack

    monkeypatch.setattr(failures, "publish_dead_letter", complete_meanwhile)
    async with worker(deployment.settings) as running:
        await until_drained(deployment)
        assert await running.metric("withdrawn_dead_letters_total") == 1
    assert (await deployment.jetstream.stream_info("MESSAGESDLQ")).state.messages == 0
    row = await status(deployment, message_id)
    assert row is not None
    assert row["status"] == "completed"


@pytest.mark.slow
async def test_only_messages_that_crash_workers_become_dead_letters(deployment: Deployment, tmp_path) -> None:
    await set_ack_wait(deployment, 1.0)
    ids = await publish_orders(deployment, range(30))
    deadly = [await publish(deployment, order(1000 + at, "deadly")) for at in range(2)]
    ids |= await publish_orders(deployment, range(30, 60))
    starts = 0

    async def drained() -> bool:
        return (await deployment.jetstream.stream_info("MESSAGES")).state.messages == 0

    while not await drained():
        starts += 1
        assert starts < 12
        async with worker_process(deployment.settings, tmp_path / "log", KILLER) as running:
            assert running.process is not None

            async def ended(running=running) -> bool:
                return running.process.exit_code is not None or await drained()

            await until(ended, 30)
    assert starts >= 4
    rows = await deployment.database.fetch("SELECT message_id, status, retry_count FROM message_status")
    assert {str(row["message_id"]) for row in rows if row["status"] == "dlq"} == set(deadly)
    done = {str(row["message_id"]) for row in rows if (row["status"], row["retry_count"]) == ("completed", 0)}
    assert done == set(ids.values())
    found = await dead_letters(deployment)
    assert {dead_letter.headers["Nomnom-Reason"] for dead_letter in found} == {"unanswered"}
    assert await deployment.database.fetchval("SELECT count(*) FROM orders") == 60


async def test_error_message_is_stored_on_one_line_with_limited_length(deployment: Deployment) -> None:
    message_id = await publish(deployment, "\n".join(["O|x"] * 500))
    async with worker(deployment.settings, max_deliver=1):
        row = await until_status(deployment, message_id, "dlq")
    assert row["error_message"] == header_text(row["error_message"])
    assert len(row["error_message"]) <= 2000
