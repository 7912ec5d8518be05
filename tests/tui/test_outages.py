"""The screens on real servers and a real worker, also while a server is down."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import nats
import pytest
from textual.pilot import Pilot

from conftest import ORDER, free_port
from nomnom.envelope import headers, ingest_subject, new_message_id
from nomnom.schema import Schema, load_schema
from nomnom.settings import Settings
from nomnom.setup import set_up
from nomnom_control.environments import WORKER, Endpoints
from nomnom_control.environments.local.processes import ChildProcess
from nomnom_control.environments.local.servers import NatsServer, PostgresServer
from nomnom_tui.app.application import NomnomApp
from nomnom_tui.app.preferences import Preferences
from nomnom_tui.app.session import Session
from nomnom_tui.screens.overview import OverviewView
from nomnom_tui.screens.workers import WorkersView
from nomnom_tui.widgets.pipeline_diagram import PipelineDiagram
from tui.fakes import FakeEnvironment
from tui.test_shell import until

BROKEN = ORDER.replace("2024-01-01", "2024-13-01")


@dataclass
class Harness:
    """Separate servers for this module, because they are killed, and a worker."""

    nats: NatsServer
    postgres: PostgresServer
    worker: ChildProcess
    health_port: int

    async def publish(self, *payloads: str) -> None:
        """Publish like the API does."""
        client = await nats.connect(self.nats.url)
        for payload in payloads:
            message_id = new_message_id()
            await client.jetstream().publish(
                ingest_subject("orders", message_id),
                payload.encode(),
                headers=headers(1_700_000_000_000_000, message_id),
            )
        await client.close()


class ServersEnvironment(FakeEnvironment):
    """The harness's servers and its worker's metrics; components and scaling are fake."""

    def __init__(self, harness: Harness) -> None:
        super().__init__()
        self.harness = harness

    async def endpoints(self) -> Endpoints:
        monitor, database = self.harness.nats.monitor_url, self.harness.postgres.url
        return Endpoints("http://127.0.0.1:9", self.harness.nats.url, monitor, database)

    async def schema(self) -> Schema:
        return load_schema("tpch")

    async def metrics(self, component: str) -> dict[str, str]:
        assert component == WORKER
        async with httpx.AsyncClient() as client:
            response = await client.get(f"http://127.0.0.1:{self.harness.health_port}/metrics")
        return {"worker-1": response.text}


@pytest.fixture(scope="module")
async def harness(server_folder: Path) -> AsyncIterator[Harness]:
    folder = server_folder / "outages"
    folder.mkdir(mode=0o755)
    broker = NatsServer(folder / "nats", free_port(), free_port(), folder / "nats.log")
    postgres = PostgresServer(folder / "postgres", free_port(), folder / "postgres.log")
    await asyncio.gather(broker.start(), postgres.start())
    await set_up(Settings(nats_url=broker.url, database_url=postgres.url), wait=10)
    port = free_port()
    worker = ChildProcess(
        "worker",
        [sys.executable, "-m", "nomnom_worker"],
        folder / "worker.log",
        {
            "NATS_URL": broker.url,
            "DATABASE_URL": postgres.url,
            "WORKER_HEALTH_HOST": "127.0.0.1",
            "WORKER_HEALTH_PORT": str(port),
            "RETRY_BACKOFF": "0.05",
        },
    )
    await worker.start()
    yield Harness(broker, postgres, worker, port)
    await worker.stop(10)
    await asyncio.gather(broker.stop(), postgres.stop())


@asynccontextmanager
async def opened(harness: Harness) -> AsyncIterator[tuple[NomnomApp, Pilot[int]]]:
    app = NomnomApp(Session(ServersEnvironment(harness)), Preferences(Path("tui.toml")))
    async with app.run_test(size=(120, 30)) as pilot:
        yield app, pilot


def alerts(app: NomnomApp) -> str:
    """Return the alerts of the overview."""
    view = app.screen
    assert isinstance(view, OverviewView)
    return "\n".join(each.text for each in view._alerts.rows)


async def test_overview_shows_processed_messages(harness: Harness) -> None:
    async with opened(harness) as (app, _):
        view = app.screen
        assert isinstance(view, OverviewView)
        await until(lambda: view._last, 15)
        await harness.publish(*(ORDER.replace("|123|", f"|{key}|") for key in range(200)), BROKEN)
        await until(lambda: "1 dead letter, oldest" in alerts(app), 15)
        await until(lambda: "200 complete" in view.query_one(PipelineDiagram).render().plain, 15)
        assert any((each.accepted or 0) > 0 for each in view._samples)
        assert view._last is not None
        assert view._last.lag == 0


async def test_worker_rates_come_from_its_metrics(harness: Harness) -> None:
    async with opened(harness) as (app, pilot):
        await pilot.press("6")
        view = app.screen
        assert isinstance(view, WorkersView)
        await until(lambda: "worker-1" in view._rates, 15)
        await harness.publish(*(ORDER.replace("|123|", f"|{key}|") for key in range(500, 900)))
        await until(lambda: (view._rates["worker-1"].rate or 0) > 0, 15)
        assert (view._rates["worker-1"].batch or 0) >= 1
        assert view._rates["worker-1"].errors >= 3, "the invalid record of the previous test failed three times"


@pytest.mark.parametrize("server", ["nats", "postgres"])
async def test_stopped_server_is_shown_and_recovers(harness: Harness, server: str) -> None:
    async with opened(harness) as (app, pilot):
        view = app.screen
        assert isinstance(view, OverviewView)
        await until(lambda: view._last, 15)
        stopped = harness.nats if server == "nats" else harness.postgres
        name = "NATS" if server == "nats" else "PostgreSQL"
        await stopped.stop()
        await until(lambda: name in alerts(app), 20)
        await pilot.press("1", "6", "8", "question_mark", "escape", "2")
        assert app.screen is view, "keys work meanwhile"
        await stopped.start()
        await until(lambda: name not in alerts(app), 20)
