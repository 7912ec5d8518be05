"""The supervisor: owns every process of one instance, starts and stops them in order, restarts what ends by itself."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

import httpx
import nats
from nats.aio.client import Client
from nats.errors import Error as NatsError

from nomnom.settings import Settings
from nomnom.setup import set_up
from nomnom.telemetry import logger
from nomnom_control.environment import WORKER, Progress, ScalingRule, Step
from nomnom_control.errors import ControlError
from nomnom_control.local.autoscaler import Autoscaler
from nomnom_control.local.channel import Tell, serve
from nomnom_control.local.instance import Instance, State, any_port, choose_ports
from nomnom_control.local.leftovers import stop_leftovers
from nomnom_control.local.processes import INSTANCE, ChildProcess
from nomnom_control.local.servers import NatsServer, PostgresServer

_log = logger(__name__)
_WATCH = 0.25
_RESTART = (0.5, 15.0)
_READY = 30.0
_GRACE = 30.0
_MAX_WORKERS = 64


@dataclass
class Service:
    """One process of nomnom: how it is started, where it answers, how often it ended by itself."""

    component: str
    name: str
    port: int
    process: ChildProcess
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    restarts: int = 0
    again_at: float = 0.0
    stopping: bool = False


class Supervisor:
    """Runs one instance until it is stopped."""

    state: State
    nats: NatsServer
    postgres: PostgresServer
    autoscaler: Autoscaler

    def __init__(self, instance: Instance, schema: str | None = None, ports: dict[str, int] | None = None) -> None:
        self.instance = instance
        self._schema, self._given = schema, ports or {}
        self.stopping = asyncio.Event()
        """Set when someone asked for the stop; whoever runs the supervisor waits for it."""
        self.samples: deque[dict[str, Any]] = deque(maxlen=900)
        self._servers: list[NatsServer | PostgresServer] = []
        self._client: Client | None = None
        self._server: asyncio.Server | None = None
        self._services: dict[str, Service] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._changing = asyncio.Lock()
        self._desired = 0
        self._lag: int | None = None
        self._decision = "not decided yet"
        self._decided_at: datetime | None = None
        self._next_worker = 1

    async def start(self, tell: Tell) -> None:
        """Bring everything up, telling each step. Raises ControlError or another NomnomError; then nothing is left."""
        self.instance.hold()
        try:
            await self._start(tell)
        except BaseException:
            await self.stop(lambda _: None)
            raise

    async def _start(self, tell: Tell) -> None:
        names = await self._step(tell, "clear leftovers", asyncio.to_thread(stop_leftovers, self.instance.folder))
        if names:
            tell(Progress("clear leftovers", Step.OUTPUT, f"ended {', '.join(names)} of a run that was killed"))
        self.state = self.instance.load()
        self.state.schema = self._schema or self.state.schema
        self.state.ports = choose_ports(self.state.ports, self._given)
        self.state.pid = os.getpid()
        for component in ("api", WORKER):
            if not self.state.revisions.get(component):
                self.state.revise(component, {}, "first start")
        self.instance.save(self.state)
        ports, mark = self.state.ports, {INSTANCE: str(self.instance.folder)}
        self.nats = NatsServer(
            self.instance.folder / "nats", ports["nats"], ports["nats_monitor"], self.instance.log("nats"), mark
        )
        self.postgres = PostgresServer(
            self.instance.folder / "postgres", ports["postgres"], self.instance.log("postgres"), mark
        )
        self._servers = [self.nats, self.postgres]
        self.autoscaler = Autoscaler(self.state.rule)
        await asyncio.gather(
            self._step(tell, "start nats-server", self.nats.start()),
            self._step(tell, "start PostgreSQL", self.postgres.start()),
        )
        settings = Settings(nats_url=self.nats.url, database_url=self.postgres.url, nomnom_schema=self.state.schema)
        for line in await self._step(tell, "set up streams and tables", set_up(settings)):
            tell(Progress("set up streams and tables", Step.OUTPUT, line))
        await self._step(tell, "start the api", self._launch("api", "api", ports["api"]))
        self._tasks = [asyncio.create_task(self._watch()), asyncio.create_task(self._autoscale())]
        self._server = await serve(self.instance.socket, self._handlers())

    async def stop(self, tell: Tell) -> None:
        """Bring everything down in order: api, workers, PostgreSQL, NATS. Data stay."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        api = [each for each in self._services.values() if each.component == "api"]
        workers = [each for each in self._services.values() if each.component == WORKER]
        for title, group in (("stop the api", api), ("stop the workers", workers)):
            if group:
                await self._step(tell, title, asyncio.gather(*(self._end(each) for each in group)))
        if self._client is not None:
            await self._client.close()
        for server in reversed(self._servers):
            await self._step(tell, f"stop {server.process.name}", server.stop())
        if self._server is not None:
            self._server.close()
            self.instance.socket.unlink(missing_ok=True)
        self.instance.release()

    async def _step(self, tell: Tell, title: str, work: Awaitable[Any]) -> Any:
        tell(Progress(title, Step.STARTED))
        started = time.monotonic()
        try:
            result = await work
        except Exception as error:
            tell(Progress(title, Step.FAILED, str(error), time.monotonic() - started))
            raise
        tell(Progress(title, Step.DONE, "", time.monotonic() - started))
        return result

    def _environment(self, component: str, port: int) -> dict[str, str]:
        prefix = {"api": "NOMNOM_API", WORKER: "WORKER_HEALTH"}[component]
        return {
            "NATS_URL": self.nats.url,
            "DATABASE_URL": self.postgres.url,
            "NOMNOM_SCHEMA": self.state.schema,
            "LOG_FORMAT": "json",
            INSTANCE: str(self.instance.folder),
            **self.state.settings(component),
            f"{prefix}_HOST": "127.0.0.1",
            f"{prefix}_PORT": str(port),
        }

    async def _launch(self, component: str, name: str, port: int) -> Service:
        """Start a service and wait until it says that it is ready."""
        command = [sys.executable, "-m", f"nomnom_{component}"]
        process = ChildProcess(name, command, self.instance.log(component), self._environment(component, port))
        service = self._services[name] = Service(component, name, port, process)
        await process.start()
        await self._ready(service)
        return service

    async def _ready(self, service: Service) -> None:
        async with httpx.AsyncClient(timeout=2) as client:
            try:
                async with asyncio.timeout(_READY):
                    while not await _is_ready(client, service.port):
                        if service.process.exit_code is not None:
                            raise service.process.failure()
                        await asyncio.sleep(0.05)
            except TimeoutError:
                raise ControlError(
                    f"{service.name} is not ready after {_READY:g} s: see {service.process.log}"
                ) from None

    async def _end(self, service: Service) -> None:
        service.stopping = True
        await service.process.stop(_GRACE)
        self._services.pop(service.name, None)

    async def _watch(self) -> None:
        """Start again what ended by itself, waiting longer each time."""
        while True:
            await asyncio.sleep(_WATCH)
            for each in list(self._services.values()):
                if each.stopping or each.process.exit_code is None:
                    continue
                now = time.monotonic()
                if not each.again_at:
                    wait = min(_RESTART[0] * 2**each.restarts, _RESTART[1])
                    each.again_at = now + wait
                    _log.warning("ended", process=each.name, code=each.process.exit_code, again_in=wait)
                elif now >= each.again_at:
                    each.again_at, each.restarts, each.started_at = 0.0, each.restarts + 1, datetime.now(UTC)
                    await each.process.start()
            for server in self._servers:
                if server.process.exit_code is not None:
                    _log.warning("ended", process=server.process.name, code=server.process.exit_code)
                    try:
                        await server.start()
                    except ControlError as error:
                        _log.error("not started again", process=server.process.name, error=str(error))
                        await asyncio.sleep(_RESTART[0])

    async def _autoscale(self) -> None:
        while True:
            self._lag = await self._read_lag()
            if self.state.held is None:
                decision = self.autoscaler.decide(self._lag, self._desired, time.monotonic())
                if decision.desired != self._desired or self._decided_at is None:
                    self._decided_at = datetime.now(UTC)
                self._desired, self._decision = decision.desired, decision.reason
            else:
                self._desired, self._decision = self.state.held, f"paused: held at {self.state.held} by hand"
            try:
                await self._apply()
            except ControlError as error:
                self._decision += f"; {error}"
                _log.error("workers not changed", error=str(error))
            workers = self._workers()
            self.samples.append(
                {"at": datetime.now(UTC), "lag": self._lag, "desired": self._desired, "actual": len(workers)}
            )
            await asyncio.sleep(self.state.rule.polling)

    async def _apply(self) -> None:
        async with self._changing:
            workers = self._workers()
            if self._desired > len(workers):
                missing = self._desired - len(workers)
                await asyncio.gather(*(self._add_worker() for _ in range(missing)))
            elif self._desired < len(workers):
                await asyncio.gather(*(self._end(each) for each in workers[self._desired :]))

    async def _add_worker(self) -> None:
        name, self._next_worker = f"{WORKER}-{self._next_worker}", self._next_worker + 1
        await self._launch(WORKER, name, any_port())

    def _workers(self) -> list[Service]:
        return [each for each in self._services.values() if each.component == WORKER and not each.stopping]

    async def _read_lag(self) -> int | None:
        try:
            if self._client is None or self._client.is_closed:
                self._client = await nats.connect(
                    self.nats.url, max_reconnect_attempts=-1, reconnect_time_wait=0.5, error_cb=_ignore
                )
            info = await self._client.jetstream(timeout=2).consumer_info("MESSAGES", "workers")
        except (OSError, NatsError):
            return None
        return (info.num_pending or 0) + (info.num_ack_pending or 0)

    # What other processes may ask for.

    def _handlers(self) -> dict[str, Callable[[dict[str, Any], Tell], Awaitable[Any]]]:
        return {
            "status": self._tell_status,
            "scaling": self._tell_scaling,
            "rule": self._set_rule,
            "scale": self._scale,
            "restart": self._restart,
            "configure": self._configure,
            "stop": self._ask_stop,
        }

    async def _tell_status(self, _: dict[str, Any], __: Tell) -> dict[str, Any]:
        servers = [("nats", self.nats), ("postgres", self.postgres)]
        return {
            "schema": self.state.schema,
            "ports": self.state.ports,
            "servers": {name: each.process.pid for name, each in servers},
            "desired": {"api": 1, WORKER: self._desired},
            "services": [
                {
                    "component": each.component,
                    "name": each.name,
                    "port": each.port,
                    "pid": each.process.pid,
                    "started_at": each.started_at,
                    "restarts": each.restarts,
                }
                for each in self._services.values()
            ],
        }

    async def _tell_scaling(self, _: dict[str, Any], __: Tell) -> dict[str, Any]:
        return {
            "rule": asdict(self.state.rule),
            "lag": self._lag,
            "desired": self._desired,
            "actual": len(self._workers()),
            "paused": self.state.held is not None,
            "decided_at": self._decided_at,
            "decision": self._decision,
            "samples": list(self.samples),
        }

    async def _set_rule(self, given: dict[str, Any], _: Tell) -> None:
        rule = ScalingRule(**given)
        if not 0 <= rule.minimum <= rule.maximum <= _MAX_WORKERS or rule.maximum < 1:
            raise ControlError(f"expected 0 <= minimum <= maximum <= {_MAX_WORKERS} and a maximum of at least 1")
        if rule.threshold < 1 or rule.cooldown < 0 or rule.polling < 0.1:
            raise ControlError("expected a threshold of at least 1, a cooldown from 0 s, polling from 0.1 s")
        self.state.rule = self.autoscaler.rule = rule
        self.instance.save(self.state)

    async def _scale(self, given: dict[str, Any], _: Tell) -> None:
        """``replicas``: hold that many; absent: hold the present number; ``auto``: let the rule decide."""
        if given.get("auto"):
            self.state.held = None
        else:
            replicas = int(given.get("replicas", self._desired))
            if not 0 <= replicas <= _MAX_WORKERS:
                raise ControlError(f"expected 0 to {_MAX_WORKERS} workers, found {replicas}")
            self.state.held = replicas
        self.instance.save(self.state)

    async def _restart(self, given: dict[str, Any], tell: Tell) -> None:
        component = given["component"]
        services = [each for each in self._services.values() if each.component == component]
        if not services:
            raise ControlError(f"no {component} runs: the api and the workers can be restarted")
        async with self._changing:
            for each in services:
                if component == WORKER:  # the new one is ready before the old one leaves
                    await self._step(tell, f"replace {each.name}", self._add_worker())
                    await self._end(each)
                else:
                    await self._step(tell, f"restart {each.name}", self._again(each))

    async def _again(self, service: Service) -> None:
        await self._end(service)
        await self._launch(service.component, service.name, service.port)

    async def _configure(self, given: dict[str, Any], tell: Tell) -> None:
        component = given["component"]
        if component not in ("api", WORKER):
            raise ControlError(f"{component} has no settings to roll out: the api and the workers have")
        self.state.revise(component, dict(given["settings"]), given["cause"])
        self.instance.save(self.state)
        if component == "api" or self._workers():
            await self._restart({"component": component}, tell)

    async def _ask_stop(self, _: dict[str, Any], __: Tell) -> int:
        self.stopping.set()
        return os.getpid()


async def _is_ready(client: httpx.AsyncClient, port: int) -> bool:
    try:
        return (await client.get(f"http://127.0.0.1:{port}/ready")).status_code == 200
    except httpx.HTTPError:
        return False


async def _ignore(_: Exception) -> None:
    """nats-py reports here, and raises, every failed attempt: what was raised is what gets handled."""
