"""The worker's session with PostgreSQL, and the classification of its errors: an outage, or caused by a message."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from enum import Enum, auto
from typing import TypeVar

import asyncpg

from nomnom.connections.errors import RequestError, Unavailable
from nomnom.connections.outage import Outage
from nomnom.connections.postgres import CONNECTION_ERRORS, ERRORS, Database, close
from nomnom.connections.writing import check_writing
from nomnom.retry import RetryPolicy
from nomnom.settings import WorkerSettings
from nomnom.telemetry import logger
from nomnom_worker.errors import OutageError, RefusedError
from nomnom_worker.metrics import Metrics

T = TypeVar("T")
_log = logger(__name__)
_ATTEMPTS = 10
_VERIFY = 5.0
_CONFLICT = RetryPolicy(first=0.02, longest=0.2, jitter=1.0)
"""Randomized, so that conflicting transactions do not conflict again."""
_DATA = frozenset({"21", "22", "23", "44", "54", "P0"})
"""Classes of SQLSTATE caused by the values of a message: cardinality, data, integrity, check option, limits, and errors
raised by triggers (PostgreSQL, appendix A)."""
_CONFLICTS = frozenset({"40001", "40P01"})
"""Serialization failure and deadlock: an immediate retry may succeed."""
_SERVER = ("08", "53", "57P", "58", "25006", "26000", "42P05")
"""Caused by the server or the network: connection, resources, shutdown, input and output; a server that is read-only;
and prepared statements that a pooler executes on another connection than the one that has them."""
_STATEMENTS = frozenset({"26000", "42P05", "08P01"})
_CANCELED = "57014"
_RAISED = "exec_stmt_raise"
"""The function of PL/pgSQL that reports an error raised by RAISE (src/pl/plpgsql/src/pl_exec.c): a trigger may choose
any SQLSTATE, also one of a server that fails."""


class Fault(Enum):
    """The cause of an error of PostgreSQL."""

    SERVER = auto()
    CONFLICT = auto()
    DATA = auto()
    UNCERTAIN = auto()


def fault_of(error: asyncpg.PostgresError) -> Fault:
    """The cause of an error that PostgreSQL reports on a connection that stays open."""
    state = str(getattr(error, "sqlstate", None) or "")
    if getattr(error, "server_source_function", None) == _RAISED or state[:2] in _DATA:
        return Fault.DATA
    # The table was altered after the statement was prepared.
    if state in _CONFLICTS or isinstance(error, asyncpg.InvalidCachedStatementError):
        return Fault.CONFLICT
    return Fault.SERVER if state.startswith(_SERVER) else Fault.UNCERTAIN


class Session:
    """One connection, opened on first use and replaced when it fails.

    An outage that work has found lasts until that work succeeds, and one that a check has found until a check succeeds:
    otherwise a check that needs less than the work would end the same outage again and again.
    """

    def __init__(self, settings: WorkerSettings, metrics: Metrics) -> None:
        self._database = Database(
            settings.database_url,
            application="nomnom-worker",
            seconds=None,
            statement_cache=settings.database_statement_cache,
        )
        self._cached = settings.database_statement_cache > 0
        self._patience = settings.database_timeout
        self._lock = asyncio.Lock()
        self._connection: asyncpg.Connection | None = None
        self._metric = metrics.outage.labels("postgresql")
        self._outage = Outage("not connected yet")
        self._failing: set[str] = set()  # what has to succeed before the outage has ended

    @property
    def reason(self) -> str | None:
        """Why PostgreSQL is unavailable; None if it is available."""
        return self._outage.reason

    async def run(self, work: Callable[[asyncpg.Connection], Awaitable[T]], name: str = "work") -> T:
        """Run ``work`` on the connection; it must be safe to repeat. ``name`` distinguishes work from checks.

        Raises RefusedError if a message or a table may be the cause, OutageError if PostgreSQL is.
        """
        async with self._lock:
            for attempt in range(1, _ATTEMPTS + 1):
                connection = await self._connected(name)
                try:
                    done = await work(connection)
                except asyncpg.PostgresError as error:
                    fault = Fault.SERVER if connection.is_closed() else fault_of(error)
                    if fault is Fault.SERVER:
                        raise self._lost(error, name) from error
                    if fault is not Fault.CONFLICT or attempt == _ATTEMPTS:
                        raise await self._refused(error, fault) from error
                except CONNECTION_ERRORS as error:
                    if connection.is_closed() or (isinstance(error, OSError) and not isinstance(error, TimeoutError)):
                        raise self._lost(error, name) from error
                    raise await self._refused(error, Fault.UNCERTAIN) from error
                except asyncio.CancelledError:
                    self._drop()
                    raise
                except Exception as error:
                    # asyncpg may fail to encode a value before sending it.
                    raise RefusedError(f"{type(error).__name__}: {error}", certain=True) from error
                else:
                    self._found(name)
                    return done
                await asyncio.sleep(_CONFLICT.wait(attempt))
            raise AssertionError

    async def verify(self, name: str = "work") -> None:
        """Check that PostgreSQL executes what every message needs. Raises OutageError."""
        async with self._lock:
            connection = await self._connected(name)
            try:
                async with asyncio.timeout(min(_VERIFY, self._patience)):
                    await check_writing(connection)
            except ERRORS as error:
                raise self._lost(error, name) from error
            self._failing.discard("check")
            if name == "check":
                self._found(name)

    async def check(self) -> None:
        """Check whether PostgreSQL is available, unless the connection is in use; updates ``reason``."""
        if self._lock.locked():
            return
        try:
            await self.verify("check")
        except OutageError as error:
            _log.debug("check failed", error=str(error))

    def recover(self) -> None:
        """Note that PostgreSQL is available although it has refused the work."""
        self._found("work")

    async def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            await close(self._connection)

    async def _connected(self, name: str) -> asyncpg.Connection:
        connection = self._connection
        if connection is None or connection.is_closed():
            try:
                connection = self._connection = await self._database.connect(self._patience)
            except RequestError as error:
                raise self._lost(error, name) from error
        return connection

    async def _refused(self, error: BaseException, fault: Fault) -> RefusedError:
        if isinstance(error, TimeoutError):
            # Closing waits until PostgreSQL has cancelled the statement, which may hold locks.
            await self.close()
            self._connection = None
            return RefusedError(f"not finished within DATABASE_TIMEOUT, {self._patience:g} s", slow=True)
        if not isinstance(error, asyncpg.PostgresError):
            self._drop()
            return RefusedError(f"{type(error).__name__}: {error}")
        if getattr(error, "sqlstate", None) == _CANCELED and fault is not Fault.DATA:
            return RefusedError(str(error), slow=True)
        null = isinstance(error, asyncpg.NotNullViolationError)
        return RefusedError(
            str(error),
            certain=fault is Fault.DATA,
            table=getattr(error, "table_name", None) if null else None,
            column=getattr(error, "column_name", None) if null else None,
        )

    def _found(self, name: str) -> None:
        self._failing.discard(name)
        if not self._failing and self._outage.end():
            _log.info("PostgreSQL is available", url=self._database.address)
            self._metric.set(0)

    def _lost(self, error: BaseException, name: str) -> OutageError:
        self._drop()
        self._failing.add(name)
        explained = error if isinstance(error, RequestError) else self._database.error(error)
        reason = explained.reason if isinstance(explained, Unavailable) else str(explained)
        if self._cached and getattr(error, "sqlstate", None) in _STATEMENTS:
            reason += "; if PgBouncer pools transactions, set DATABASE_STATEMENT_CACHE to 0"
        if self._outage.report(reason):
            _log.warning("PostgreSQL is unavailable", reason=reason, url=self._database.address)
        self._metric.set(1)
        return OutageError(reason)

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None
