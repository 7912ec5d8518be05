"""Crashes and restarts of servers and workers under load, with a check of every message."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import httpx
import nats
import pytest
from worker_harness import (
    Running,
    check_all_applied_once,
    count_writes,
    publish,
    publish_orders,
    set_ack_wait,
    status,
    until,
    until_status,
    worker,
    worker_process,
)

from conftest import ORDER, Deployment, free_port
from nomnom.settings import Settings
from nomnom.setup import set_up
from nomnom_control.environments.local.servers import NatsServer, PostgresServer
from nomnom_control.errors import ControlError

LOAD = range(3000)
_PAUSE = 0.0005  # makes a load last long enough for a fault in its middle


async def completed(deployment: Deployment) -> int:
    """The number of completed messages."""
    return await deployment.database.fetchval("SELECT count(*) FROM message_status WHERE status = 'completed'")


async def midway(deployment: Deployment, minimum: int = 500) -> None:
    """Wait until part of the load is completed."""

    async def enough() -> bool:
        return await completed(deployment) >= minimum

    await until(enough)
    assert await completed(deployment) < len(LOAD)


@pytest.mark.slow
async def test_workers_killed_under_load(deployment: Deployment, tmp_path: Path) -> None:
    await set_ack_wait(deployment, 1.0)
    await count_writes(deployment.database, _PAUSE)
    ids = await publish_orders(deployment, LOAD)
    for turn in range(1, 4):
        async with worker_process(deployment.settings, tmp_path / "log", batch_size=50) as running:
            await midway(deployment, turn * 500)
            assert running.process is not None
            running.process.send(signal.SIGKILL)
            assert await running.process.wait() == -signal.SIGKILL
    async with worker(deployment.settings) as last:
        await check_all_applied_once(deployment, ids)
        assert await last.metric("redelivered_total") > 0


@pytest.mark.slow
async def test_sigterm_under_load_causes_no_loss_and_no_redelivery(deployment: Deployment, tmp_path: Path) -> None:
    await count_writes(deployment.database, _PAUSE)
    ids = await publish_orders(deployment, LOAD)
    for turn in range(1, 4):
        async with worker_process(deployment.settings, tmp_path / "log", batch_size=50) as running:
            await midway(deployment, turn * 500)
            running.stop()
            assert running.process is not None
            assert await running.process.wait() == 0
        info = await deployment.jetstream.consumer_info("MESSAGES", "workers")
        assert (info.num_ack_pending, info.num_redelivered) == (0, 0)
    async with worker(deployment.settings) as last:
        await check_all_applied_once(deployment, ids)
        assert await last.metric("redelivered_total") == 0


async def test_idle_worker_stops_immediately(deployment: Deployment, tmp_path: Path) -> None:
    async with worker_process(deployment.settings, tmp_path / "log") as running:
        await until(running.ready)
        assert running.process is not None
        running.process.send(signal.SIGINT)
        async with asyncio.timeout(5):
            assert await running.process.wait() == 0
    assert "Traceback" not in (tmp_path / "log").read_text()


async def test_worker_without_servers_stops_immediately(deployment: Deployment, tmp_path: Path) -> None:
    unavailable = {
        "nats_url": f"nats://user:hush@127.0.0.1:{free_port()}",
        "database_url": f"postgresql://u:hush@127.0.0.1:{free_port()}/d",
    }
    async with worker_process(deployment.settings, tmp_path / "log", **unavailable) as running:
        await until(lambda: _answers(running))
        assert await until(lambda: _unready(running, "nats"))
        running.stop()
        assert running.process is not None
        async with asyncio.timeout(5):
            assert await running.process.wait() == 0
    log = (tmp_path / "log").read_text()
    assert "NATS is unavailable" in log
    assert "PostgreSQL is unavailable" in log
    assert "Traceback" not in log
    assert "hush" not in log


async def test_occupied_health_port_is_named_in_the_error(deployment: Deployment, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as occupied:
        port = occupied.getsockname()[1]
        async with worker_process(deployment.settings, tmp_path / "log", worker_health_port=port) as running:
            assert running.process is not None
            async with asyncio.timeout(20):
                assert await running.process.wait() == 1
    log = (tmp_path / "log").read_text()
    assert f"WORKER_HEALTH_PORT: cannot listen on 127.0.0.1:{port}: Address already in use" in log
    assert "Traceback" not in log


async def test_invalid_setting_is_named_in_the_error(deployment: Deployment, tmp_path: Path) -> None:
    async with worker_process(deployment.settings, tmp_path / "log", max_deliver=0) as running:
        assert running.process is not None
        async with asyncio.timeout(20):
            assert await running.process.wait() == 1
    log = (tmp_path / "log").read_text()
    assert "MAX_DELIVER" in log
    assert "Traceback" not in log


async def test_slow_batch_is_not_redelivered(deployment: Deployment) -> None:
    await set_ack_wait(deployment, 1.0)
    await count_writes(deployment.database)
    ids = await publish_orders(deployment, range(100))
    other = await asyncpg.connect(deployment.settings.database_url)
    async with worker(deployment.settings) as running:
        async with other.transaction():
            await other.execute("LOCK TABLE orders")
            await until(lambda: _holds(running, 100))
            await asyncio.sleep(3)
        await check_all_applied_once(deployment, ids)
        assert await running.metric("redelivered_total") == 0
    await other.close()


async def _holds(running: Running, count: int) -> bool:
    return await running.metric("held_messages") >= count or await running.metric("received_total") >= count


@dataclass
class OwnServers:
    """A deployment with servers of its own, which a test may kill."""

    settings: Settings
    nats: NatsServer
    postgres: PostgresServer
    client: nats.NATS
    database: asyncpg.Connection

    @property
    def jetstream(self):
        return self.client.jetstream(timeout=10)

    @property
    def streams(self):
        return self.settings.streams

    async def connect(self) -> None:
        """Reconnect the test after the restart of a server."""
        await self.client.close()
        await self.database.close(timeout=1)
        self.client = await nats.connect(self.nats.url)
        self.database = await asyncpg.connect(self.postgres.url)

    async def start_postgres(self) -> None:
        """Start PostgreSQL; after a kill, its old sessions may keep its shared memory for a moment."""
        async with asyncio.timeout(60):
            while True:
                try:
                    return await self.postgres.start()
                except ControlError:
                    await asyncio.sleep(0.2)


@pytest.fixture
async def own(open_folder: Path) -> AsyncIterator[OwnServers]:
    """New servers after setup, with an ack wait of one second."""
    nats_server = NatsServer(open_folder / "nats", free_port(), free_port(), open_folder / "nats.log")
    postgres = PostgresServer(open_folder / "postgres", free_port(), open_folder / "postgres.log")
    await asyncio.gather(nats_server.start(), postgres.start())
    settings = Settings(nats_url=nats_server.url, database_url=postgres.url)
    await set_up(settings, wait=10)
    client, database = await nats.connect(nats_server.url), await asyncpg.connect(postgres.url)
    servers = OwnServers(settings, nats_server, postgres, client, database)
    await set_ack_wait(servers, 1.0)
    await count_writes(database, _PAUSE)
    yield servers
    await servers.client.close()
    await servers.database.close(timeout=1)
    await asyncio.gather(nats_server.stop(), postgres.stop())


async def kill(server: NatsServer | PostgresServer) -> None:
    """Kill a server."""
    server.process.send(signal.SIGKILL)
    await server.process.wait()


async def _unready(running: Running, part: str) -> str | None:
    answer = await running.get("/ready")
    return answer.json()[part]["reason"] if answer.status_code == 503 else None


@pytest.mark.slow
async def test_nats_killed_under_load(own: OwnServers) -> None:
    ids = await publish_orders(own, LOAD)
    async with worker(own.settings, batch_size=50) as running:
        for turn in range(1, 3):
            await midway(own, turn * 500)
            await kill(own.nats)
            assert await until(lambda: _unready(running, "nats"))
            await own.nats.start()
            await until(running.ready)
        await own.connect()
        await check_all_applied_once(own, ids)
        assert (await running.get("/health")).status_code == 200


@pytest.mark.slow
async def test_postgresql_killed_under_load(own: OwnServers) -> None:
    ids = await publish_orders(own, LOAD)
    async with worker(own.settings, batch_size=50) as running:
        for turn in range(1, 3):
            await midway(own, turn * 500)
            await kill(own.postgres)
            assert await until(lambda: _unready(running, "database"))
            await own.start_postgres()
            await own.connect()
            await until(running.ready)
        await check_all_applied_once(own, ids)
        assert await running.metric("redelivered_total") == 0


@pytest.mark.slow
async def test_outage_longer_than_the_ack_wait_uses_up_no_attempt(own: OwnServers) -> None:
    ids = await publish_orders(own, LOAD)
    async with worker(own.settings, batch_size=50) as running:
        await midway(own)
        await own.postgres.stop()
        reason = await until(lambda: _unready(running, "database"))
        assert reason
        assert await running.metric('outage{server="postgresql"}') == 1
        before = await running.metric("received_total")
        await asyncio.sleep(3)
        assert await running.metric("received_total") - before <= 2 * 50
        assert (await running.get("/health")).status_code == 200
        await own.start_postgres()
        await own.connect()
        await check_all_applied_once(own, ids)
        assert await running.metric("redelivered_total") == 0
        assert await running.metric('failed_total{reason="data"}') == 0
        assert await running.metric('outage{server="postgresql"}') == 0


@pytest.mark.slow
async def test_unresponsive_postgresql_is_an_outage(own: OwnServers) -> None:
    ids = await publish_orders(own, range(200))
    async with worker(own.settings, database_timeout=1.0) as running:
        await check_all_applied_once(own, ids)
        more = await publish_orders(own, range(200, 400))
        # Block the worker's statements; the server itself keeps responding.
        pid = await own.database.fetchval("SELECT pid FROM pg_stat_activity WHERE application_name = 'nomnom-worker'")
        async with own.database.transaction():
            await own.database.execute("LOCK TABLE message_status")
            again = await publish_orders(own, range(400, 500))
            assert await until(lambda: _unready(running, "database")) == "timed out"
        await check_all_applied_once(own, ids | more | again)
        assert pid != await own.database.fetchval(
            "SELECT pid FROM pg_stat_activity WHERE application_name = 'nomnom-worker' LIMIT 1"
        )


@pytest.mark.slow
async def test_sigterm_during_an_outage_returns_messages_to_the_stream(own: OwnServers, tmp_path: Path) -> None:
    await set_ack_wait(own, 60.0)
    async with worker_process(own.settings, tmp_path / "log", batch_size=50) as running:
        await until(running.ready)
        async with own.database.transaction():
            await own.database.execute("LOCK TABLE orders")
            ids = await publish_orders(own, range(100))
            await until(lambda: _holds(running, 50))
            await own.database.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'nomnom-worker'"
            )
        await own.postgres.stop()
        await publish_orders(own, [])
        held = await publish_orders(own, range(100, 120))
        running.stop()
        assert running.process is not None
        async with asyncio.timeout(15):
            assert await running.process.wait() == 0
    await own.start_postgres()
    await own.connect()
    async with worker(own.settings):
        await check_all_applied_once(own, ids | held)


@pytest.mark.slow
async def test_worker_started_before_its_servers_waits_for_them(open_folder: Path) -> None:
    nats_server = NatsServer(open_folder / "nats", free_port(), free_port(), open_folder / "nats.log")
    postgres = PostgresServer(open_folder / "postgres", free_port(), open_folder / "postgres.log")
    await postgres.start()  # for its password
    await postgres.stop()
    settings = Settings(nats_url=nats_server.url, database_url=postgres.url)
    async with worker(settings) as running:
        await until(lambda: _answers(running))
        assert await until(lambda: _unready(running, "nats"))
        assert await until(lambda: _unready(running, "database"))
        assert (await running.get("/health")).status_code == 200
        await asyncio.gather(nats_server.start(), postgres.start())
        await set_up(settings, wait=10)
        await until(running.ready)
        client, database = await nats.connect(nats_server.url), await asyncpg.connect(postgres.url)
        servers = OwnServers(settings, nats_server, postgres, client, database)
        message_id = await publish(servers, ORDER)
        await until_status(servers, message_id, "completed")
        assert await status(servers, message_id)
        await client.close()
        await database.close()
    await asyncio.gather(nats_server.stop(), postgres.stop())


async def _answers(running: Running) -> bool:
    try:
        return (await running.get("/health")).status_code == 200
    except httpx.TransportError:
        return False
