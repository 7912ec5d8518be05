"""The supervisor: starts and stops every process of one instance in order, and restarts those that exit."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

from nomnom.scaling import LOCAL_LIMIT
from nomnom.settings import SERVICES, ProgramSettings, SetupSettings
from nomnom.setup import set_up
from nomnom.tasks import end
from nomnom.telemetry import logger
from nomnom_control.environments import HOUSEKEEPER, WORKER, Progress, Step
from nomnom_control.environments.local.channel import Report, serve
from nomnom_control.environments.local.checks import ServerChecks
from nomnom_control.environments.local.instance import Instance, State, any_port, choose_ports, is_free, starting
from nomnom_control.environments.local.leftovers import stop_leftovers
from nomnom_control.environments.local.processes import INSTANCE
from nomnom_control.environments.local.rotation import rotate_logs
from nomnom_control.environments.local.scaling import WorkerScaling
from nomnom_control.environments.local.servers import NatsServer, PostgresServer
from nomnom_control.environments.local.services import Services
from nomnom_control.environments.local.variables import component_variables, take_variables
from nomnom_control.errors import ControlError

_log = logger(__name__)
_WATCH = 0.25
_ROTATE = 10.0
_AGAIN = 0.5
_ATTEMPTS = 3


class Supervisor:
    """Runs one instance until it is stopped.

    ``schema``, ``ports`` (by name, as :func:`choose_ports` knows them) and ``policy`` (fields of the scaling policy)
    replace the saved values of an earlier run. Settings among this process's environment variables apply to this run.
    """

    state: State
    nats: NatsServer
    postgres: PostgresServer
    scaling: WorkerScaling
    checks: ServerChecks

    def __init__(
        self,
        instance: Instance,
        schema: str | None = None,
        ports: Mapping[str, int] | None = None,
        policy: Mapping[str, float] | None = None,
    ) -> None:
        self.instance = instance
        self._schema, self._given, self._policy = schema, dict(ports or {}), dict(policy or {})
        self._stopping = asyncio.Event()
        self._hurrying = asyncio.Event()
        self._servers: list[NatsServer | PostgresServer] = []
        self._changing = asyncio.Lock()  # held while a server is stopped or started on purpose
        self._services = Services(instance, self._variables)
        self._server: asyncio.Server | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def run(self, report: Report, ready: Callable[[], Awaitable[None]]) -> None:
        """Start everything, call ``ready``, and stop gracefully after :meth:`interrupt`.

        Raises AlreadyRunning, or ControlError or another NomnomError if the start fails; then everything is stopped.
        """
        self.instance.acquire()
        hurry = asyncio.create_task(self._hurry())
        try:
            if await self._until_stopping(self._start(report)) and await self._until_stopping(ready()):
                await self._stopping.wait()
        finally:
            await self._stop(report)
            await end(hurry)

    def interrupt(self) -> None:
        """Stop gracefully; on the second call, kill: unacknowledged messages are redelivered in the next run."""
        if self._stopping.is_set():
            self._hurrying.set()
        self._stopping.set()

    async def _until_stopping(self, work: Awaitable[None]) -> bool:
        """Run ``work`` unless it is interrupted, which cancels it; returns whether it finished."""
        doing, stopping = asyncio.ensure_future(work), asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait({doing, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ended = doing.done()
            await end(doing, stopping)
        if ended:
            doing.result()
        return ended

    async def _start(self, report: Report) -> None:
        names = await _step(report, "clear leftovers", asyncio.to_thread(stop_leftovers, self.instance.folder))
        if names:
            report(Progress("clear leftovers", Step.OUTPUT, f"stopped {', '.join(names)}, left over from a killed run"))
        async with starting():
            await self._start_servers(report)
        state = self.state
        self.checks = ServerChecks(self.nats, self.postgres, self._changing)
        self.scaling = WorkerScaling(self._services, state.policy, state.pinned, self.nats.url, state.streams)
        self._tasks = [
            asyncio.create_task(_run_forever(self._watch)),
            asyncio.create_task(_run_forever(self.checks.run)),
            asyncio.create_task(_run_forever(self.scaling.run)),
            asyncio.create_task(_run_forever(lambda: rotate_logs(self.instance.logs, _ROTATE))),
        ]
        self._server = await serve(self.instance.socket, self._handlers())

    async def _start_servers(self, report: Report) -> None:
        self.state = self._prepare_state()
        folder, ports, mark = self.instance.folder, self.state.ports, {INSTANCE: str(self.instance.folder)}

        self.nats = NatsServer(
            folder / "nats",
            ports["nats"],
            ports["nats_monitor"],
            self.instance.log("nats"),
            mark,
            sync_interval=ProgramSettings.from_environment().nomnom_nats_sync_interval,
        )
        self.postgres = PostgresServer(folder / "postgres", ports["postgres"], self.instance.log("postgres"), mark)
        self._servers = [self.nats, self.postgres]

        async def start_nats() -> None:
            self.nats.port, self.nats.monitor_port = ports["nats"], ports["nats_monitor"]
            await self.nats.start()

        async def start_postgres() -> None:
            self.postgres.port = ports["postgres"]
            await self.postgres.start()

        await asyncio.gather(
            self._start_on_free_ports(report, "start nats-server", start_nats, "nats", "nats_monitor"),
            self._start_on_free_ports(report, "start PostgreSQL", start_postgres, "postgres"),
        )
        addresses = {**self._addresses(), "NOMNOM_SCHEMA": self.state.schema}
        settings = SetupSettings.from_environment({**self.state.variables, **addresses})
        setting_up = set_up(settings, expire=settings.nomnom_setup_expire)
        for line in await _step(report, "set up streams and tables", setting_up):
            report(Progress("set up streams and tables", Step.OUTPUT, line))

        async def start_service(component: str) -> None:
            try:
                await self._services.launch(component, ports[component])
            except ControlError:
                for each in self._services.of(component):
                    await self._services.end(each)
                raise

        await asyncio.gather(
            self._start_on_free_ports(report, "start the API", partial(start_service, "api"), "api"),
            self._start_on_free_ports(
                report, "start the dashboard", partial(start_service, "dashboard"), "dashboard", "page"
            ),
            _step(report, "start the housekeeper", self._services.launch(HOUSEKEEPER, any_port())),
        )

    async def _start_on_free_ports(
        self, report: Report, title: str, start: Callable[[], Awaitable[None]], *names: str
    ) -> None:
        """Start something; if a port is in use by another program meanwhile, try again with a free one."""

        async def work() -> None:
            for attempt in range(_ATTEMPTS):
                try:
                    await start()
                except ControlError:
                    taken = [each for each in names if not is_free(self.state.ports[each]) and each not in self._given]
                    if not taken or attempt == _ATTEMPTS - 1:
                        raise
                else:
                    return
                for each in taken:
                    before, self.state.ports[each] = self.state.ports[each], any_port()
                    text = f"port {before} of {each} is in use by another program; using {self.state.ports[each]}"
                    report(Progress(title, Step.OUTPUT, text))
                self.instance.save(self.state)

        await _step(report, title, work())

    def _prepare_state(self) -> State:
        state = self.instance.load()
        take_variables(state, os.environ)
        state.schema = self._schema or os.environ.get("NOMNOM_SCHEMA") or state.schema
        state.policy = state.policy.changed(self._policy, LOCAL_LIMIT)
        state.ports = choose_ports(state.ports, self._given)
        state.pid = os.getpid()
        for component in SERVICES:
            if not state.revisions.get(component):
                state.revise(component, {}, "first start")
        self.instance.save(state)
        return state

    async def _stop(self, report: Report) -> None:
        """Stop everything in order: API, dashboard and housekeeper, workers, PostgreSQL, NATS. Data is kept."""
        await end(*self._tasks)
        self._tasks = []
        others = [each for each in self._services.all() if each.component != WORKER]
        workers = [each for each in self._services.all() if each.component == WORKER]
        groups = {"stop the API, the dashboard and the housekeeper": others, "stop the workers": workers}
        for title, group in groups.items():
            if group:
                await _step(report, title, asyncio.gather(*(self._services.end(each) for each in group)))
        for server in reversed(self._servers):
            await _step(report, f"stop {server.process.name}", server.stop())
        if self._server is not None:
            self._server.close()
            self.instance.socket.unlink(missing_ok=True)
        self.instance.release()

    async def _hurry(self) -> None:
        await self._hurrying.wait()
        self._services.kill()
        for server in self._servers:
            # SIGQUIT is PostgreSQL's immediate shutdown: the next start recovers from the WAL.
            server.process.send(signal.SIGQUIT if server is self.postgres else signal.SIGKILL)

    def _addresses(self) -> dict[str, str]:
        return {
            "NATS_URL": self.nats.url,
            "NATS_MONITOR_URL": self.nats.monitor_url,
            "DATABASE_URL": self.postgres.url,
        }

    def _variables(self, component: str, port: int) -> dict[str, str]:
        upper = component.upper()
        own = f"{upper}_HEALTH_PORT" if component in (WORKER, HOUSEKEEPER) else f"NOMNOM_{upper}_PORT"
        variables = component_variables(component, self.state, self._addresses())
        managed = {name: each.value for name, each in variables.managed.items() if each.value is not None}
        return {**variables.given, **managed, own: str(port), INSTANCE: str(self.instance.folder)}

    async def _watch(self) -> None:
        """Restart what exited unexpectedly."""
        while True:
            await asyncio.sleep(_WATCH)
            await self._services.restart_exited()
            for server in self._servers:
                if server.process.exit_code is not None and not self._changing.locked():
                    await self._restart_exited(server)

    async def _restart_exited(self, server: NatsServer | PostgresServer) -> None:
        async with self._changing:
            _log.warning("process exited", process=server.process.name, exit_code=server.process.exit_code)
            try:
                await server.start()
            except ControlError as error:
                _log.error("restart failed", process=server.process.name, error=str(error))
                await asyncio.sleep(_AGAIN)

    # Requests on the control channel

    def _handlers(self) -> dict[str, Callable[[dict[str, Any], Report], Awaitable[Any]]]:
        return {
            "status": self._status,
            "scaling": self._scaling,
            "history": self._history,
            "policy": self._set_policy,
            "scale": self._scale,
            "restart": self._restart,
            "configure": self._configure,
            "stop": self._request_stop,
        }

    async def _status(self, _: dict[str, Any], __: Report) -> dict[str, Any]:
        servers = [("nats", self.nats), ("postgres", self.postgres)]
        return {
            "schema": self.state.schema,
            "ports": self.state.ports,
            "servers": {
                name: {"pid": each.process.pid, "version": each.version, "problem": self.checks.problems.get(name)}
                for name, each in servers
            },
            "scaling": self.scaling.describe(),
            "desired": {"api": 1, "dashboard": 1, HOUSEKEEPER: 1, WORKER: self.scaling.desired},
            "services": [
                {
                    "component": each.component,
                    "name": each.name,
                    "port": each.port,
                    "pid": each.process.pid,
                    "started_at": each.started_at,
                    "restarts": each.restarts,
                }
                for each in self._services.all()
            ],
        }

    async def _scaling(self, _: dict[str, Any], __: Report) -> dict[str, Any]:
        return self.scaling.describe()

    async def _history(self, _: dict[str, Any], __: Report) -> list[dict[str, Any]]:
        return [asdict(each) for each in self.scaling.history()]

    async def _set_policy(self, given: dict[str, Any], _: Report) -> None:
        self.scaling.set_policy(self.scaling.policy.changed(given, LOCAL_LIMIT))
        self.state.policy = self.scaling.policy
        self.instance.save(self.state)

    async def _scale(self, given: dict[str, Any], _: Report) -> None:
        """``replicas``: pin that many; absent: pin the present number; ``auto``: let the policy decide."""
        self.scaling.pin(None if given.get("auto") else int(given.get("replicas", self.scaling.desired)))
        self.state.pinned = self.scaling.pinned
        self.instance.save(self.state)

    async def _restart(self, given: dict[str, Any], report: Report) -> None:
        component = str(given["component"])
        servers: dict[str, NatsServer | PostgresServer] = {"nats": self.nats, "postgres": self.postgres}
        if component in servers:
            async with self._changing:
                await _step(report, f"stop {component}", servers[component].stop())
                await _step(report, f"start {component}", servers[component].start())
            return
        if component not in SERVICES:
            names = ", ".join([*servers, *SERVICES])
            raise ControlError(f"{component} cannot be restarted in the local environment; {names} can")
        async with self.scaling.changing:
            for each in self._services.of(component):
                await _step(report, f"replace {each.name}", self._services.replace(each))

    async def _configure(self, given: dict[str, Any], report: Report) -> None:
        """Roll out new variables; if the component does not become ready, roll back to the previous revision."""
        component = str(given["component"])
        if component not in SERVICES:
            raise ControlError(f"{component} has no settings to roll out: {', '.join(SERVICES)} have")
        before = self.state.revision(component)
        revision = self.state.revise(component, dict(given["variables"]), given["cause"])
        self.instance.save(self.state)
        try:
            await self._restart({"component": component}, report)
        except ControlError as error:
            self.state.revise(component, before, f"rollback: revision {revision.number} did not become ready")
            self.instance.save(self.state)
            await self._restart({"component": component}, report)
            raise ControlError(f"revision {revision.number} was rolled back: {error}") from error

    async def _request_stop(self, _: dict[str, Any], __: Report) -> int:
        self.interrupt()
        return os.getpid()


async def _run_forever(work: Callable[[], Awaitable[None]]) -> None:
    """Run a task that never ends by itself. After an unexpected error, log it and start the task again."""
    while True:
        try:
            await work()
        except Exception:  # noqa: BLE001  (logged with its traceback; the pipeline must not lose its supervision)
            _log.exception("unexpected error; restarting the task")
        await asyncio.sleep(_AGAIN)


async def _step(report: Report, title: str, work: Awaitable[Any]) -> Any:
    report(Progress(title, Step.STARTED))
    started = time.monotonic()
    try:
        result = await work
    except BaseException as error:
        report(Progress(title, Step.FAILED, str(error) or "cancelled", time.monotonic() - started))
        raise
    report(Progress(title, Step.DONE, "", time.monotonic() - started))
    return result
