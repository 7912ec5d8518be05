"""The worker's session with PostgreSQL, and the classification of its errors: caused by a message, or an outage."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import asyncpg

from nomnom.connections.errors import RequestError, Unavailable
from nomnom.connections.postgres import CONNECTION_ERRORS, ERRORS, Database
from nomnom.retry import RetryPolicy
from nomnom.settings import WorkerSettings
from nomnom.telemetry import logger
from nomnom_worker.errors import OutageError, RefusedError
from nomnom_worker.metrics import Metrics

T = TypeVar("T")
_log = logger(__name__)
_CLOSE = 2.0
_ATTEMPTS = 10
_CONFLICT = RetryPolicy(first=0.02, longest=0.2, jitter=1.0)
"""Randomized, so that conflicting transactions do not conflict again."""
_DATA = frozenset({"21", "22", "23", "44", "54", "P0"})
"""Classes of SQLSTATE caused by the values of a message: cardinality, data, integrity, check option, limits, and errors
raised by triggers (PostgreSQL, appendix A). All others are caused by the server, its setup or the network."""
_CONFLICTS = frozenset({"40001", "40P01"})
"""Serialization failure and deadlock: an immediate retry may succeed."""


class Session:
    """One connection, opened on first use and replaced when it fails."""

    def __init__(self, settings: WorkerSettings, metrics: Metrics) -> None:
        self._database = Database(settings.database_url, application="nomnom-worker", seconds=None)
        self._patience = settings.database_timeout
        self._lock = asyncio.Lock()
        self._connection: asyncpg.Connection | None = None
        self._outage = metrics.outage.labels("postgresql")
        self.reason: str | None = "not connected yet"
        """Why PostgreSQL is unavailable; None if it is available."""

    async def run(self, work: Callable[[asyncpg.Connection], Awaitable[T]]) -> T:
        """Run ``work`` on the connection; it must be safe to repeat.

        Raises RefusedError if the data is the cause, OutageError if PostgreSQL is.
        """
        async with self._lock:
            for attempt in range(1, _ATTEMPTS + 1):
                connection = await self._connected()
                try:
                    done = await work(connection)
                except asyncpg.PostgresError as error:
                    state = str(getattr(error, "sqlstate", None) or "")
                    if state[:2] in _DATA:
                        raise RefusedError(str(error)) from error
                    if state not in _CONFLICTS or attempt == _ATTEMPTS:
                        raise self._lost(self._database.error(error)) from error
                except CONNECTION_ERRORS as error:
                    raise self._lost(self._database.error(error)) from error
                except asyncio.CancelledError:
                    self._drop()
                    raise
                except Exception as error:
                    # asyncpg may fail to encode a value before sending it.
                    raise RefusedError(f"{type(error).__name__}: {error}") from error
                else:
                    self._found()
                    return done
                await asyncio.sleep(_CONFLICT.wait(attempt))
            raise AssertionError

    async def check(self) -> None:
        """Check whether PostgreSQL is available, unless the connection is in use; updates ``reason``."""
        if self._lock.locked():
            return
        try:
            await self.run(_ping)
        except (OutageError, RefusedError) as error:
            _log.debug("check failed", error=str(error))

    async def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            try:
                await self._connection.close(timeout=_CLOSE)
            except ERRORS as error:
                _log.debug("connection terminated", error=str(error))
                self._drop()

    async def _connected(self) -> asyncpg.Connection:
        connection = self._connection
        if connection is None or connection.is_closed():
            try:
                connection = self._connection = await self._database.connect(self._patience)
            except RequestError as error:
                raise self._lost(error) from error
        return connection

    def _found(self) -> None:
        if self.reason is not None:
            _log.info("PostgreSQL is available", url=self._database.address)
            self.reason = None
            self._outage.set(0)

    def _lost(self, error: RequestError) -> OutageError:
        self._drop()
        reason = error.reason if isinstance(error, Unavailable) else str(error)
        if reason != self.reason:
            _log.warning("PostgreSQL is unavailable", reason=reason, url=self._database.address)
        self.reason = reason
        self._outage.set(1)
        return OutageError(reason)

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None


async def _ping(connection: asyncpg.Connection) -> None:
    await connection.execute("SELECT 1")
