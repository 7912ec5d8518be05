"""Full disks: reported as such while they last, and healed without a person when there is room again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import httpx
import nats
import pytest
from api_harness import serving
from program_harness import Program, until
from worker_harness import publish_orders, worker
from worker_harness import until as until_async

from conftest import ORDER, free_port
from nomnom.settings import Settings
from nomnom.setup import set_up
from nomnom_control.environments.local.environment import LocalEnvironment
from nomnom_control.environments.local.servers import NatsServer, PostgresServer


@contextlib.contextmanager
def small_disk(folder: Path, mebibytes: int) -> Iterator[Path]:
    """A file system of a limited size at ``folder``; skips the test where mounting is not permitted."""
    folder.mkdir(parents=True, exist_ok=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m,mode=755", "tmpfs", str(folder)],
        check=False,
        capture_output=True,
        text=True,
    )
    if mounted.returncode != 0:
        pytest.skip(f"cannot mount a tmpfs: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Fill the disk of a folder; returns the file to remove."""
    file = folder / "filler"
    descriptor = os.open(file, os.O_CREAT | os.O_WRONLY)
    try:
        with contextlib.suppress(OSError):
            while True:
                os.write(descriptor, bytes(4096))
    finally:
        os.close(descriptor)
    return file


@pytest.fixture
def base() -> Iterator[Path]:
    """A folder that PostgreSQL's user can access."""
    folder = Path(tempfile.mkdtemp(prefix="nomnom-disk-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def health_of(nomnom: Program, component: str) -> tuple[str, str]:
    """Health and detail of a component, as ``nomnom status`` shows them."""
    [found] = [each for each in nomnom.read("status")["components"] if each["name"] == component]
    return found["health"], found["detail"]


def test_full_disk_of_nats_is_reported_and_heals(base: Path) -> None:
    nomnom = Program(base / "instance")
    store = nomnom.folder / "nats"
    with small_disk(store, 32):
        try:
            nomnom("up", "--detach")
            ends = asyncio.run(LocalEnvironment(nomnom.folder).endpoints())
            assert "completed" in nomnom("post", ORDER, "--wait")
            filler = fill(store)
            nomnom("post", "O|1|1|F|1.00|2024-01-01|a|b|1|" + "x" * 6000, code=None)
            until(lambda: health_of(nomnom, "nats")[0] == "failed")
            assert "no space left on device" in health_of(nomnom, "nats")[1]
            until(lambda: health_of(nomnom, "api")[0] != "healthy")
            ready = httpx.get(f"{ends.api}/ready")
            assert (ready.status_code, "no space left on device" in ready.text) == (503, True)
            page = httpx.get(f"{ends.dashboard}/api/health")
            assert (page.status_code, page.json()["status"]) == (503, "down")
            filler.unlink()
            until(lambda: "completed" in nomnom("post", ORDER, "--wait", code=None))
            until(lambda: health_of(nomnom, "nats")[0] == health_of(nomnom, "api")[0] == "healthy")
            assert httpx.get(f"{ends.dashboard}/api/health").json()["status"] != "down"
            assert "restarting nats-server" in (nomnom.folder / "logs" / "supervisor.log").read_text()
        finally:
            nomnom("down", code=None)


def test_full_disk_of_postgresql_is_reported_and_heals(base: Path) -> None:
    nomnom = Program(base / "instance")
    store = nomnom.folder / "postgres"
    with small_disk(store, 400):
        try:
            nomnom("up", "--detach", "--min", "1")
            assert "completed" in nomnom("post", ORDER, "--wait")
            filler = fill(store)
            until(lambda: health_of(nomnom, "postgres")[0] == "failed")
            until(lambda: health_of(nomnom, "worker")[0] != "healthy")
            ends = asyncio.run(LocalEnvironment(nomnom.folder).endpoints())
            page = httpx.get(f"{ends.dashboard}/api/health").json()
            assert page["status"] == "down"
            accepted = httpx.post(
                f"{ends.api}/api/ingest/message", content=ORDER, headers={"content-type": "text/plain"}
            )
            assert accepted.status_code == 202
            filler.unlink()
            until(lambda: nomnom.read("message", accepted.json()["message_id"], code=None)["status"] == "completed")
            until(lambda: health_of(nomnom, "postgres")[0] == health_of(nomnom, "worker")[0] == "healthy")
        finally:
            nomnom("down", code=None)


async def test_worker_reports_a_full_disk_steadily_and_completes_everything_after_it(base: Path) -> None:
    with small_disk(base / "postgres", 400) as store:
        nats_server = NatsServer(base / "nats", free_port(), free_port(), base / "nats.log")
        postgres = PostgresServer(store, free_port(), base / "postgres.log")
        await asyncio.gather(nats_server.start(), postgres.start())
        settings = Settings(nats_url=nats_server.url, database_url=postgres.url)
        await set_up(settings, wait=10)
        client, database = await nats.connect(nats_server.url), await asyncpg.connect(postgres.url)
        try:
            async with worker(settings) as running:
                await until_async(running.ready)
                filler = await asyncio.to_thread(fill, store)
                await until_async(lambda: _reason(running))

                class Deployment:
                    jetstream = client.jetstream(timeout=10)

                ids = await publish_orders(Deployment(), range(2000))  # type: ignore[arg-type]
                states = [(await _reason(running), await running.metric('outage{server="postgresql"}'))]
                for _ in range(60):
                    states.append((await _reason(running), await running.metric('outage{server="postgresql"}')))
                    await asyncio.sleep(0.05)
                assert {metric for _, metric in states} == {1}
                assert len({reason for reason, _ in states}) <= 2
                assert all(reason for reason, _ in states)
                filler.unlink()

                async def completed() -> bool:
                    query = "SELECT count(*) FROM message_status WHERE status = 'completed'"
                    return await database.fetchval(query) == len(ids)

                await until_async(completed, wait=60)
                await until_async(running.ready)
                assert await running.metric("dead_letters_total") == 0
        finally:
            await client.close()
            await database.close(timeout=2)
            await asyncio.gather(nats_server.stop(), postgres.stop())


async def _reason(running) -> str | None:
    return (await running.get("/ready")).json()["database"]["reason"]


async def test_api_without_a_monitoring_port_notices_missing_acknowledgments(base: Path) -> None:
    with small_disk(base / "nats", 32) as store:
        nats_server = NatsServer(store, free_port(), free_port(), base / "nats.log")
        postgres = PostgresServer(base / "postgres", free_port(), base / "postgres.log")
        await asyncio.gather(nats_server.start(), postgres.start())
        settings = Settings(nats_url=nats_server.url, database_url=postgres.url)
        try:
            await set_up(settings, wait=10)
            async with serving(settings, nomnom_api_ack_timeout=0.5) as api:
                assert (await api.post(ORDER)).status_code == 202
                filler = await asyncio.to_thread(fill, store)
                refused = await api.post("O|" + "x" * 6000)
                assert refused.status_code == 503
                assert not await api.ready()
                assert "has not acknowledged the last" in (await api.client.get("/ready")).text
                filler.unlink()
                await nats_server.stop()
                await nats_server.start()
                await until_async(api.ready)
                assert (await api.post(ORDER)).status_code == 202
        finally:
            await asyncio.gather(nats_server.stop(), postgres.stop())


async def test_probe_of_the_chart_fails_after_a_failed_write_only(base: Path) -> None:
    busybox = shutil.which("busybox")
    if busybox is None:
        pytest.skip("busybox, which the image of the chart has, is not installed")
    template = Path(__file__).parents[2] / "helm" / "nomnom" / "templates" / "nats" / "statefulset.yaml"
    [script] = re.findall(r'define "nomnom.natsProbe" -\}\}\n(.*)\n', template.read_text())
    (base / "nc").symlink_to(busybox)

    def probe() -> subprocess.CompletedProcess[str]:
        command = script.replace("8222", str(server.monitor_port)).replace("nc -w", f"{base}/nc -w")
        return subprocess.run([busybox, "sh", "-c", command], check=False, capture_output=True, text=True)

    with small_disk(base / "nats", 32) as store:
        server = NatsServer(store, free_port(), free_port(), base / "nats.log")
        assert (await asyncio.to_thread(probe)).returncode == 1
        await server.start()
        try:
            assert (await asyncio.to_thread(probe)).returncode == 0
            client = await nats.connect(server.url)
            jetstream = client.jetstream(timeout=1)
            await jetstream.add_stream(name="S", subjects=["s"])
            await asyncio.to_thread(fill, store)
            with pytest.raises(TimeoutError):
                await jetstream.publish("s", b"x" * 20_000)
            await client.close()
            failed = await asyncio.to_thread(probe)
            assert failed.returncode == 1
            assert "no space left on device" in failed.stdout
        finally:
            await server.stop()


def test_servers_restart_by_hand_and_the_reason_for_zero_workers_is_true(base: Path) -> None:
    nomnom = Program(base / "instance")
    try:
        nomnom("up", "--detach")
        for server in ("nats", "postgres"):
            nomnom("restart", server)
            until(lambda: "completed" in nomnom("post", ORDER, "--wait", code=None))
        nomnom("scale", "0")
        until(lambda: nomnom.read("scale")["actual"] == 0)
        nomnom("post", ORDER)
        until(lambda: health_of(nomnom, "worker") == ("stopped", "held at 0 by hand; lag 1"))
    finally:
        nomnom("destroy", "--yes", code=None)
