"""Copies in the stream on real servers: repeats and conflicts under one Idempotency-Key, replays, new lives."""

from __future__ import annotations

from typing import Any

import pytest
from worker_harness import (
    START,
    dead_letters,
    order,
    publish,
    publish_again,
    status,
    until,
    until_drained,
    until_status,
    worker,
)

from conftest import Deployment
from nomnom.envelope import ERROR, REASON, Envelope, from_microseconds, idempotent_message_id, replay_headers
from nomnom.positions import position_of, sequence_of
from nomnom.setup import set_up

KEYED = idempotent_message_id("caller", "key")
LATER = START + 3_600_000_000


async def sequences(deployment: Deployment) -> list[tuple[int, str, str]]:
    """The recorded copies: stream sequence, message ID, kind."""
    rows = await deployment.database.fetch("SELECT position, message_id, kind FROM nomnom_sequences ORDER BY 1")
    return [(sequence_of(row["position"]), str(row["message_id"]), row["kind"]) for row in rows]


async def unexplained(deployment: Deployment) -> set[int]:
    """Sequences of the stream that neither a status nor a recorded copy explains, after everything was acknowledged."""
    rows = await deployment.database.fetch(
        "SELECT stream_position FROM message_status UNION SELECT position FROM nomnom_sequences"
    )
    last = (await deployment.jetstream.stream_info("MESSAGES")).state.last_seq
    return set(range(1, last + 1)) - {sequence_of(row[0]) for row in rows}


async def test_original_keeps_its_position(deployment: Deployment) -> None:
    async with worker(deployment.settings):
        ids = [await publish(deployment, order(key)) for key in range(3)]
        await until_drained(deployment)
    positions = [(await status(deployment, each) or {})["stream_position"] for each in ids]
    assert positions == [position_of(1, each) for each in (1, 2, 3)]
    assert await deployment.database.fetchval("SELECT stream_position FROM orders WHERE o_orderkey = 2") == positions[2]
    assert await sequences(deployment) == []


@pytest.mark.parametrize("together", [True, False])
async def test_repeat_with_the_same_content_changes_nothing(deployment: Deployment, together: bool) -> None:
    async def again() -> None:
        await publish_again(deployment, order(1, "first"), KEYED, LATER)

    await publish(deployment, order(1, "first"), KEYED)
    if together:
        await again()
    async with worker(deployment.settings):
        await until_status(deployment, KEYED, "completed")
        await publish(deployment, order(1, "other"))
        if not together:
            await again()
        await until_drained(deployment)
    assert await deployment.database.fetchval("SELECT o_comment FROM orders") == "other"
    assert await deployment.database.fetchval("SELECT count(*) FROM message_status WHERE message_id = $1", KEYED) == 1
    assert await sequences(deployment) == [(2 if together else 3, KEYED, "repeat")]
    assert await unexplained(deployment) == set()


@pytest.mark.parametrize("first", ["pending", "completed", "dlq"])
async def test_other_content_under_the_same_key_becomes_a_dead_letter(deployment: Deployment, first: str) -> None:
    contents = ("O|not an order" if first == "dlq" else order(1, "first"), order(2, "second"))
    await publish(deployment, contents[0], KEYED)
    if first == "pending":
        await publish_again(deployment, contents[1], KEYED, LATER)
    async with worker(deployment.settings, max_deliver=1):
        await until_status(deployment, KEYED, "dlq" if first == "dlq" else "completed")
        if first != "pending":
            await publish_again(deployment, contents[1], KEYED, LATER)
        await until_drained(deployment)
        conflict = (await until(lambda: _conflicts(deployment)))[0]
    assert conflict.data.decode() == contents[1]
    assert KEYED in conflict.headers[ERROR]
    second = conflict.subject.split(".")[-1]
    assert second != KEYED
    row = await status(deployment, second)
    assert row is not None
    assert (row["status"], row["received_at"]) == ("dlq", from_microseconds(LATER))
    assert await deployment.database.fetchval("SELECT count(*) FROM orders WHERE o_orderkey = 2") == 0
    assert await unexplained(deployment) == set()


async def test_conflict_can_be_replayed_as_a_message_of_its_own(deployment: Deployment) -> None:
    async with worker(deployment.settings):
        await publish(deployment, order(1), KEYED)
        await publish_again(deployment, order(2), KEYED, LATER)
        conflict = (await until(lambda: _conflicts(deployment)))[0]
        second = conflict.subject.split(".")[-1]
        await until_status(deployment, second, "dlq")
        envelope = Envelope(second, "orders", from_microseconds(LATER), 0, position_of(1, 2))
        await publish(deployment, order(2), second, extra=replay_headers(envelope, conflict.data))
        await until_status(deployment, second, "completed")
        await until_drained(deployment)
    assert await sequences(deployment) == [(3, second, "replay")]
    assert await unexplained(deployment) == set()


@pytest.mark.parametrize("ended", ["deleted", "expired", "purged"])
async def test_removed_message_begins_a_new_life_if_its_key_comes_again(deployment: Deployment, ended: str) -> None:
    async with worker(deployment.settings, max_deliver=1):
        await publish(deployment, "O|not an order", KEYED)
        before = await until_status(deployment, KEYED, "dlq")
        await deployment.database.execute("UPDATE message_status SET status = $1", ended)
        await publish_again(deployment, "O|not an order", KEYED, LATER)
        after = await until_status(deployment, KEYED, "dlq")
        await until_drained(deployment)
    assert sequence_of(before["stream_position"]) == 1
    assert (sequence_of(after["stream_position"]), after["received_at"]) == (2, before["received_at"])
    assert await sequences(deployment) == [(1, KEYED, ended)]
    assert await unexplained(deployment) == set()


async def test_key_of_an_earlier_version_is_a_repeat(deployment: Deployment) -> None:
    await deployment.database.execute(
        "INSERT INTO message_status (message_id, entity_type, status, received_at)"
        " VALUES ($1, 'orders', 'completed', $2)",
        KEYED,
        from_microseconds(START),
    )
    await deployment.database.execute(
        "INSERT INTO nomnom_keys (message_id, received_at, stream_position) VALUES ($1, $2, 0)",
        KEYED,
        from_microseconds(START),
    )
    async with worker(deployment.settings):
        await publish(deployment, order(1), KEYED, LATER)
        await until_drained(deployment)
    assert await deployment.database.fetchval("SELECT count(*) FROM orders") == 0
    assert await unexplained(deployment) == set()


async def test_stream_that_is_created_again_continues_the_order(deployment: Deployment) -> None:
    async with worker(deployment.settings) as running:
        await publish(deployment, order(9))
        await publish(deployment, order(1, "before"))
        await until_drained(deployment)
        await deployment.jetstream.delete_stream("MESSAGES")
        await set_up(deployment.settings, wait=5)
        await until(running.ready)
        after = await publish(deployment, order(1, "after"))
        row = await until_status(deployment, after, "completed")
    assert row["stream_position"] == position_of(2, 1)
    assert await deployment.database.fetchval("SELECT o_comment FROM orders WHERE o_orderkey = 1") == "after"


async def _conflicts(deployment: Deployment) -> list[Any]:
    return [each for each in await dead_letters(deployment) if each.headers[REASON] == "key conflict"]
