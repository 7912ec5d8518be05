"""Limits of the streams: what setup reports, and that it does not expire anything without a confirmation."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from worker_harness import order, publish_orders

from conftest import Deployment
from nomnom.connections.nats import NatsConnection
from nomnom.inspection.jetstream import JetStream
from nomnom.inspection.retention import count_older, maximum_age_of, read_retention
from nomnom.streams import RefusedExpiry, dead_stream, ensure_streams, message_stream


@pytest.fixture
async def connection(deployment: Deployment) -> AsyncIterator[NatsConnection]:
    connection = NatsConnection(deployment.settings.nats_url, "test")
    yield connection
    await connection.close()


async def bury(deployment: Deployment, count: int) -> None:
    for number in range(count):
        await deployment.jetstream.publish(f"messages.dlq.orders.{number}", order(number).encode())


async def test_streams_drop_nothing_by_age(deployment: Deployment, connection: NatsConnection) -> None:
    for name, age in ((deployment.streams.stream, 86_400), (deployment.streams.dead_stream, 7 * 86_400)):
        info = await deployment.jetstream.stream_info(name)
        assert not info.config.max_age
        assert maximum_age_of(await JetStream(connection).stream(name)) == age


async def test_stream_of_an_earlier_version_is_updated(deployment: Deployment, connection: NatsConnection) -> None:
    old = dataclasses.replace(message_stream(deployment.streams), max_age=86_400, metadata={"team": "orders"})
    await deployment.jetstream.delete_stream(deployment.streams.stream)
    await deployment.jetstream.add_stream(old)
    assert maximum_age_of(await JetStream(connection).stream(deployment.streams.stream)) == 86_400
    done = await ensure_streams(connection, deployment.streams)
    assert done[0] == ("stream MESSAGES: updated: max_age 86400 → 0, maximum age 86400 s (in its metadata)")
    config = (await deployment.jetstream.stream_info(deployment.streams.stream)).config
    assert (config.metadata or {})["team"] == "orders"
    assert not config.max_age
    assert (await ensure_streams(connection, deployment.streams))[0] == "stream MESSAGES: up to date"


async def test_options_of_others_are_kept(deployment: Deployment, connection: NatsConnection) -> None:
    config = dataclasses.replace(dead_stream(deployment.streams), deny_purge=True, metadata={"team": "orders"})
    await deployment.jetstream.update_stream(config)
    await ensure_streams(connection, deployment.streams)
    kept = (await deployment.jetstream.stream_info(deployment.streams.dead_stream)).config
    assert kept.deny_purge
    assert (kept.metadata or {})["team"] == "orders"


async def test_output_names_what_changed(deployment: Deployment, connection: NatsConnection) -> None:
    changed = dataclasses.replace(deployment.streams, dead_max_bytes=2_000_000, ack_wait=40)
    assert await ensure_streams(connection, changed) == [
        "stream MESSAGES: up to date",
        "stream MESSAGESDLQ: updated: max_bytes 1073741824 → 2000000",
        "consumer workers: updated: ack_wait 30 → 40",
    ]
    assert await ensure_streams(connection, changed) == [
        "stream MESSAGES: up to date",
        "stream MESSAGESDLQ: up to date",
        "consumer workers: up to date",
    ]


async def test_lower_size_removes_nothing(deployment: Deployment, connection: NatsConnection) -> None:
    await bury(deployment, 11)
    small = dataclasses.replace(deployment.streams, dead_max_bytes=500)
    done = await ensure_streams(connection, small)
    assert "takes no more messages until there is room" in done[1]
    assert (await deployment.jetstream.stream_info(deployment.streams.dead_stream)).state.messages == 11


async def test_lower_age_is_refused_without_the_number(deployment: Deployment, connection: NatsConnection) -> None:
    await bury(deployment, 11)
    await publish_orders(deployment, range(3))
    await asyncio.sleep(0.1)
    lower = dataclasses.replace(deployment.streams, max_age=0.05, dead_max_age=0.05, max_bytes=5_000_000)
    for expire in (0, 11, 15):
        with pytest.raises(RefusedExpiry) as refused:
            await ensure_streams(connection, lower, expire)
    text = str(refused.value)
    assert "3 messages are older than 0.05 s" in text
    assert "11 dead letters are older than 0.05 s" in text
    assert "nomnom setup --expire 14" in text
    unchanged = await deployment.jetstream.stream_info(deployment.streams.stream)
    assert unchanged.config.max_bytes == deployment.streams.max_bytes
    done = await ensure_streams(connection, lower, 14)
    assert done[1] == "stream MESSAGESDLQ: updated: maximum age 604800 s → 0.05 s (in its metadata)"
    await ensure_streams(connection, deployment.streams)


async def test_count_of_older_messages(deployment: Deployment, connection: NatsConnection) -> None:
    stream = deployment.streams.dead_stream
    before = datetime.now(UTC)
    assert await count_older(connection, await JetStream(connection).stream(stream), before) == 0
    await bury(deployment, 5)
    await deployment.jetstream.delete_msg(stream, 2)
    await asyncio.sleep(0.02)
    between = datetime.now(UTC)
    await asyncio.sleep(0.02)
    for number in range(3):
        await deployment.jetstream.publish(f"messages.dlq.orders.late-{number}", b"")
    report = await JetStream(connection).stream(stream)
    for moment, older in ((before, 0), (between, 4), (datetime.now(UTC) + timedelta(minutes=1), 7)):
        assert await count_older(connection, report, moment) == older


async def test_retention_of_dead_letters(deployment: Deployment, connection: NatsConnection) -> None:
    stream = deployment.streams.dead_stream
    empty = await read_retention(connection, await JetStream(connection).stream(stream))
    assert (empty.limit, empty.oldest, empty.expiring, empty.remaining) == (7 * 86_400, None, 0, None)
    await bury(deployment, 5)
    report = await JetStream(connection).stream(stream)
    assert (await read_retention(connection, report)).expiring == 0
    soon = await read_retention(connection, report, datetime.now(UTC) + timedelta(days=6, minutes=1))
    assert soon.expiring == 5
    assert soon.remaining is not None
    assert 0 < soon.remaining < 86_400
