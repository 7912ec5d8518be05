"""The housekeeper service: does its tasks in turn while it holds the lease, otherwise it stands by."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import Any

from nomnom.account import Verifier
from nomnom.connections.errors import RequestError, Unavailable
from nomnom.connections.nats import NatsConnection
from nomnom.connections.postgres import Database
from nomnom.errors import NomnomError
from nomnom.http.health import State, serve
from nomnom.http.server import listen
from nomnom.inspection.jetstream import JetStream
from nomnom.inspection.retention import read_retention
from nomnom.receipts import keep_steps
from nomnom.schema import load_schema
from nomnom.settings import HousekeeperSettings
from nomnom.tasks import end
from nomnom.telemetry import logger
from nomnom.termination import run_until_signal
from nomnom_housekeeper.archive import DeadLetterArchive
from nomnom_housekeeper.errors import HousekeeperError
from nomnom_housekeeper.expiry import MessageExpiry
from nomnom_housekeeper.lease import Lease
from nomnom_housekeeper.metrics import Metrics
from nomnom_housekeeper.tables import Tables

_log = logger(__name__)
_NAME = "nomnom-housekeeper"
_CLOSING = 5.0
_TABLES = 3600.0
"""Seconds between two runs of the task for tables."""
_TABLES_FAILED = 60.0
_RECEIPTS = 60.0
"""Seconds between two counts of messages by time of receipt."""
_CONNECTIONS = 3
_ACCOUNT = 5.0
"""Seconds between two parts of the verification of the account."""


class Housekeeper:
    """The components of one housekeeper process."""

    def __init__(self, settings: HousekeeperSettings) -> None:
        self._settings, self._metrics = settings, Metrics()
        self._nats = NatsConnection(settings.nats_url, _NAME, inbox_prefix=settings.nats_inbox_prefix, log=_log)
        self._database = Database(
            settings.database_url,
            application=_NAME,
            connections=_CONNECTIONS,
            seconds=settings.housekeeper_query_seconds,
        )
        self._lease = Lease(Database(settings.database_url, application=f"{_NAME}-lease", seconds=None))
        streams, batch = settings.streams, settings.housekeeper_batch
        schema = load_schema(settings.nomnom_schema)
        self._expiry = MessageExpiry(self._nats, self._database, streams, self._metrics, schema=schema, batch=batch)
        self._archive = DeadLetterArchive(self._nats, self._database, streams, self._metrics, batch)
        self._tables = Tables(self._database, settings, self._metrics)
        self._verifier = Verifier(self._database, JetStream(self._nats), streams)
        self._tables_due = self._receipts_due = 0.0
        self._problems: dict[str, str] = {}
        self._stop = asyncio.Event()

    @property
    def stopping(self) -> bool:
        """Whether the housekeeper is stopping."""
        return self._stop.is_set()

    def stop(self) -> None:
        """Stop gracefully: the task in progress is finished."""
        self._stop.set()

    async def run(self) -> None:
        """Run until :meth:`stop`.

        Raises SettingsError if the health port is in use, and HousekeeperError if a component fails.
        """
        settings = self._settings
        host, port = settings.housekeeper_health_host, settings.housekeeper_health_port
        with listen("HOUSEKEEPER_HEALTH_PORT", host, port) as listener:
            _log.info("housekeeper started", health=listener.getsockname()[1])
            health = asyncio.create_task(serve(listener, self.alive, self.ready, self._metrics.registry))
            self._nats.start()
            work = asyncio.create_task(self._lease.run(self._act))
            stop = asyncio.create_task(self._stop.wait())
            try:
                done, _ = await asyncio.wait([stop, health, work], return_when=asyncio.FIRST_COMPLETED)
                if stop not in done and not self.stopping:
                    raise _ended(done.pop())
                _log.info("housekeeper stopping")
                if self._lease.held:
                    await asyncio.wait({work}, timeout=settings.housekeeper_grace)
            finally:
                await end(stop, work)
                await self._close()
                await end(health)
        _log.info("housekeeper stopped")

    def alive(self) -> State:
        """Liveness: the event loop responds; an outage is no reason for a restart."""
        return {"status": "alive", "reason": None}

    def ready(self) -> State:
        """Readiness: whether NATS and PostgreSQL are available and the tasks succeed; standing by is ready as well."""
        failed = "; ".join(f"{name}: {reason}" for name, reason in self._problems.items()) or None
        parts = {"nats": self._nats.problem, "database": self._lease.problem, "tasks": failed}
        available = not any(parts.values())
        status = "stopping" if self.stopping else "ready" if available else "not ready"
        role = "active" if self._lease.held else "standing by: another housekeeper holds the lease"
        return {
            "status": status,
            "role": role if self._lease.problem is None else "none: the lease needs PostgreSQL",
            **{name: {"ready": why is None, "reason": why} for name, why in parts.items()},
        }

    async def _act(self) -> None:
        """Do the tasks until the housekeeper stops, or the lease is lost, which cancels this."""
        self._metrics.active.set(1)
        self._tables_due = self._receipts_due = 0.0
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._verify())
                while not self.stopping:
                    await self._do("expiry", self._expiry.run)
                    await self._do("archive", self._archive.run)
                    await self._do("retention", self._measure)
                    if time.monotonic() >= self._tables_due:
                        done = await self._do("tables", self._tables.run)
                        self._tables_due = time.monotonic() + (_TABLES if done else _TABLES_FAILED)
                    if time.monotonic() >= self._receipts_due:
                        await self._do("receipts", lambda: keep_steps(self._database))
                        self._receipts_due = time.monotonic() + _RECEIPTS
                    await self._pause(self._settings.housekeeper_interval)
        finally:
            self._problems.clear()
            self._metrics.stand_by()

    async def _verify(self) -> None:
        """Verify the account, part by part: a loss is noticed while another task takes long."""
        while not self.stopping:
            await self._do("account", self._verifier.verify)
            await self._pause(_ACCOUNT)

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stop.wait()

    async def _do(self, name: str, task: Callable[[], Awaitable[Any]]) -> bool:
        """Run a task unless the housekeeper is stopping; returns whether it succeeded. A new problem is logged once."""
        if self.stopping:
            return False
        try:
            await task()
        except NomnomError as error:
            reason = error.reason if isinstance(error, Unavailable) else str(error)
            if self._problems.get(name) != reason:
                _log.warning("task failed", task=name, reason=reason, outage=isinstance(error, RequestError))
            self._problems[name] = reason
            self._metrics.failing.labels(name).set(1)
            return False
        if self._problems.pop(name, None) is not None:
            _log.info("task succeeds again", task=name)
        self._metrics.failing.labels(name).set(0)
        self._metrics.last_success.labels(name).set(time.time())
        return True

    async def _measure(self) -> None:
        """Show how close messages and dead letters are to their maximum ages."""
        for stream in (self._settings.streams.stream, self._settings.streams.dead_stream):
            report = await JetStream(self._nats).stream(stream)
            self._metrics.show(stream, await read_retention(self._nats, report, report.ts))

    async def _close(self) -> None:
        try:
            async with asyncio.timeout(_CLOSING):
                await self._nats.close()
                await self._database.close()
        except TimeoutError:
            _log.warning("connections not closed in time")


def _ended(task: asyncio.Task[Any]) -> HousekeeperError:
    """The error of a component that ended before the housekeeper."""
    error = task.exception()
    if error is not None:
        _log.critical("component failed", exc_info=error)
    return HousekeeperError(
        f"internal error: a component ended unexpectedly: {error!r}; it starts again with the process"
    )


async def run(settings: HousekeeperSettings) -> None:
    """Run a housekeeper until SIGTERM or SIGINT; a second signal stops it immediately."""
    await run_until_signal(Housekeeper(settings))
