"""Inspect streams, consumers, stored messages, rows and statuses through control; unavailable servers."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import asyncpg
import pytest
from nats.js.api import StreamConfig
from worker_harness import until_drained, worker

from conftest import LINE, ORDER, Deployment, free_port
from nomnom.connections.errors import DatabaseRefused, DatabaseUnavailable, NatsUnavailable, NotSetUp, Unavailable
from nomnom.envelope import Status, headers, ingest_subject, new_message_id
from nomnom.inspection.cursors import CursorError, InvalidQuery
from nomnom.inspection.jetstream import InvalidName
from nomnom.message_status import CLAIM, FAIL
from nomnom.presentation.figures import Property
from nomnom_control.environments.local.servers import NatsServer
from nomnom_control.errors import NotConfirmed
from nomnom_control.session.audit import Action
from nomnom_control.session.connections import ApiUnavailable
from nomnom_control.session.jetstream.consumers import consumer_properties, consumer_row
from nomnom_control.session.jetstream.streams import stream_properties, stream_row
from nomnom_control.session.messages import UnknownMessage
from nomnom_control.session.overview import rates
from nomnom_control.session.pipeline import Pipeline
from operator_session import bury, open_session, until


@pytest.fixture
async def session(deployment: Deployment, tmp_path: Path) -> AsyncIterator[Pipeline]:
    async with open_session(deployment, tmp_path) as pipeline:
        yield pipeline


async def send(deployment: Deployment, text: str = ORDER) -> str:
    """Publish a message like the API."""
    identity = new_message_id()
    stamp = time.time_ns() // 1000
    await deployment.jetstream.publish(
        ingest_subject("orders", identity), text.encode(), headers=headers(stamp, identity)
    )
    return identity


def value(properties: list[Property], label: str) -> str:
    (found,) = [each.value for each in properties if each.label == label]
    return found


async def test_stream_report_has_all_properties(deployment: Deployment, session: Pipeline) -> None:
    for _ in range(5):
        await send(deployment)
    await deployment.jetstream.delete_msg("MESSAGES", 3)
    report = await session.jetstream.stream("MESSAGES", deleted=True)
    assert (report.state.messages, report.state.num_deleted, report.state.deleted) == (4, 1, (3,))
    properties = stream_properties(report)
    for label, expected in (
        ("Name", "MESSAGES"),
        ("Subjects", "messages.ingest.>"),
        ("Retention", "workqueue"),
        ("Storage", "file"),
        ("Discard policy", "new"),
        ("Acknowledgements", "yes"),
        ("Maximum bytes", "1.0 GiB"),
        ("Maximum age", "unlimited"),
        ("Expires after", "1d"),
        ("Duplicate window", "2m"),
        ("Direct get", "yes"),
        ("Maximum messages", "unlimited"),
        ("Messages", "4"),
        ("Last sequence", "5"),
        ("Deleted messages", "1"),
        ("Subjects", "messages.ingest.>"),
        ("Active consumers", "1"),
    ):
        labelled = [each.value for each in properties if each.label == label]
        assert expected in labelled, (label, labelled)
    # Every property of the server's configuration is listed.
    info = await deployment.jetstream.stream_info("MESSAGES")
    assert info.config.description in [each.value for each in properties]
    names = [each.name for each in await session.jetstream.streams()]
    assert names == ["MESSAGES", "MESSAGESDLQ"]
    assert stream_row(report)["Messages"] == "4"


async def test_more_streams_than_one_page_of_jetstream(deployment: Deployment, session: Pipeline) -> None:
    """JetStream returns at most 256 names per request."""
    added = [f"EXTRA{number:03}" for number in range(260)]
    try:
        for name in added:
            await deployment.jetstream.add_stream(
                StreamConfig(name=name, subjects=[f"extra.{name}"], storage="memory")  # pyright: ignore[reportArgumentType]
            )
        assert [each.name for each in await session.jetstream.streams()] == [*added, "MESSAGES", "MESSAGESDLQ"]
    finally:
        for name in added:
            await deployment.jetstream.delete_stream(name)


async def test_consumer_report_has_all_properties(deployment: Deployment, session: Pipeline) -> None:
    for _ in range(5):
        await send(deployment)
    subscription = await deployment.jetstream.pull_subscribe_bind("workers", stream="MESSAGES")
    messages = await subscription.fetch(3, timeout=5)
    await messages[0].ack_sync()
    report = await session.jetstream.consumer("MESSAGES", "workers")
    assert (report.num_pending, report.num_ack_pending, report.lag) == (2, 2, 4)
    assert (report.delivered.stream_seq, report.ack_floor.stream_seq) == (3, 1)
    properties = consumer_properties(report)
    for label, expected in (
        ("Mode", "pull"),
        ("Ack policy", "explicit"),
        ("Ack wait", "30s"),
        ("Maximum ack pending", "50,000"),
        ("Maximum deliveries", "unlimited"),
        ("Outstanding acks", "2 of at most 50,000"),
        ("Unprocessed messages", "2"),
        ("Lag", "4"),
        ("Paused", "no"),
        ("Filter subject", "messages.ingest.>"),
    ):
        assert value(properties, label) == expected
    (listed,) = await session.jetstream.consumers("MESSAGES")
    assert (listed.name, consumer_row(listed)["Ack pending"]) == ("workers", "2")
    assert await session.jetstream.consumers("MESSAGESDLQ") == []


async def test_reading_messages_has_no_side_effects(deployment: Deployment, session: Pipeline) -> None:
    identities = [await send(deployment, f"{ORDER}{number}") for number in range(30)]
    jetstream = session.jetstream
    oldest = await jetstream.messages("MESSAGES", limit=10)
    assert [each.sequence for each in oldest.messages] == [*range(1, 11)]
    assert oldest.more
    onward = await jetstream.messages("MESSAGES", after=10, limit=50)
    assert ([each.sequence for each in onward.messages], onward.more) == ([*range(11, 31)], False)
    newest = await jetstream.messages("MESSAGES", limit=5, newest_first=True)
    assert [each.sequence for each in newest.messages] == [30, 29, 28, 27, 26]
    back = await jetstream.messages("MESSAGES", before=4, limit=5, newest_first=True)
    assert ([each.sequence for each in back.messages], back.more) == ([3, 2, 1], False)
    message = await jetstream.peek("MESSAGES", 7)
    assert message is not None
    assert (message.subject, message.payload) == (ingest_subject("orders", identities[6]), f"{ORDER}6".encode())
    assert set(message.headers) == {"Nats-Msg-Id", "Nomnom-Received-At"}
    assert abs(datetime.now(UTC) - message.stored_at) < timedelta(minutes=1)
    assert await jetstream.peek("MESSAGES", 31) is None
    last = await jetstream.last("MESSAGES", ingest_subject("*", identities[3]))
    assert last is not None
    assert last.sequence == 4
    report = await jetstream.consumer("MESSAGES", "workers")
    assert (report.num_pending, report.delivered.consumer_seq) == (30, 0)


async def test_pause_and_resume(deployment: Deployment, session: Pipeline) -> None:
    end = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
    paused = await session.jetstream.pause("MESSAGES", "workers", end)
    assert (paused.paused, paused.paused_until) == (True, end)
    assert value(consumer_properties(paused), "Paused").startswith("until ")
    await send(deployment)
    subscription = await deployment.jetstream.pull_subscribe_bind("workers", stream="MESSAGES")
    fetching = asyncio.create_task(subscription.fetch(1, timeout=20))
    await asyncio.sleep(0.3)
    assert not fetching.done()
    resumed = await session.jetstream.resume("MESSAGES", "workers")
    assert (resumed.paused, resumed.paused_until) == (False, None)
    assert len(await fetching) == 1
    entries = await session.audit.read()
    assert [each.action for each in entries] == [Action.RESUME, Action.PAUSE]
    assert entries[1].detail["consumer"] == "workers"


async def test_purge_requires_the_stream_name(deployment: Deployment, session: Pipeline) -> None:
    await bury(deployment)
    with pytest.raises(NotConfirmed, match="must be its name"):
        await session.jetstream.purge("MESSAGESDLQ", confirm="yes")
    assert (await session.jetstream.stream("MESSAGESDLQ")).state.messages == 1
    assert await session.jetstream.purge("MESSAGESDLQ", confirm="MESSAGESDLQ") == 1
    assert (await session.jetstream.stream("MESSAGESDLQ")).state.messages == 0
    (entry,) = await session.audit.read(action=Action.PURGE)
    assert (entry.entity, entry.result, entry.detail["messages"]) == ("MESSAGESDLQ", "purged 1 messages", 1)


async def test_audit_entries_are_written_when_postgresql_is_back(deployment: Deployment, tmp_path: Path) -> None:
    admin = await asyncpg.connect(deployment.settings.database_url.rpartition("/")[0] + "/postgres")
    name = deployment.settings.database_url.rpartition("/")[2]
    async with open_session(deployment, tmp_path) as session:
        await admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        await session.jetstream.pause("MESSAGES", "workers")
        with pytest.raises(DatabaseRefused, match="not currently accepting connections"):
            await session.audit.read()
        await admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
        (entry,) = await session.audit.read()
        assert (entry.action, entry.result) == (Action.PAUSE, "done")
    await admin.close()


async def test_unknown_stream_and_consumer(session: Pipeline) -> None:
    with pytest.raises(NotSetUp, match="stream NOPE: stream not found"):
        await session.jetstream.stream("NOPE")
    with pytest.raises(NotSetUp, match="consumer nope of MESSAGES"):
        await session.jetstream.consumer("MESSAGES", "nope")
    with pytest.raises(NotSetUp):
        await session.jetstream.messages("NOPE")
    with pytest.raises(InvalidName, match="cannot be the name"):
        await session.jetstream.stream("a.>")


async def test_rows_are_paged_by_key(deployment: Deployment, session: Pipeline) -> None:
    insert = """
    INSERT INTO lineitem SELECT nullif(o, 0), 1, 1, n, 1, 1, 1, 1, 'N', 'O', now(), now(), now(), 'x', 'y', 'z', now(),
           gen_random_uuid()
    FROM generate_series(1, 10) AS n, (VALUES (0), (7), (3)) AS given (o)
    """
    await deployment.database.execute(insert)
    seen: list[tuple[object, object, object]] = []
    page = await session.entities.rows("OLI", limit=7)
    assert page.previous is None
    pages = [page]
    while pages[-1].next:
        pages.append(await session.entities.rows("lineitem", after=pages[-1].next, limit=7))
    for part in pages:
        seen += [(row["l_orderkey"], row["l_linenumber"], row["message_id"]) for row in part.rows]
    assert [len(part.rows) for part in pages] == [7, 7, 7, 7, 2]
    keyed, keyless = [each for each in seen if each[0]], [each for each in seen if each[0] is None]
    assert seen == [*keyed, *keyless]
    assert [each[:2] for each in keyed] == [(key, n) for key in (3, 7) for n in range(1, 11)]
    assert [each[2] for each in keyless] == sorted(each[2] for each in keyless)
    assert len(keyless) == 10
    back = [pages[-1]]
    while back[-1].previous:
        back.append(await session.entities.rows("lineitem", before=back[-1].previous, limit=7))
    assert [part.rows for part in reversed(back)] == [part.rows for part in pages]
    assert page.columns[:2] == ("l_orderkey", "l_partkey")
    assert page.columns[-2:] == ("received_at", "message_id")
    assert page.rows[0]["l_extendedprice"] == Decimal(1)
    with pytest.raises(CursorError, match="is of a page of lineitem, not of orders"):
        await session.entities.rows("orders", after=page.next)
    with pytest.raises(CursorError):
        await session.entities.rows("orders", after="nonsense")


async def test_estimate_of_a_partitioned_table_is_the_sum_of_its_partitions(
    deployment: Deployment, session: Pipeline
) -> None:
    """PostgreSQL has no estimate of the whole table; one partition was never analyzed."""
    insert = (
        "INSERT INTO message_status (message_id, entity_type, status, received_at, processed_at)"
        " SELECT gen_random_uuid(), 'orders', 'completed', $1, $1 FROM generate_series(1, $2)"
    )
    days = [datetime(2020, 1, day, tzinfo=UTC) for day in (1, 2, 3)]
    for day in days:
        await deployment.database.execute(
            "SELECT nomnom_add_partition('message_status', $1, $2)", day, day + timedelta(days=1)
        )
        await deployment.database.execute(insert, day, 60_000)
    await deployment.database.execute("ANALYZE message_status_20200101")
    await deployment.database.execute("ANALYZE message_status_20200102")
    counts = {each.status: each for each in await session.statuses.counts()}
    completed = counts[Status.COMPLETED]
    assert not completed.exact
    assert abs(completed.messages - 180_000) < 9_000


async def test_exact_and_estimated_counts(deployment: Deployment, session: Pipeline) -> None:
    insert = "INSERT INTO region SELECT n, 'a', 'b', now(), gen_random_uuid() FROM generate_series(1, $1) AS n"
    await deployment.database.execute(insert, 120_000)
    exact = (await session.entities.report("region")).count
    assert (exact.rows, exact.exact, str(exact)) == (120_000, True, "120,000")
    await deployment.database.execute("ANALYZE region")
    estimate = (await session.entities.report("R")).count
    assert (estimate.exact, str(estimate)) == (False, f"≈ {estimate.rows:,}")
    assert abs(estimate.rows - 120_000) < 6_000
    reports = {each.entity.name: each for each in await session.entities.reports()}
    assert list(reports) == [each.name for each in session.schema]
    assert (reports["orders"].count.rows, reports["orders"].count.exact) == (0, True)
    assert reports["region"].bytes > 1_000_000


async def test_messages_by_status(deployment: Deployment, session: Pipeline) -> None:
    start = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    done = sorted(new_message_id() for _ in range(25))
    times = [start + timedelta(microseconds=position // 2) for position in range(25)]
    await deployment.database.execute(CLAIM, done, ["orders"] * 25, times, [0] * 25, [0] * 25)
    failed = [new_message_id()]
    await deployment.database.fetch(FAIL, failed, ["customer"], [start], [0], [0], ["no luck"], 3)

    statuses = session.statuses
    page = await statuses.recent(limit=10)
    pages = list(page)
    while page := await statuses.recent(limit=10, after=page[-1]):
        pages += page
    assert len({each.message_id for each in pages}) == 26
    keys = [(each.received_at, each.message_id) for each in pages]
    assert keys == sorted(keys, reverse=True)
    (one,) = await statuses.recent(Status.FAILED)
    assert (one.message_id, one.entity, one.error, one.retry_count) == (failed[0], "customer", "no luck", 1)
    assert len(await statuses.recent(Status.COMPLETED, limit=100)) == 25
    assert [each.entity for each in await statuses.recent(entity="customer")] == ["customer"]
    assert await statuses.find(failed[0]) == one
    assert await statuses.find(new_message_id()) is None
    # Times that an ID seems to hold: after the year 9999, its last hour, and the beginning.
    for milliseconds in (0xF0ECC0F10AD5, 253_370_764_799_999, 1):
        assert await statuses.find(str(uuid.UUID(int=milliseconds << 80 | 7 << 76 | 2 << 62))) is None
    with pytest.raises(InvalidQuery, match="messages of the stream"):
        await statuses.recent(Status.ACCEPTED)
    counts = {each.status: (each.messages, each.exact) for each in await statuses.counts()}
    assert counts == {
        Status.PROCESSING: (0, True),
        Status.COMPLETED: (25, True),
        Status.FAILED: (1, True),
        Status.DLQ: (0, True),
        Status.DELETED: (0, True),
        Status.PURGED: (0, True),
        Status.EXPIRED: (0, True),
    }
    hours = {(each.hour, each.status): each.messages for each in await statuses.by_hour(2)}
    assert hours == {(start, Status.COMPLETED): 25, (start, Status.FAILED): 1}


async def test_overview_and_rates(deployment: Deployment, session: Pipeline) -> None:
    before = await session.overview()
    assert (before.lag, before.oldest, before.dead_letters) == (0, None, 0)
    for _ in range(2):
        await send(deployment)
    async with worker(deployment.settings):
        await until_drained(deployment)
    for _ in range(2):
        await send(deployment)
    await bury(deployment)
    await asyncio.sleep(0.6)  # the transactions of the last half second are counted the next time
    after = await session.overview(before)
    assert (after.lag, after.dead_letters) == (2, 1)
    assert after.oldest is not None
    assert 0 <= after.oldest < 60
    completed = after.count(Status.COMPLETED)
    assert completed is not None
    assert completed.messages == 2
    assert (after.nats_problem, after.database_problem) == ("", "")
    now = rates(before, after)
    assert now is not None
    seconds = (after.at - before.at).total_seconds()
    assert (now.accepted * seconds, now.processed * seconds, now.failed * seconds) == pytest.approx((4, 2, 1))
    assert now.error_share == pytest.approx(0.5)


async def test_unavailable_servers_are_reported(deployment: Deployment, tmp_path: Path) -> None:
    nats = f"nats://someone:secret@127.0.0.1:{free_port()}"
    database = f"postgresql://someone:secret@127.0.0.1:{free_port()}/nomnom"
    async with open_session(deployment, tmp_path, nats=nats, database=database) as session:
        overview = await session.overview()
        assert overview.stream is None
        assert overview.counts is None
        for problem in (overview.nats_problem, overview.database_problem):
            assert "is unavailable" in problem
            assert "check that it runs" in problem
            assert "secret" not in problem
        for ask in (
            session.dead_letters.page(),
            session.jetstream.streams(),
            session.statuses.counts(),
            session.entities.rows("orders"),
            session.messages.state(new_message_id()),
        ):
            with pytest.raises(Unavailable):
                await ask
        with pytest.raises(ApiUnavailable, match="the API at"):
            await session.messages.post(ORDER)
        with pytest.raises(UnknownMessage, match="expected a UUID"):
            await session.messages.state("nonsense")


async def test_nats_reconnects(deployment: Deployment, open_folder: Path, tmp_path: Path) -> None:
    server = NatsServer(open_folder / "nats", free_port(), free_port(), open_folder / "nats.log")
    await server.start()
    try:
        async with open_session(deployment, tmp_path, nats=server.url) as session:
            assert await session.jetstream.streams() == []
            await server.stop()
            await until(lambda: not session.nats.connected)
            with pytest.raises(NatsUnavailable, match="is unavailable"):
                await session.jetstream.streams()
            await server.start()
            await until(lambda: session.nats.connected)
            assert await session.jetstream.streams() == []
            assert session.nats.problem is None
    finally:
        await server.stop()


async def test_slow_statement_times_out(deployment: Deployment, session: Pipeline) -> None:
    async with session.database.connection() as connection:
        assert await connection.fetchval("SHOW statement_timeout") == "5s"
    with pytest.raises(DatabaseRefused, match="statement timeout"):
        async with session.database.connection(0.2) as connection:
            await connection.execute("SELECT pg_sleep(5)")
    async with session.database.connection() as connection:
        assert await connection.fetchval("SHOW statement_timeout") == "5s"


async def test_broken_connections_are_replaced(deployment: Deployment, session: Pipeline) -> None:
    asked = [new_message_id()]
    assert await session.statuses.answers(asked) == {}
    others = "pid <> pg_backend_pid() AND datname = current_database()"
    await deployment.database.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}")
    with contextlib.suppress(DatabaseUnavailable):  # the first call may find the broken connection
        await session.statuses.answers(asked)
    assert await session.statuses.answers(asked) == {}
    assert session.database.problem is None


async def test_session_can_be_used_after_close(deployment: Deployment, session: Pipeline) -> None:
    await bury(deployment)
    assert (await session.dead_letters.page()).total == 1
    await session.close()
    assert (await session.dead_letters.page()).total == 1
    assert LINE
