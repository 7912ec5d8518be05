"""Real servers for the tests, from their wheels: one pair per test run, a new deployment per test."""

from __future__ import annotations

import shutil
import signal
import socket
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import nats
import pytest
from nats.aio.client import Client
from nats.js import JetStreamContext

from nomnom.settings import Settings
from nomnom.settings.streams import StreamSettings
from nomnom.setup import set_up
from nomnom_control.environments.local.servers import NatsServer, PostgresServer

# Shells start background jobs with SIGINT ignored, which the processes started by the tests would inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)

ORDER = "O|123|456|F|123.45|2024-01-01|urgent|clerk1|1|comment"
LINE = "OLI|1|789|1|100|123.45|0.05|0.07|N|O|2024-01-01|2024-01-02|2024-01-03|DELIVER|SHIP|test"


def free_port() -> int:
    """A free TCP port on loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def server_folder() -> Iterator[Path]:
    """A folder that PostgreSQL's user can access, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="nomnom-tests-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def open_folder(server_folder: Path) -> Path:
    """A new folder that PostgreSQL's user can access."""
    folder = server_folder / uuid.uuid4().hex[:12]
    folder.mkdir(mode=0o755)
    return folder


@pytest.fixture(scope="session")
async def nats_server(server_folder: Path) -> AsyncIterator[NatsServer]:
    """The nats-server of the test run."""
    server = NatsServer(server_folder / "nats", free_port(), free_port(), server_folder / "nats.log")
    await server.start()
    yield server
    await server.stop()


@pytest.fixture(scope="session")
async def postgres_server(server_folder: Path) -> AsyncIterator[PostgresServer]:
    """The PostgreSQL server of the test run."""
    server = PostgresServer(server_folder / "postgres", free_port(), server_folder / "postgres.log")
    await server.start()
    yield server
    await server.stop()


@dataclass(frozen=True)
class Deployment:
    """New streams and a new database on the servers of the test run, after ``nomnom setup``."""

    settings: Settings
    client: Client
    jetstream: JetStreamContext
    database: asyncpg.Connection

    @property
    def streams(self) -> StreamSettings:
        return self.settings.streams

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables of services of this deployment."""
        return {
            "NATS_URL": self.settings.nats_url,
            "DATABASE_URL": self.settings.database_url,
            "NOMNOM_SCHEMA": self.settings.nomnom_schema,
        }


@pytest.fixture
async def deployment(nats_server: NatsServer, postgres_server: PostgresServer) -> AsyncIterator[Deployment]:
    """A new deployment of the tpch schema; streams and database are deleted afterwards."""
    name = f"t{uuid.uuid4().hex[:12]}"
    admin = await asyncpg.connect(postgres_server.url)
    await admin.execute(f'CREATE DATABASE "{name}"')
    url = postgres_server.url.rpartition("/")[0] + f"/{name}"
    settings = Settings(nats_url=nats_server.url, database_url=url)
    await set_up(settings, wait=10)
    client = await nats.connect(nats_server.url)
    database = await asyncpg.connect(url)
    jetstream = client.jetstream(timeout=10)
    try:
        yield Deployment(settings, client, jetstream, database)
    finally:
        await database.close()
        for stream in (settings.streams.stream, settings.streams.dead_stream):
            await jetstream.delete_stream(stream)
        await client.close()
        await admin.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
        await admin.close()
