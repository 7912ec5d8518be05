"""The worker as a whole: its parts, started together and ended in order."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Coroutine
from typing import Any

from nomnom.schema import load_schema
from nomnom.tasks import end
from nomnom.telemetry import logger
from nomnom_worker.database import Session
from nomnom_worker.errors import AbandonedError, WorkerError
from nomnom_worker.health import State, listen, serve
from nomnom_worker.intake import Intake
from nomnom_worker.link import Link, nak
from nomnom_worker.metrics import Metrics
from nomnom_worker.pipeline import Pipeline
from nomnom_worker.settings import WorkerSettings

_log = logger(__name__)
_CHECK, _CHECK_AWAY = 5.0, 0.5
_CLOSING = 5.0


class Worker:
    """One worker process's parts."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._schema = load_schema(settings.nomnom_schema)
        self._metrics = Metrics()
        self._link = Link(settings, self._metrics)
        self._database = Session(settings, self._metrics)
        self._intake = Intake(settings, self._link, self._metrics)
        self._pipeline = Pipeline(
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
        """Whether the worker has been asked to end."""
        return self._stop.is_set()

    def stop(self) -> None:
        """Ask the worker to end: it finishes what it holds first."""
        self._stop.set()

    async def run(self) -> None:
        """Work until :meth:`stop`. Raises WorkerError where the health port cannot be had, or a part ends by itself."""
        settings = self._settings
        with listen(settings.worker_health_host, settings.worker_health_port) as listener:
            _log.info("worker starts", schema=self._schema.name, health=listener.getsockname()[1])
            health = _start("health port", serve(listener, self.alive, self.ready, self._metrics.registry))
            stages = [_start("prepare", self._pipeline.prepare()), _start("process", self._pipeline.process())]
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
                await self._hand_back()
                await end(health)

    def alive(self) -> State:
        """Whether the worker does anything at all: an outage is no reason to restart it."""
        stuck = self._pipeline.stuck
        return (
            {"status": "alive", "reason": None}
            if stuck is None
            else {"status": "stuck", "reason": f"the processing stage has not moved for {stuck:.0f} s"}
        )

    def ready(self) -> State:
        """Whether the worker can work, and what hinders it."""
        parts = {
            "nats": self._link.problem,
            "consumer": self._link.problem or self._intake.reason,
            "database": self._database.reason,
        }
        well = not any(parts.values())
        status = "stopping" if self._stop.is_set() else "ready" if well else "not ready"
        return {"status": status, **{name: {"ready": why is None, "reason": why} for name, why in parts.items()}}

    async def _finish(self, stages: list[asyncio.Task[None]]) -> None:
        """Take no more, process what is held, within the grace."""
        _log.info("worker stops", held=self._intake.held)
        self._pipeline.stop()
        self._intake.stop()
        try:
            async with asyncio.timeout(self._settings.shutdown_grace):
                await asyncio.gather(*stages)
        except AbandonedError as error:
            _log.warning("what is held goes back to the stream", held=self._intake.held, reason=str(error))
        except TimeoutError:
            grace = f"not done within {self._settings.shutdown_grace:g} s"
            _log.warning("what is held goes back to the stream", held=self._intake.held, reason=grace)

    async def _hand_back(self) -> None:
        """Give back what is held, and make sure that the servers have all that was said."""
        try:
            async with asyncio.timeout(_CLOSING):
                handed = await self._intake.release(nak())
                await self._link.close()
                await self._database.close()
        except TimeoutError:
            _log.warning("the connections were not closed in time: some messages may be delivered again")
        else:
            _log.info("worker stopped", handed_back=handed)

    async def _check(self) -> None:
        """Look at PostgreSQL now and then: while it is away nothing is fetched, though nothing is there to write."""
        while True:
            await self._database.check()
            there = self._database.reason is None
            if there:
                self._intake.resume()
            else:
                self._intake.pause()
            await asyncio.sleep(_CHECK if there else _CHECK_AWAY)


def _start(name: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    return asyncio.create_task(work, name=name)


def _ended(task: asyncio.Task[Any]) -> WorkerError:
    """The error of a part that was to run for as long as the worker."""
    error = task.exception()
    if isinstance(error, WorkerError):
        return error
    if error is not None:
        _log.critical("a part failed", part=task.get_name(), exc_info=error)
    return WorkerError(f"internal error: the part {task.get_name()!r} ended: {error!r}; what it held comes again")


async def run(settings: WorkerSettings) -> None:
    """Run a worker until SIGTERM or SIGINT; a second one ends it at once."""
    worker = Worker(settings)
    loop = asyncio.get_running_loop()
    this = asyncio.current_task()
    assert this is not None

    def stop() -> None:
        if worker.stopping:
            this.cancel()
        worker.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    with contextlib.suppress(asyncio.CancelledError):
        await worker.run()
