"""nomnom's own processes in one instance: start, replace, stop, and restart after an unexpected exit."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from nomnom.retry import RetryPolicy
from nomnom.telemetry import logger
from nomnom_control.environments import WORKER
from nomnom_control.environments.local.instance import Instance, any_port
from nomnom_control.environments.local.processes import ChildProcess
from nomnom_control.errors import ControlError
from nomnom_control.http_client import HttpClient, HttpError

_log = logger(__name__)
_RESTART = RetryPolicy(first=0.5, longest=15.0)
_STABLE_AFTER = 60.0
_READY = 30.0
_GRACE = 30.0
_POLL = 0.05


@dataclass
class Service:
    """One process of nomnom: its command, its port and how often it was restarted."""

    component: str
    name: str
    port: int
    process: ChildProcess
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    restarts: int = 0
    failures: int = 0
    """Consecutive exits within a minute after the start; each doubles the delay of the next restart."""
    restart_at: float = 0.0
    stopping: bool = False


class Services:
    """The processes of all components. ``variables`` returns those of a component's process on a port."""

    def __init__(self, instance: Instance, variables: Callable[[str, int], Mapping[str, str]]) -> None:
        self._instance, self._variables = instance, variables
        self._services: dict[str, Service] = {}
        self._next_worker = 1

    def all(self) -> list[Service]:
        """Every service, including those that are stopping."""
        return list(self._services.values())

    def of(self, component: str) -> list[Service]:
        """A component's services, oldest first, without those that are stopping."""
        return [each for each in self._services.values() if each.component == component and not each.stopping]

    async def launch(self, component: str, port: int, name: str = "") -> Service:
        """Start a service and wait until it is ready. Raises ControlError or ProcessError."""
        command = [sys.executable, "-m", f"nomnom_{component}"]
        log, given = self._instance.log(component), self._variables(component, port)
        process = ChildProcess(name or component, command, log, given)
        service = self._services[process.name] = Service(component, process.name, port, process)
        await process.start()
        await _wait_until_ready(service)
        return service

    async def add_worker(self) -> Service:
        """Start one more worker; stop it again if it does not become ready. Raises like :meth:`launch`."""
        name, self._next_worker = f"{WORKER}-{self._next_worker}", self._next_worker + 1
        try:
            return await self.launch(WORKER, any_port(), name)
        except ControlError:
            await self.end(self._services[name])
            raise

    async def replace(self, service: Service) -> None:
        """Replace a service's process. A worker is stopped only after its successor is ready. Raises like launch."""
        if service.component == WORKER:
            await self.add_worker()
            await self.end(service)
        else:
            await self.end(service)
            await self.launch(service.component, service.port, service.name)

    async def end(self, service: Service) -> None:
        """Stop a service gracefully: it finishes its work in progress."""
        service.stopping = True
        await service.process.stop(_GRACE)
        self._services.pop(service.name, None)

    def kill(self) -> None:
        """Kill every process; unacknowledged messages are redelivered in the next run."""
        for each in self._services.values():
            each.stopping = True
            each.process.send(signal.SIGKILL)

    async def restart_exited(self) -> None:
        """Restart services that exited unexpectedly, with exponential backoff."""
        for each in list(self._services.values()):
            if each.stopping or each.process.exit_code is None:
                continue
            now = time.monotonic()
            if not each.restart_at:
                uptime = (datetime.now(UTC) - each.started_at).total_seconds()
                each.failures = 0 if uptime > _STABLE_AFTER else each.failures
                delay = _RESTART.wait(each.failures + 1)
                each.restart_at = now + delay
                _log.warning("process exited", process=each.name, exit_code=each.process.exit_code, restart_in=delay)
            elif now >= each.restart_at:
                each.restart_at, each.started_at = 0.0, datetime.now(UTC)
                each.restarts, each.failures = each.restarts + 1, each.failures + 1
                await each.process.start()


async def _wait_until_ready(service: Service) -> None:
    async with HttpClient(2) as client:
        try:
            async with asyncio.timeout(_READY):
                while not await _is_ready(client, service.port):
                    if service.process.exit_code is not None:
                        raise service.process.failure()
                    await asyncio.sleep(_POLL)
        except TimeoutError:
            reason = await _reason(client, service.port)
            text = f"{service.name} is not ready after {_READY:g} s: {reason}{service.process.problems()}"
            raise ControlError(text) from None


async def _reason(client: HttpClient, port: int) -> str:
    try:
        return (await client.get(f"http://127.0.0.1:{port}/ready")).text
    except HttpError as error:
        return f"no answer on port {port} ({error})"


async def _is_ready(client: HttpClient, port: int) -> bool:
    try:
        return (await client.get(f"http://127.0.0.1:{port}/ready")).status == 200
    except HttpError:
        return False
