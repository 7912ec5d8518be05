"""The housekeeper as a process on real servers: the lease, readiness, metrics, outages and the graceful stop."""

from __future__ import annotations

import signal
from pathlib import Path
from urllib.parse import urlsplit

from housekeeper_harness import PAST, housekeeper_process, set_ages, stored
from worker_harness import publish_orders, until

from conftest import Deployment
from nomnom.roles import Role
from nomnom.setup import set_up
from operator_session import bury

LOCKED = "SELECT pid FROM pg_stat_activity WHERE application_name = 'nomnom-housekeeper-lease' AND datname = $1"


async def lease_pids(deployment: Deployment) -> list[int]:
    """The backends of the lease connections."""
    name = urlsplit(deployment.settings.database_url).path.lstrip("/")
    return [row["pid"] for row in await deployment.database.fetch(LOCKED, name)]


async def until_moved(deployment: Deployment, dead_letters: int) -> None:
    async def moved() -> bool:
        return len(await stored(deployment, deployment.streams.dead_stream)) == dead_letters

    await until(moved, 30, "dead letters")


async def test_one_acts_and_another_stands_by_until_it_is_killed(deployment: Deployment, tmp_path: Path) -> None:
    await set_ages(deployment, messages=PAST)
    async with housekeeper_process(deployment, tmp_path / "one.log") as one:
        await one.until_role("active")
        async with housekeeper_process(deployment, tmp_path / "other.log") as other:
            await other.until_role("standing by")
            assert (await other.get("/ready")).status_code == 200
            assert "nomnom_housekeeper_active 0.0" in (await other.get("/metrics")).text
            assert "nomnom_housekeeper_active 1.0" in (await one.get("/metrics")).text
            one.process.send(signal.SIGKILL)
            await other.until_role("active")
            await publish_orders(deployment, range(3))
            await until_moved(deployment, 3)


async def test_lease_is_acquired_again_after_its_connection_was_lost(deployment: Deployment, tmp_path: Path) -> None:
    async with housekeeper_process(deployment, tmp_path / "one.log") as one:
        await one.until_role("active")
        before = await lease_pids(deployment)
        assert len(before) == 1
        await deployment.database.execute("SELECT pg_terminate_backend($1)", before[0])

        async def replaced() -> bool:
            return bool(await lease_pids(deployment)) and await lease_pids(deployment) != before

        await until(replaced, 20, "another lease connection")
        await one.until_role("active")
        await set_ages(deployment, messages=PAST)
        await publish_orders(deployment, range(3))
        await until_moved(deployment, 3)


async def test_metrics_of_retention(deployment: Deployment, tmp_path: Path) -> None:
    await set_ages(deployment, dead_letters=3600)
    await bury(deployment)
    await bury(deployment)
    async with housekeeper_process(deployment, tmp_path / "one.log") as one:
        await one.until_role("active")

        async def shown() -> bool:
            text = (await one.get("/metrics")).text
            return 'nomnom_housekeeper_expiring_messages{stream="MESSAGESDLQ"} 2.0' in text

        await until(shown, 20, "expiring dead letters")
        text = (await one.get("/metrics")).text
        assert 'nomnom_housekeeper_max_age_seconds{stream="MESSAGESDLQ"} 3600.0' in text
        assert 'nomnom_housekeeper_failing{task="tables"} 0.0' in text


async def test_role_has_the_privileges_that_the_housekeeper_needs(deployment: Deployment, tmp_path: Path) -> None:
    """Expiry, archive and partitions, with the privileges of the role alone."""
    parts = urlsplit(deployment.settings.database_url)
    name = f"{parts.path.lstrip('/')}_housekeeper"
    await set_up(deployment.settings, wait=5, roles=[Role("housekeeper", name, "password")])
    url = parts._replace(netloc=f"{name}:password@{parts.hostname}:{parts.port}").geturl()
    await deployment.database.execute("SELECT nomnom_add_partition('message_status', '2020-01-01', '2020-01-02')")
    await publish_orders(deployment, range(3))
    await set_ages(deployment, messages=PAST, dead_letters=PAST)
    async with housekeeper_process(deployment, tmp_path / "one.log", database_url=url) as one:
        await one.until_role("active")

        async def archived() -> bool:
            return await deployment.database.fetchval("SELECT count(*) FROM nomnom_archive") == 3

        async def dropped() -> bool:
            return await deployment.database.fetchval("SELECT to_regclass('message_status_20200101') IS NULL")

        await until(archived, 30, f"archived dead letters: {await one.state()}")
        await until(dropped, 30, f"a dropped partition: {await one.state()}")
        # Lost behind its back: only the account notices, with the same privileges.
        await deployment.database.execute(
            "DELETE FROM message_status WHERE message_id = (SELECT message_id FROM message_status LIMIT 1)"
        )

        async def named() -> bool:
            return await deployment.database.fetchval("SELECT count(*) FROM nomnom_unexplained") == 1

        await until(named, 60, f"an unexplained message: {await one.state()}")
        assert (await one.state())["status"] == "ready", await one.state()


async def test_outage_is_reported_and_ends(deployment: Deployment, tmp_path: Path) -> None:
    """A missing table stands for any failure of a task."""
    await set_ages(deployment, messages=PAST)
    async with housekeeper_process(deployment, tmp_path / "one.log") as one:
        await one.until_role("active")
        await deployment.database.execute("ALTER TABLE nomnom_expiring RENAME TO hidden")

        async def failing() -> bool:
            state = await one.state()
            return state["status"] == "not ready" and "nomnom_expiring" in state["tasks"]["reason"]

        await until(failing, 20, "a failing task")
        assert (await one.get("/health")).status_code == 200
        assert 'nomnom_housekeeper_failing{task="expiry"} 1.0' in (await one.get("/metrics")).text
        await deployment.database.execute("ALTER TABLE hidden RENAME TO nomnom_expiring")

        async def ready() -> bool:
            return (await one.get("/ready")).status_code == 200

        await until(ready, 20, "ready")


async def test_graceful_stop_releases_the_lease(deployment: Deployment, tmp_path: Path) -> None:
    async with housekeeper_process(deployment, tmp_path / "one.log") as one:
        await one.until_role("active")
        await one.process.stop(20)
        assert one.process.exit_code == 0
    assert await lease_pids(deployment) == []
    log = (tmp_path / "one.log").read_text()
    assert "housekeeper stopped" in log
    assert "Traceback" not in log


async def test_unavailable_servers_at_start(deployment: Deployment, tmp_path: Path) -> None:
    nowhere = {"nats_url": "nats://127.0.0.1:9", "database_url": "postgresql://postgres@127.0.0.1:9/nomnom"}
    async with housekeeper_process(deployment, tmp_path / "one.log", **nowhere) as one:

        async def reported() -> bool:
            state = await one.state()
            return bool(state) and not state["nats"]["ready"] and not state["database"]["ready"]

        await until(reported, 20, "not ready")
        assert (await one.get("/ready")).status_code == 503
        assert (await one.get("/health")).status_code == 200
