"""The worker's session with PostgreSQL: its errors are the fault of a message, or of the server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import asyncpg

from nomnom.connections.errors import RequestError, Unavailable
from nomnom.connections.postgres import CONNECTION_ERRORS, ERRORS, Database
from nomnom.retry import RetryPolicy
from nomnom.telemetry import logger
from nomnom_worker.errors import OutageError, RefusedError
from nomnom_worker.metrics import Metrics
from nomnom_worker.settings import WorkerSettings

T = TypeVar("T")
_log = logger(__name__)
_CLOSE = 2.0
_TRIES = 10
_CONFLICT = RetryPolicy(first=0.02, longest=0.2, jitter=1.0)
"""Two transactions in conflict do not meet again."""
_DATA = frozenset({"21", "22", "23", "44", "54", "P0"})
"""Classes of SQLSTATE that a message's values cause: cardinality, data, integrity, check option, limits, and what a
trigger raises (PostgreSQL, appendix A). All others are the server's, its setup's or the way's to it."""
_CONFLICTS = frozenset({"40001", "40P01"})
"""Serialization failure and deadlock: the same transaction may well succeed at once."""


class Session:
    """One connection, opened when it is needed and replaced when it fails."""

    def __init__(self, settings: WorkerSettings, metrics: Metrics) -> None:
        self._database = Database(settings.database_url, application="nomnom-worker", seconds=settings.database_timeout)
        self._lock = asyncio.Lock()
        self._connection: asyncpg.Connection | None = None
        self._outage = metrics.outage.labels("postgresql")
        self.reason: str | None = "not connected yet"
        """Why PostgreSQL cannot be used now; None where it can."""

    async def run(self, work: Callable[[asyncpg.Connection], Awaitable[T]]) -> T:
        """Do ``work`` on the connection; it has to be safe to do again.

        Raises RefusedError where what it writes is at fault, OutageError where PostgreSQL is.
        """
        async with self._lock:
            for tried in range(1, _TRIES + 1):
                connection = await self._connected()
                try:
                    done = await work(connection)
                except asyncpg.PostgresError as error:
                    state = str(getattr(error, "sqlstate", None) or "")
                    if state[:2] in _DATA:
                        raise RefusedError(str(error)) from error
                    if state not in _CONFLICTS or tried == _TRIES:
                        raise self._lost(self._database.error(error)) from error
                except CONNECTION_ERRORS as error:
                    raise self._lost(self._database.error(error)) from error
                except asyncio.CancelledError:
                    self._drop()
                    raise
                except Exception as error:
                    # What a message holds can surprise the client before PostgreSQL sees it.
                    raise RefusedError(f"{type(error).__name__}: {error}") from error
                else:
                    self._found()
                    return done
                await asyncio.sleep(_CONFLICT.wait(tried))
            raise AssertionError

    async def check(self) -> None:
        """Find out whether PostgreSQL answers, where nothing else is using the connection; sets ``reason``."""
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
                _log.debug("connection closed by force", error=str(error))
                self._drop()

    async def _connected(self) -> asyncpg.Connection:
        connection = self._connection
        if connection is None or connection.is_closed():
            try:
                connection = self._connection = await self._database.connect()
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
            _log.warning("PostgreSQL cannot be used", reason=reason, url=self._database.address)
        self.reason = reason
        self._outage.set(1)
        return OutageError(reason)

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None


async def _ping(connection: asyncpg.Connection) -> None:
    await connection.execute("SELECT 1")
