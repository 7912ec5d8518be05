"""The parts of a pipeline as processes, with a proxy on each connection: started, paused, killed and started again."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import asyncpg
import nats
import psutil
from nats.aio.client import Client
from nats.errors import Error as NatsError

from nomnom.schema import load_schema
from nomnom.settings import SetupSettings
from nomnom.setup import set_up
from nomnom.streams import MAX_PAYLOAD
from nomnom_control.environments import Endpoints
from nomnom_control.environments.local.instance import any_port
from nomnom_control.environments.local.processes import ChildProcess
from nomnom_control.environments.local.servers import PostgresServer
from nomnom_control.errors import ControlError
from nomnom_control.session.pipeline import Pipeline
from tests.chaos.proxy import Proxy

ACK_WAIT = 3.0
"""Seconds; short, so that messages of a killed worker are delivered again soon."""
_START = 30.0
_POLL = 0.05
_COUNTED = """
CREATE TABLE applied (message_id uuid NOT NULL);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO applied VALUES (new.message_id); RETURN new; END $$;
CREATE TRIGGER noted AFTER INSERT OR UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION note();
"""


class PartError(Exception):
    """A part that does not start."""


class Part:
    """One part: a process and the processes that it starts."""

    def __init__(self, name: str, process: ChildProcess) -> None:
        self.name, self.process = name, process
        self.disturbed = asyncio.Lock()
        """Held by the fault of this part: one at a time."""

    async def start(self) -> None:
        """Start the process and wait until it is ready. Raises PartError."""
        await self._launch()
        try:
            async with asyncio.timeout(_START):
                while not await self.is_ready():
                    if self.process.exit_code is not None:
                        raise PartError(str(self.process.failure()))
                    await asyncio.sleep(_POLL)
        except TimeoutError:
            raise PartError(f"{self.name} was not ready within {_START:g} s{self.process.problems()}") from None

    async def _launch(self) -> None:
        await self.process.start()

    async def is_ready(self) -> bool:
        """Whether the part accepts connections."""
        raise NotImplementedError

    @property
    def running(self) -> bool:
        """Whether the process runs (or is paused)."""
        return self.process.pid is not None

    def processes(self) -> list[psutil.Process]:
        """The process and its children."""
        if self.process.pid is None:
            return []
        try:
            main = psutil.Process(self.process.pid)
            return [main, *main.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def signal_all(self, number: signal.Signals) -> None:
        """Send a signal to all processes of the part."""
        for each in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                each.send_signal(number)

    async def kill(self) -> None:
        """End all processes of the part with SIGKILL, and wait until they are gone."""
        ended = self.processes()
        self.signal_all(signal.SIGKILL)
        if ended:
            await self.process.wait()
            await asyncio.to_thread(psutil.wait_procs, ended, timeout=10)

    async def stop(self) -> None:
        """End the process as its supervisor does."""
        self.signal_all(signal.SIGCONT)
        await self.process.stop(30)


class NatsNode(Part):
    """nats-server. ``sync`` is the sync_interval; ``peers`` are the cluster ports of a cluster, its own first.

    Its configuration is written here: the local environment's server does not run in a cluster.
    """

    def __init__(self, folder: Path, logs: Path, name: str = "nats", sync: str = "always") -> None:
        self.folder, self.sync = folder, sync
        self.port, self.cluster_port = any_port(), any_port()
        self.peers: list[int] = []
        program = Path(sys.executable).with_name("nats-server")
        super().__init__(
            name, ChildProcess(name, [str(program), "-c", str(folder / "nats.conf")], logs / f"{name}.log")
        )

    @property
    def url(self) -> str:
        """The URL without a proxy."""
        return f"nats://127.0.0.1:{self.port}"

    async def _launch(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        lines = [
            f'listen: "127.0.0.1:{self.port}"',
            f'server_name: "{self.name}"',
            f"max_payload: {MAX_PAYLOAD}",
            # As in the local environment, not what is free on the disk.
            f"jetstream {{ store_dir: {json.dumps(str(self.folder / 'data'))}, sync_interval: {self.sync}, "
            "max_file_store: 16G }",
        ]
        if self.peers:
            routes = ", ".join(f'"nats://127.0.0.1:{each}"' for each in self.peers)
            # Clients must not learn the addresses beside the proxies.
            lines.append(
                f'cluster {{ name: chaos, listen: "127.0.0.1:{self.cluster_port}", no_advertise: true, '
                f"routes: [{routes}] }}"
            )
        (self.folder / "nats.conf").write_text("\n".join([*lines, ""]))
        await super()._launch()

    async def is_ready(self) -> bool:
        """Whether the server accepts clients, and JetStream responds unless it is in a cluster."""
        try:
            client = await connect_nats(self.url)
        except (OSError, NatsError, TimeoutError):
            return False
        try:
            if not self.peers:
                await client.jetstream(timeout=2).account_info()
        except (NatsError, TimeoutError):
            return False
        finally:
            await client.close()
        return True


class Postgres(Part):
    """PostgreSQL as the local environment starts it; ``options`` replace its parameters."""

    def __init__(self, folder: Path, logs: Path, options: Mapping[str, str] | None = None) -> None:
        self.server = PostgresServer(folder, any_port(), logs / "postgres.log", options=dict(options or {}))
        super().__init__("postgres", self.server.process)

    async def start(self) -> None:
        """Start; after a kill, PostgreSQL refuses while processes of the last run still exist."""
        try:
            async with asyncio.timeout(_START):
                while True:
                    try:
                        await self.server.start()
                    except (ControlError, asyncpg.PostgresError, ConnectionError) as error:
                        if "pre-existing shared memory" not in str(error) and "lock file" not in str(error):
                            raise PartError(str(error)) from error
                        await asyncio.sleep(0.2)
                    else:
                        return
        except TimeoutError:
            raise PartError(f"PostgreSQL was not ready within {_START:g} s{self.process.problems()}") from None

    def sessions(self) -> list[psutil.Process]:
        """Processes of sessions, which a fault may kill without the server."""
        found: list[psutil.Process] = []
        for each in self.processes()[1:]:
            with contextlib.suppress(psutil.NoSuchProcess):  # it ended meanwhile
                if "127.0.0.1(" in " ".join(each.cmdline()):
                    found.append(each)
        return found


class Service(Part):
    """A Python process of nomnom with a health port."""

    def __init__(self, name: str, arguments: list[str], port: int, logs: Path, variables: Mapping[str, str]) -> None:
        self.port = port
        environment = {**variables, "LOG_FORMAT": "json", "PYTHONPATH": os.pathsep.join(sys.path)}
        super().__init__(name, ChildProcess(name, [sys.executable, *arguments], logs / f"{name}.log", environment))

    async def is_ready(self) -> bool:
        """Whether the port accepts connections; servers may be unavailable to it."""
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        writer.close()
        return True


@dataclass
class Plan:
    """What the pipeline consists of, and its protections."""

    folder: Path
    """Logs and, unless ``store`` is set, the data."""
    store: Path | None = None
    apis: int = 2
    workers: int = 2
    housekeepers: int = 1
    max_age: float = 86_400.0
    """Seconds after which a message that no worker has processed expires."""
    nodes: int = 1
    sync: str = "always"
    """sync_interval of nats-server."""
    postgres: dict[str, str] = field(default_factory=dict[str, str])
    prelude: str = ""
    """Python code that each worker executes first; a control breaks a worker with it."""
    variables: dict[str, dict[str, str]] = field(default_factory=dict[str, dict[str, str]])
    """More environment variables, by the name of the part."""
    nats_store: Path | None = None
    """Where nats-server stores its data, if not in the store."""
    postgres_store: Path | None = None


class Parts:
    """All parts of one pipeline, from setup to the end; an asynchronous context manager."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        store, logs = plan.store or plan.folder, plan.folder / "logs"
        names = ["nats"] if plan.nodes == 1 else [f"nats{each}" for each in range(plan.nodes)]
        self.nodes = [NatsNode((plan.nats_store or store) / each, logs, each, plan.sync) for each in names]
        if plan.nodes > 1:
            for each in self.nodes:
                each.peers = [other.cluster_port for other in self.nodes]
        self.postgres = Postgres((plan.postgres_store or store) / "postgres", logs, plan.postgres)
        self.links: dict[str, Proxy] = {}
        """The proxies by name: <client>-<server>."""
        self.services: list[Service] = []
        self._logs = logs

    @property
    def apis(self) -> list[Service]:
        """The API processes."""
        return [each for each in self.services if each.name.startswith("api")]

    @property
    def workers(self) -> list[Service]:
        """The worker processes."""
        return [each for each in self.services if each.name.startswith("worker")]

    @property
    def servers(self) -> list[Part]:
        """nats-server and PostgreSQL."""
        return [*self.nodes, self.postgres]

    @property
    def all(self) -> list[Part]:
        """All parts."""
        return [*self.servers, *self.services]

    def part(self, name: str) -> Part:
        """The part of this name."""
        return next(each for each in self.all if each.name == name)

    @property
    def nats_url(self) -> str:
        """The URL of nats-server without proxies."""
        return ",".join(each.url for each in self.nodes)

    @property
    def settings(self) -> SetupSettings:
        """The settings of setup."""
        return SetupSettings(
            nats_url=self.nats_url,
            database_url=self.postgres.server.url,
            nats_replicas=len(self.nodes),
            nats_ack_wait=ACK_WAIT,
            nats_max_age=self.plan.max_age,
        )

    async def __aenter__(self) -> Self:
        try:
            await self.start_servers()
            await set_up(self.settings)
            database = await asyncpg.connect(self.postgres.server.url)
            try:
                if await database.fetchval("SELECT to_regclass('applied')") is None:
                    await database.execute(_COUNTED)
            finally:
                await database.close()
            await self._create_services()
            await asyncio.gather(*(each.start() for each in self.services))
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End everything, services first."""
        for group in (self.services, self.servers):
            await asyncio.gather(*(each.stop() for each in group))
        for each in self.links.values():
            await each.close()

    async def start_servers(self) -> None:
        """Start nats-server and PostgreSQL."""
        await asyncio.gather(*(each.start() for each in self.servers))

    async def kill_all(self) -> None:
        """End all processes with SIGKILL."""
        await asyncio.gather(*(each.kill() for each in self.all))

    async def restore(self) -> None:
        """Remove all faults: open the links, continue what is paused, start what does not run."""
        for link in self.links.values():
            link.stop_point = None
            await link.change(link.mode.OPEN)
        for part in self.all:
            part.signal_all(signal.SIGCONT)
        for group in (self.servers, self.services):
            await asyncio.gather(*(each.start() for each in group if not each.running))

    async def link(self, name: str, protocol: str, target: int) -> Proxy:
        """The proxy of this name, started at its first use."""
        if name not in self.links:
            self.links[name] = Proxy(protocol, target)
            await self.links[name].start()
        return self.links[name]

    async def nats_link(self, client: str) -> str:
        """The URL of nats-server through proxies of this client's own."""
        links = [await self.link(f"{client}-{each.name}", "nats", each.port) for each in self.nodes]
        return ",".join(f"nats://127.0.0.1:{each.port}" for each in links)

    async def postgres_link(self, client: str) -> str:
        """The URL of PostgreSQL through a proxy of this client's own."""
        link = await self.link(f"{client}-postgres", "postgres", self.postgres.server.port)
        return self.postgres.server.url.replace(f":{self.postgres.server.port}/", f":{link.port}/")

    async def session(self, client: str, spool: Path) -> Pipeline:
        """An operator's session through proxies of its own."""
        where = Endpoints(
            api="http://127.0.0.1:9",
            nats=await self.nats_link(client),
            nats_monitor="http://127.0.0.1:9",
            database=await self.postgres_link(client),
        )
        return Pipeline(where, load_schema("tpch"), self.settings.streams, actor="chaos@here", spool=spool)

    async def _create_services(self) -> None:
        for number in range(self.plan.apis):
            port = any_port()
            await self._add(
                f"api{number}",
                ["-m", "nomnom_api"],
                port,
                {"NOMNOM_API_HOST": "127.0.0.1", "NOMNOM_API_PORT": str(port), "NOMNOM_API_ACK_TIMEOUT": "2"},
            )
        code = f"{self.plan.prelude}\nfrom nomnom_worker.__main__ import main\nmain()\n"
        for number in range(self.plan.workers):
            port = any_port()
            given = {"WORKER_HEALTH_HOST": "127.0.0.1", "WORKER_HEALTH_PORT": str(port)}
            timing = {"RETRY_BACKOFF": "0.05", "RETRY_BACKOFF_MAX": "0.2", "DATABASE_TIMEOUT": "5"}
            await self._add(f"worker{number}", ["-c", code], port, {**given, **timing})
        for number in range(self.plan.housekeepers):
            port = any_port()
            given = {"HOUSEKEEPER_HEALTH_HOST": "127.0.0.1", "HOUSEKEEPER_HEALTH_PORT": str(port)}
            await self._add(
                f"housekeeper{number}", ["-m", "nomnom_housekeeper"], port, {**given, "HOUSEKEEPER_INTERVAL": "0.5"}
            )

    async def _add(self, name: str, arguments: list[str], port: int, given: dict[str, str]) -> None:
        variables = {
            "NATS_URL": await self.nats_link(name),
            "DATABASE_URL": await self.postgres_link(name),
            **given,
            **self.plan.variables.get(name, {}),
        }
        self.services.append(Service(name, arguments, port, self._logs, variables))


async def connect_nats(url: str) -> Client:
    """A client that does not reconnect. Raises OSError or nats.errors.Error."""
    return await nats.connect(
        url.split(","),
        allow_reconnect=False,
        max_reconnect_attempts=1,
        reconnect_time_wait=0,
        connect_timeout=2,
        error_cb=_ignore,
    )


async def _ignore(_: Exception) -> None:
    """Errors are raised by the calls, too."""
