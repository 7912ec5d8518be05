"""The account: what became of every message, and what is named if it was removed by other means."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from worker_harness import (
    dead_letters,
    order,
    publish,
    publish_again,
    publish_orders,
    until,
    until_drained,
    until_status,
    worker,
    worker_process,
)

from conftest import Deployment
from dashboard_process import running
from nomnom.account import Account, Verifier, read_account, read_balance
from nomnom.account.statements import NOTE
from nomnom.connections.nats import NatsConnection
from nomnom.connections.postgres import AccessDenied, Database
from nomnom.envelope import idempotent_message_id
from nomnom.inspection.dead_letters import Filter
from nomnom.inspection.jetstream import JetStream
from nomnom.partitions import drop_partition, list_partitions
from nomnom.roles import Role
from nomnom.setup import set_up
from nomnom.streams import message_stream, worker_consumer
from operator_session import open_session, stored

BROKEN = order(1).replace("2024-01-01", "2024-13-01")
NOW = int(datetime.now(UTC).timestamp() * 1_000_000)


class Books:
    """A verifier and the account of a deployment."""

    def __init__(self, deployment: Deployment, url: str | None = None) -> None:
        self.streams = deployment.streams
        self.nats = NatsConnection(deployment.settings.nats_url, "test-account")
        self.jetstream = JetStream(self.nats)
        self.database = Database(url or deployment.settings.database_url, application="test-account")
        self.verifier = Verifier(self.database, self.jetstream, self.streams, confirmation=0.3, rotation=0)

    async def read(self, since: datetime | None = None, until: datetime | None = None) -> Account:
        account = await read_account(self.database, self.jetstream, self.streams, since, until)
        assert account.accepted == account.fates + account.unexplained, account
        return account

    async def verified(self) -> Account:
        await self.verifier.verify_all()
        return await self.read()

    async def close(self) -> None:
        await self.nats.close()
        await self.database.close()


@pytest.fixture
async def books(deployment: Deployment) -> Any:
    made = Books(deployment)
    yield made
    await made.close()


async def until_named(books: Books, wait: float = 15.0) -> Account:
    """Verify until something is unexplained; returns the account."""

    async def named() -> Account | None:
        account = await books.verified()
        return account if account.losses else None

    return await until(named, wait, "a loss is named")


async def settled(books: Books, times: int = 4) -> Account:
    """The account after several verifications: enough for a false alarm to be confirmed."""
    for _ in range(times):
        await books.verifier.verify_all()
        await asyncio.sleep(0.2)
    return await books.read()


async def test_every_message_of_a_mixed_load_is_in_the_account_once(
    deployment: Deployment, books: Books, tmp_path: Path
) -> None:
    key = idempotent_message_id("caller", "key")
    async with worker(deployment.settings):
        await publish_orders(deployment, range(100, 150))
        await publish(deployment, order(1), key, NOW)
        await until_drained(deployment)
        await publish_again(deployment, order(1), key, NOW)
        await publish_again(deployment, order(1, "another content"), key, NOW)
        buried = [await publish(deployment, BROKEN, received_at=NOW) for _ in range(3)]
        for each in buried:
            await until_status(deployment, each, "dlq")
        await until_drained(deployment)
        account = await settled(books)
        assert (account.accepted, account.completed, account.dead_letters) == (55, 51, 4)
        assert (account.repeated, account.replayed, account.pending, account.unexplained) == (1, 0, 0, 0)
        async with open_session(deployment, tmp_path) as session:
            replay = await session.dead_letters.replay(Filter())
            await replay.finish()
            await until_drained(deployment)
        account = await settled(books)
    assert (account.accepted, account.unexplained) == (55, 0)
    assert account.replayed == 4


async def test_pending_messages_and_waiting_replays_are_told_apart(
    deployment: Deployment, books: Books, tmp_path: Path
) -> None:
    async with worker(deployment.settings):
        message_id = await publish(deployment, BROKEN, received_at=NOW)
        await until_status(deployment, message_id, "dlq")
        await until_drained(deployment)
    await publish_orders(deployment, range(10))
    async with open_session(deployment, tmp_path) as session:
        replay = await session.dead_letters.replay(Filter())
        await replay.finish()
    account = await settled(books)
    assert (account.accepted, account.pending, account.dead_letters, account.unexplained) == (11, 10, 1, 0)
    assert (account.replayed, account.waiting_replays) == (1, 1)


async def test_a_deleted_row_is_named(deployment: Deployment, books: Books) -> None:
    async with worker(deployment.settings):
        ids = await publish_orders(deployment, range(20))
        await until_drained(deployment)
    assert (await books.verified()).explained
    row = await deployment.database.fetchrow("DELETE FROM message_status WHERE message_id = $1 RETURNING *", ids[7])
    assert row is not None
    account = await until_named(books)
    (loss,) = account.losses
    assert loss.kind == "sequence"
    assert loss.first_sequence == loss.last_sequence == row["stream_position"] & (1 << 48) - 1
    assert (account.accepted, account.completed, account.unexplained) == (20, 19, 1)
    assert (await read_balance(books.database, books.streams)).unexplained == 1
    names = ", ".join(row.keys())
    values = ", ".join(f"${at}" for at in range(1, len(row) + 1))
    await deployment.database.execute(f"INSERT INTO message_status ({names}) VALUES ({values})", *row.values())
    account = await books.verified()
    assert account.explained
    assert account.completed == 20


async def test_a_message_removed_from_the_stream_is_named(deployment: Deployment, books: Books) -> None:
    await publish_orders(deployment, range(20))
    assert (await books.verified()).pending == 20
    await deployment.jetstream.delete_msg(books.streams.stream, 9)
    account = await until_named(books)
    assert [(each.kind, each.first_sequence, each.messages) for each in account.losses] == [("sequence", 9, 1)]
    assert (account.accepted, account.pending, account.unexplained) == (20, 19, 1)
    async with worker(deployment.settings):
        await until_drained(deployment)
    account = await settled(books)
    assert (account.accepted, account.completed, account.unexplained) == (20, 19, 1)


async def test_a_failed_message_removed_from_the_stream_is_named(deployment: Deployment, books: Books) -> None:
    async with worker(deployment.settings, retry_backoff=600, retry_backoff_max=600):
        kept, gone = [await publish(deployment, BROKEN, received_at=NOW) for _ in range(2)]
        for each in (kept, gone):
            await until_status(deployment, each, "failed")
    assert (await books.verified()).failed == 2
    for message in await stored(deployment, books.streams.stream):
        if str(message.subject).endswith(gone):
            await deployment.jetstream.delete_msg(books.streams.stream, message.seq)
    account = await until_named(books)
    (loss,) = account.losses
    assert (loss.kind, loss.message_id) == ("pending", gone)
    assert (account.accepted, account.failed, account.unexplained) == (2, 1, 1)
    await deployment.database.execute("UPDATE message_status SET status = 'completed' WHERE message_id = $1", gone)
    assert (await books.verified()).explained


async def test_a_removed_dead_letter_is_named(deployment: Deployment, books: Books) -> None:
    async with worker(deployment.settings):
        buried = [await publish(deployment, BROKEN, received_at=NOW) for _ in range(3)]
        for each in buried:
            await until_status(deployment, each, "dlq")
        await until_drained(deployment)
    assert (await books.verified()).dead_letters == 3
    await deployment.jetstream.delete_msg(books.streams.dead_stream, (await dead_letters(deployment))[1].seq)
    account = await until_named(books)
    (loss,) = account.losses
    assert (loss.kind, loss.message_id) == ("dead letter", buried[1])
    assert (account.accepted, account.dead_letters, account.unexplained) == (3, 2, 1)


async def test_a_dead_letter_names_the_message_of_a_deleted_row(deployment: Deployment, books: Books) -> None:
    async with worker(deployment.settings):
        message_id = await publish(deployment, BROKEN, received_at=NOW)
        await until_status(deployment, message_id, "dlq")
        await until_drained(deployment)
    await deployment.database.execute("DELETE FROM message_status")

    async def named() -> bool:
        return [each.message_id for each in (await books.verified()).losses] == [message_id]

    await until(named, 15, "the message of the row is named")
    assert (await books.read()).unexplained == 1


async def test_workers_that_are_killed_cause_no_false_alarm(
    deployment: Deployment, books: Books, tmp_path: Path
) -> None:
    alarms: list[Account] = []
    done = asyncio.Event()

    async def watch() -> None:
        while not done.is_set():
            account = await books.verified()
            if not account.explained:
                alarms.append(account)

    watching = asyncio.create_task(watch())
    total = 0
    for attempt in range(4):
        async with worker_process(deployment.settings, tmp_path / f"worker{attempt}.log", batch_size=50) as killed:
            ids = await publish_orders(deployment, range(total, total + 1500))
            total += len(ids)
            await asyncio.sleep(0.5)
            assert killed.process is not None
            killed.process.send(9)
    async with worker(deployment.settings):
        await until_drained(deployment, 60)
    done.set()
    await watching
    assert not alarms
    account = await settled(books)
    assert not await deployment.database.fetchval("SELECT count(*) FROM nomnom_unexplained")
    assert (account.accepted, account.completed, account.unexplained) == (total, total, 0)


class OvertakenVerifier(Verifier):
    """A verifier that workers overtake: they complete all messages after it read PostgreSQL, before it reads NATS."""

    work: Callable[[], Awaitable[None]]

    async def _absent(self, incarnation: Any, gaps: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
        if gaps:
            await self.work()
        return await super()._absent(incarnation, gaps)


class HastyVerifier(OvertakenVerifier):
    """Without the protection: it neither reads PostgreSQL again after the stream nor waits."""

    async def _gaps(self, low: int, high: int) -> list[tuple[int, int]]:
        return [(low, high)]

    async def _confirm(self, found: Sequence[tuple[int, int]], *_: Any) -> None:
        for low, high in found:
            await self._database.fetch(NOTE, "sequence", low, high, high - low + 1, None)


@pytest.mark.parametrize(("kind", "alarmed"), [(OvertakenVerifier, False), (HastyVerifier, True)])
async def test_messages_completed_during_a_verification_cause_no_false_alarm(
    deployment: Deployment, books: Books, kind: type[OvertakenVerifier], alarmed: bool
) -> None:
    """The second verifier is the control: without the protection the same messages are reported as lost."""

    async def work() -> None:
        async with worker(deployment.settings):
            await until_drained(deployment)

    verifier = kind(books.database, books.jetstream, books.streams, confirmation=0.0)
    verifier.work = work
    await publish_orders(deployment, range(20))
    for _ in range(2):
        await verifier.verify_newest(None)
    assert bool(await deployment.database.fetchval("SELECT count(*) FROM nomnom_unexplained")) == alarmed


async def test_the_page_api_and_its_metrics_show_the_account(
    deployment: Deployment, books: Books, tmp_path: Path
) -> None:
    await publish_orders(deployment, range(5))
    await books.verified()
    async with running(deployment.environment, tmp_path) as dashboard:
        account = await dashboard.until("/api/account", lambda found: found["accepted"] == 5)
        assert (account["pending"], account["unexplained"], account["losses"]) == (5, 0, [])
        later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
        assert (await dashboard.get("/api/account", since=later))["accepted"] == 0
        await deployment.jetstream.delete_msg(books.streams.stream, 3)
        await until_named(books)
        account = await dashboard.get("/api/account")
        assert (account["unexplained"], account["losses"][0]["first_sequence"]) == (1, 3)
        await dashboard.until("/api/stats", lambda stats: stats["account"] and stats["account"]["unexplained"] == 1)
        assert "nomnom_unexplained_messages 1.0" in (await dashboard.client.get("/metrics")).text


async def test_a_stream_that_is_created_again_has_an_account_of_its_own(deployment: Deployment, books: Books) -> None:
    async with worker(deployment.settings):
        await publish_orders(deployment, range(10))
        await until_drained(deployment)
    await publish_orders(deployment, range(10, 15))
    assert (await books.verified()).pending == 5
    await deployment.jetstream.delete_stream(books.streams.stream)
    await deployment.jetstream.add_stream(message_stream(books.streams))
    await deployment.jetstream.add_consumer(books.streams.stream, worker_consumer(books.streams))
    await publish_orders(deployment, range(20, 23))
    account = await until_named(books)
    (loss,) = account.losses
    assert (loss.incarnation, loss.first_sequence, loss.last_sequence, loss.messages) == (1, 11, 15, 5)
    assert (account.accepted, account.completed, account.pending, account.unexplained) == (18, 10, 3, 5)


async def test_messages_of_an_earlier_version_are_outside_of_the_account(deployment: Deployment, books: Books) -> None:
    await deployment.database.execute("DELETE FROM nomnom_account")
    async with worker(deployment.settings):
        await publish_orders(deployment, range(10))
        await until_drained(deployment)
        await deployment.database.execute("UPDATE message_status SET stream_position = 0")
        assert (await books.verified()).accepted == 0
        await publish_orders(deployment, range(20, 25))
        await until_drained(deployment)
    account = await settled(books)
    assert (account.accepted, account.completed, account.unexplained) == (5, 5, 0)


async def test_a_worker_of_an_earlier_version_moves_the_beginning(deployment: Deployment, books: Books) -> None:
    await deployment.database.execute("DELETE FROM nomnom_account")
    async with worker(deployment.settings):
        await publish_orders(deployment, range(10))
        await until_drained(deployment)
        await books.verified()
        await publish_orders(deployment, range(20, 25))
        await until_drained(deployment)
        await deployment.database.execute(
            "UPDATE message_status SET stream_position = 0, processed_at = clock_timestamp()"
        )
        await settled(books)
        await publish_orders(deployment, range(30, 32))
        await until_drained(deployment)
    account = await settled(books)
    assert (account.accepted, account.completed, account.unexplained) == (2, 2, 0)


async def test_a_period_has_the_messages_received_in_it(deployment: Deployment, books: Books) -> None:
    async with worker(deployment.settings):
        moments: list[datetime] = []
        for part in range(3):
            await asyncio.sleep(0.05)
            moments.append(datetime.now(UTC))
            for key in range(part + 1):
                await publish(deployment, order(part * 10 + key), received_at=int(moments[-1].timestamp() * 1e6) + key)
        await until_drained(deployment)
    await publish(deployment, order(99), received_at=int(datetime.now(UTC).timestamp() * 1e6))
    await books.verified()
    assert (await books.read(moments[1], moments[2])).accepted == 2
    assert (await books.read(moments[2])).accepted == 4
    assert (await books.read(moments[2])).pending == 1
    assert (await books.read(None, moments[1])).accepted == 1
    assert (await books.read(datetime.now(UTC))).accepted == 0


async def test_roles_verify_and_read_the_account(deployment: Deployment) -> None:
    database = urlsplit(deployment.settings.database_url)
    roles = [Role(each, f"{database.path[1:]}_{each}", "secret") for each in ("operator", "dashboard")]
    await set_up(deployment.settings, wait=5, roles=roles)
    await publish_orders(deployment, range(3))
    urls = [
        database._replace(netloc=f"{each.name}:secret@{database.hostname}:{database.port}").geturl() for each in roles
    ]
    operator, dashboard = (Books(deployment, each) for each in urls)
    assert (await operator.verified()).pending == 3
    assert (await dashboard.read()).pending == 3
    with pytest.raises(AccessDenied):
        await dashboard.verified()
    for each in (operator, dashboard):
        await each.close()


async def test_pruned_copies_are_no_loss(deployment: Deployment, books: Books) -> None:
    key = idempotent_message_id("caller", "key")
    async with worker(deployment.settings):
        await publish(deployment, order(1), key, NOW)
        await until_drained(deployment)
        await publish_again(deployment, order(1), key, NOW)
        await publish(deployment, order(2), received_at=NOW)
        await until_drained(deployment)
    assert (await books.verified()).repeated == 1
    later = datetime.now(UTC) + timedelta(days=1)
    assert await deployment.database.fetchval("SELECT nomnom_prune_sequences($1, 10)", later) == 1
    account = await settled(books)
    assert (account.accepted, account.completed, account.repeated, account.unexplained) == (2, 2, 0, 0)


async def test_rows_dropped_with_their_partition_are_no_loss(deployment: Deployment, books: Books) -> None:
    old = int((datetime.now(UTC) - timedelta(days=40)).timestamp() * 1_000_000)
    async with worker(deployment.settings):
        for key in range(6):
            await publish(deployment, order(key), received_at=old if key % 2 else NOW)
        await until_drained(deployment)
    day = datetime.fromtimestamp(old / 1_000_000, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    name = await deployment.database.fetchval(
        "SELECT nomnom_add_partition('message_status', $1, $2)", day, day + timedelta(days=1)
    )
    assert (await books.verified()).completed == 6
    assert name in {each.name for each in await list_partitions(deployment.database, "message_status")}
    await drop_partition(deployment.database, "message_status", name)
    account = await settled(books)
    assert (account.accepted, account.completed, account.retired, account.unexplained) == (6, 3, 3, 0)
