"""The harness of the housekeeper's tests: maximum ages that have passed, tasks in this process, and whole processes."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import msgspec
from nats.js.api import RawStreamMsg
from worker_harness import until

from conftest import Deployment, free_port
from nomnom.connections.nats import NatsConnection
from nomnom.connections.postgres import Database
from nomnom.inspection.jetstream import JetStream
from nomnom.inspection.jetstream.messages import read_batch
from nomnom.schema import load_schema
from nomnom.settings import HousekeeperSettings, Settings
from nomnom.streams import dead_stream, message_stream
from nomnom_control.environments.local.processes import ChildProcess
from nomnom_housekeeper.archive import DeadLetterArchive
from nomnom_housekeeper.expiry import Candidate, MessageExpiry
from nomnom_housekeeper.metrics import Metrics
from nomnom_housekeeper.tables import Tables

PAST = 0.001
"""A maximum age in seconds that every message has passed."""


async def set_ages(deployment: Deployment, messages: float = 86_400, dead_letters: float = 604_800) -> None:
    """Set the maximum ages without a confirmation."""
    settings = dataclasses.replace(deployment.streams, max_age=messages, dead_max_age=dead_letters)
    for config in (message_stream(settings), dead_stream(settings)):
        await deployment.jetstream.update_stream(config)


@dataclass
class Tasks:
    """The tasks of a housekeeper on a deployment."""

    nats: NatsConnection
    database: Database
    expiry: MessageExpiry
    archive: DeadLetterArchive
    tables: Tables
    metrics: Metrics


@asynccontextmanager
async def tasks(deployment: Deployment, batch: int = 200, **changes: Any) -> AsyncIterator[Tasks]:
    """The tasks of a housekeeper, without its process; ``changes`` replace settings."""
    settings = housekeeper_settings(deployment.settings, **changes)
    nats = NatsConnection(settings.nats_url, "test", timeout=2)
    database, metrics = Database(settings.database_url, application="test"), Metrics()
    try:
        yield Tasks(
            nats,
            database,
            MessageExpiry(
                nats, database, settings.streams, metrics, schema=load_schema(settings.nomnom_schema), batch=batch
            ),
            DeadLetterArchive(nats, database, settings.streams, metrics, batch),
            Tables(database, settings, metrics),
            metrics,
        )
    finally:
        await nats.close()
        await database.close()


async def candidates(tasks: Tasks, deployment: Deployment) -> list[Candidate]:
    """The messages of the stream as candidates for expiry."""
    report = await JetStream(tasks.nats).stream(deployment.streams.stream)
    assert report.ts is not None
    return await tasks.expiry.find(report, report.state.first_seq, report.ts)


async def stored(deployment: Deployment, stream: str) -> list[RawStreamMsg]:
    """The messages of a stream."""
    state = (await deployment.jetstream.stream_info(stream)).state
    nats = NatsConnection(deployment.settings.nats_url, "test")
    try:
        found = (await read_batch(nats, stream, 1, 1000)).messages if state.messages else []
    finally:
        await nats.close()
    return [await deployment.jetstream.get_msg(stream, each.sequence) for each in found]


def housekeeper_settings(settings: Settings, **changes: Any) -> HousekeeperSettings:
    """The settings of a housekeeper on a deployment, with a free port on loopback and a short interval."""
    given: dict[str, Any] = {
        **msgspec.structs.asdict(settings),
        "housekeeper_interval": 0.05,
        "housekeeper_health_host": "127.0.0.1",
        "housekeeper_health_port": free_port(),
        **changes,
    }
    known = {each.name for each in msgspec.structs.fields(HousekeeperSettings)}
    return HousekeeperSettings(**{name: value for name, value in given.items() if name in known})


@dataclass
class Running:
    """A housekeeper process."""

    port: int
    process: ChildProcess

    async def get(self, path: str) -> httpx.Response:
        """Send a request to the health port."""
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.port}", timeout=5) as client:
            return await client.get(path)

    async def state(self) -> dict[str, Any]:
        """What /ready reports; empty before it listens."""
        try:
            return dict((await self.get("/ready")).json())
        except httpx.TransportError:
            return {}

    async def role(self) -> str:
        """The role that /ready reports."""
        return str((await self.state()).get("role"))

    async def until_role(self, role: str) -> None:
        """Wait for a role."""

        async def reached() -> bool:
            return (await self.role()).startswith(role)

        await until(reached, 40, role)


@asynccontextmanager
async def housekeeper_process(deployment: Deployment, log: Path, **changes: Any) -> AsyncIterator[Running]:
    """Run a housekeeper in its own process."""
    chosen = housekeeper_settings(deployment.settings, **changes)
    names = {each.name: each.encode_name for each in msgspec.structs.fields(HousekeeperSettings)}
    environment = {names[name]: str(value) for name, value in msgspec.structs.asdict(chosen).items()}
    process = ChildProcess(
        "housekeeper",
        [sys.executable, "-m", "nomnom_housekeeper"],
        log,
        {**environment, "LOG_FORMAT": "json", "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    await process.start()
    try:
        yield Running(chosen.housekeeper_health_port, process)
    finally:
        await process.stop(30)
