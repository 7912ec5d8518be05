"""The worker service: starts the components and stops them in order."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from datetime import datetime
from typing import Any

from nomnom.http.health import State, serve
from nomnom.http.server import listen
from nomnom.positions import register_stream
from nomnom.schema import load_schema
from nomnom.settings import WorkerSettings
from nomnom.tasks import end
from nomnom.telemetry import logger
from nomnom.termination import run_until_signal
from nomnom_worker.database import Session
from nomnom_worker.errors import AbandonedError, WorkerError
from nomnom_worker.intake import Intake
from nomnom_worker.link import Link, nak
from nomnom_worker.metrics import Metrics
from nomnom_worker.processor import Processor

_log = logger(__name__)
_CHECK, _CHECK_STOPPED, _CHECK_OUTAGE = 5.0, 1.0, 0.5
_CLOSING = 5.0


class Worker:
    """The components of one worker process."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._schema = load_schema(settings.nomnom_schema)
        self._metrics = Metrics()
        self._link = Link(settings, self._metrics)
        self._database = Session(settings, self._metrics)
        self._intake = Intake(settings, self._link, self._metrics, self._register)
        self._processor = Processor(
            settings,
            self._schema,
            database=self._database,
            intake=self._intake,
            link=self._link,
            metrics=self._metrics,
        )
        self._stop = asyncio.Event()

    @property
    def stopping(self) -> bool:
        """Whether the worker is stopping."""
        return self._stop.is_set()

    def stop(self) -> None:
        """Stop the worker gracefully: it finishes the messages it holds."""
        self._stop.set()

    async def run(self) -> None:
        """Run until :meth:`stop`.

        Raises SettingsError if the health port is in use, and WorkerError if a component fails.
        """
        settings = self._settings
        with listen("WORKER_HEALTH_PORT", settings.worker_health_host, settings.worker_health_port) as listener:
            _log.info("worker started", schema=self._schema.name, health=listener.getsockname()[1])
            health = _start("health port", serve(listener, self.alive, self.ready, self._metrics.registry))
            stages = [_start("prepare", self._processor.prepare()), _start("process", self._processor.process())]
            others = [
                _start("check", self._check()),
                _start("keep alive", self._intake.keep_alive()),
                _start("link", self._link.run(self._intake.session)),
            ]
            stop = asyncio.create_task(self._stop.wait())
            try:
                done, _ = await asyncio.wait([stop, health, *stages, *others], return_when=asyncio.FIRST_COMPLETED)
                if stop in done:
                    await self._finish(stages)
                else:
                    raise _ended(done.pop())
            finally:
                await end(stop, *stages, *others)
                await self._return_messages()
                await end(health)

    async def _register(self, created: datetime) -> int:
        stream = self._settings.nats_stream
        return await self._processor.persist(lambda connection: register_stream(connection, stream, created))

    def alive(self) -> State:
        """Liveness: whether processing makes progress; an outage is no reason for a restart."""
        stuck = self._processor.stuck
        return (
            {"status": "alive", "reason": None}
            if stuck is None
            else {"status": "stuck", "reason": f"no progress of the processing stage for {stuck:.0f} s"}
        )

    def ready(self) -> State:
        """Readiness: whether NATS, the consumer and PostgreSQL are available. With stopped entities: degraded."""
        parts = {
            "nats": self._link.problem,
            "consumer": self._link.problem or self._intake.reason,
            "database": self._database.reason,
        }
        available = not any(parts.values())
        parts["entities"] = self._processor.stops.reason
        working = "degraded" if self._processor.stops else "ready"
        status = "stopping" if self._stop.is_set() else working if available else "not ready"
        return {"status": status, **{name: {"ready": why is None, "reason": why} for name, why in parts.items()}}

    async def _finish(self, stages: list[asyncio.Task[None]]) -> None:
        """Stop receiving and process the messages held, within the shutdown grace period."""
        _log.info("worker stopping", held=self._intake.held)
        self._processor.stop()
        self._intake.stop()
        try:
            async with asyncio.timeout(self._settings.shutdown_grace):
                await asyncio.gather(*stages)
        except AbandonedError as error:
            _log.warning("returning messages to the stream", held=self._intake.held, reason=str(error))
        except TimeoutError:
            grace = f"not finished within {self._settings.shutdown_grace:g} s"
            _log.warning("returning messages to the stream", held=self._intake.held, reason=grace)

    async def _return_messages(self) -> None:
        """Return held messages to the stream, and close the connections after everything was sent."""
        try:
            async with asyncio.timeout(_CLOSING):
                returned = await self._intake.release(nak())
                await self._link.close()
                await self._database.close()
        except TimeoutError:
            _log.warning("connections not closed in time, expect redeliveries")
        else:
            _log.info("worker stopped", returned=returned)

    async def _check(self) -> None:
        """Check PostgreSQL regularly, and more often while it or a table is unavailable."""
        while True:
            await self._processor.check()
            if self._database.reason is not None:
                wait = _CHECK_OUTAGE
            else:
                wait = _CHECK_STOPPED if self._processor.stops else _CHECK
            await asyncio.sleep(wait)


def _start(name: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    return asyncio.create_task(work, name=name)


def _ended(task: asyncio.Task[Any]) -> WorkerError:
    """The error of a component that ended before the worker."""
    error = task.exception()
    if isinstance(error, WorkerError):
        return error
    if error is not None:
        _log.critical("component failed", task=task.get_name(), exc_info=error)
    return WorkerError(
        f"internal error: task {task.get_name()!r} ended unexpectedly: {error!r}; its messages will be redelivered"
    )


async def run(settings: WorkerSettings) -> None:
    """Run a worker until SIGTERM or SIGINT; a second signal stops it immediately."""
    await run_until_signal(Worker(settings))
