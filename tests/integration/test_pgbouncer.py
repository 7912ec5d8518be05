"""All components through PgBouncer, which refuses startup parameters and, by transaction, changes connections."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import msgspec
import pytest
from api_harness import serving
from worker_harness import check_all_applied_once, publish_orders, until, until_status, worker

from conftest import ORDER, Deployment, free_port
from dashboard_process import running
from nomnom.connections.errors import DatabaseRefused
from nomnom.connections.postgres import Database
from nomnom.schema import load_schema
from nomnom.settings import Settings
from nomnom.setup import set_up
from nomnom_control.environments import Endpoints
from nomnom_control.environments.local.processes import ChildProcess
from nomnom_control.session.pipeline import Pipeline

_PROGRAM = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
pytestmark = pytest.mark.skipif(_PROGRAM is None, reason="pgbouncer is not installed")
_CONFIG = """\
[databases]
* = host={host} port={port} user={user} password={password}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
default_pool_size = 3
logfile =
"""


@dataclass
class Pooled:
    """A deployment, and its settings through PgBouncer."""

    deployment: Deployment
    settings: Settings
    mode: str


@pytest.fixture(params=["session", "transaction"])
async def pooled(request: pytest.FixtureRequest, deployment: Deployment, open_folder: Path) -> AsyncIterator[Pooled]:
    """PgBouncer on a deployment; in transaction mode with so few connections that clients change them."""
    parts = urlsplit(deployment.settings.database_url)
    listen = free_port()
    config = open_folder / "pgbouncer.ini"
    config.write_text(
        _CONFIG.format(
            host=parts.hostname,
            port=parts.port,
            user=parts.username,
            password=parts.password,
            listen=listen,
            mode=request.param,
        ).replace("default_pool_size = 3", f"default_pool_size = {3 if request.param == 'transaction' else 30}")
    )
    user = pwd.getpwnam("nobody").pw_uid if os.geteuid() == 0 else None
    process = ChildProcess("pgbouncer", [str(_PROGRAM), str(config)], open_folder / "pgbouncer.log", user=user)
    await process.start()
    url = f"postgresql://{parts.username}@127.0.0.1:{listen}{parts.path}"

    async def connected() -> bool:
        try:
            connection = await asyncpg.connect(url, timeout=1, statement_cache_size=0)
        except (OSError, asyncpg.PostgresError):
            return False
        await connection.close()
        return True

    await until(connected)
    settings = msgspec.structs.replace(
        deployment.settings,
        database_url=url,
        database_statement_cache=0 if request.param == "transaction" else 100,
    )
    yield Pooled(deployment, settings, request.param)
    await process.stop(5)


async def test_workers_apply_each_message_once(pooled: Pooled) -> None:
    ids = await publish_orders(pooled.deployment, range(3000))
    async with worker(pooled.settings, batch_size=20) as first, worker(pooled.settings, batch_size=20) as second:
        await check_all_applied_once(pooled.deployment, ids)
        for each in (first, second):
            assert await each.metric('outage{server="postgresql"}') == 0
            assert await each.metric("completed_total") > 0
            assert await each.ready()


async def test_api_reports_statuses(pooled: Pooled) -> None:
    async with serving(pooled.settings) as api, worker(pooled.settings):
        answers = await asyncio.gather(*(api.post(ORDER) for _ in range(20)))
        ids = [answer.json()["message_id"] for answer in answers]
        for each in ids:
            await until_status(pooled.deployment, each, "completed")
        states = await asyncio.gather(*(api.state(each) for each in ids))
        assert {state["status"] for state in states} == {"completed"}
        assert (await api.client.get("/ready")).json()["status"] == "ready"


async def test_dashboard_and_session_read_what_was_written(pooled: Pooled, tmp_path: Path) -> None:
    ids = await publish_orders(pooled.deployment, range(30))
    async with worker(pooled.settings):
        await check_all_applied_once(pooled.deployment, ids)
    environment = {
        **pooled.deployment.environment,
        "DATABASE_URL": pooled.settings.database_url,
        "DATABASE_STATEMENT_CACHE": str(pooled.settings.database_statement_cache),
    }
    async with running(environment, tmp_path) as dashboard:
        health = await dashboard.get("/api/health")
        assert {each["name"] for each in health["dependencies"] if not each["ok"]} <= {"workers"}
        answers = await asyncio.gather(*(dashboard.get("/api/entities/orders") for _ in range(20)))
        assert {len(each["rows"]) for each in answers} == {30}
    endpoints = Endpoints("", pooled.settings.nats_url, "", pooled.settings.database_url)
    async with Pipeline(endpoints, load_schema("tpch"), spool=tmp_path / "spool") as pipeline:
        found = await asyncio.gather(*(pipeline.statuses.find(each) for each in ids.values()))
        assert all(each is not None and each.status == "completed" for each in found)
        assert await pipeline.audit.read() == []


async def test_setup_and_limits_of_a_call(pooled: Pooled) -> None:
    await set_up(pooled.settings, wait=10)
    database = Database(pooled.settings.database_url, application="test", seconds=0.3, read_only=True)
    try:
        with pytest.raises(DatabaseRefused, match="statement timeout"):
            await database.fetch("SELECT pg_sleep(5)")
        with pytest.raises(DatabaseRefused, match="read-only"):
            await database.fetch("DELETE FROM message_status")
    finally:
        await database.close()
    # Another client that gets the same connection of the pool has none of these limits.
    other = Database(pooled.settings.database_url, application="test", seconds=None)
    try:
        for _ in range(6):
            row = await other.fetch_row("SELECT current_setting('statement_timeout') AS limit")
            assert row is not None
            assert row["limit"] == "0"
        await other.fetch("DELETE FROM message_status")
    finally:
        await other.close()


async def test_statement_cache_with_transaction_pooling_is_named_in_the_reason(pooled: Pooled) -> None:
    if pooled.mode == "session":
        pytest.skip("prepared statements stay on their connection")
    settings = msgspec.structs.replace(pooled.settings, database_statement_cache=100)
    await publish_orders(pooled.deployment, range(500))
    async with worker(settings, batch_size=5) as one, worker(settings, batch_size=5) as other:
        reasons: set[str] = set()

        async def advised() -> bool:
            for each in (one, other):
                reasons.add((await each.get("/ready")).json()["database"]["reason"] or "")
            return any("DATABASE_STATEMENT_CACHE" in each for each in reasons)

        await until(advised)
