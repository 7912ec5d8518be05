"""Connections to PostgreSQL: a pool that opens when it is first used, and what the errors of asyncpg mean.

An unavailable server is an ordinary state: each call has a time limit, raises a :class:`RequestError` that says what
failed and what to do, and the next call tries again.

Everything works through PgBouncer in session and transaction mode. PgBouncer refuses the startup parameters that set
limits, and in transaction mode a SET outlives the transaction on a connection that other clients use next: limits are
set with SET LOCAL, in the transaction that each call is.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import cast

import asyncpg

from nomnom.connections.errors import DatabaseRefused, DatabaseUnavailable, NotSetUp, RequestError
from nomnom.settings import without_secrets
from nomnom.telemetry import logger

_log = logger(__name__)

_CONNECT = 5
_ACQUIRE = 4.0
_LONGEST = 60.0
"""Seconds after which a server that does not stop a statement itself is unavailable."""
_IDLE = 60.0
_IDLE_IN_TRANSACTION = 30.0
_ROLLBACK = 1.0
_CLOSE = 2.0

# Of the errors that PostgreSQL reports, by SQLSTATE class (appendix A of its manual): 08 connection, 53 resources,
# 57 intervention of an operator (a stop, a crash, a start that is not complete), 58 input and output.
_UNAVAILABLE = (
    asyncpg.PostgresConnectionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.OperatorInterventionError,
    asyncpg.PostgresSystemError,
)
NOT_SET_UP = (asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError, asyncpg.InvalidCatalogNameError)
"""What ``nomnom setup`` creates does not exist."""
_DENIED = (asyncpg.InsufficientPrivilegeError, asyncpg.InvalidAuthorizationSpecificationError)
CONNECTION_ERRORS = (OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.InternalClientError)
"""What asyncpg raises apart from PostgresError: the connection, not the statement, is at fault."""
ERRORS = (asyncpg.PostgresError, *CONNECTION_ERRORS)
"""All that asyncpg raises."""


class StatementTimeout(DatabaseRefused):
    """PostgreSQL stopped a statement at its time limit."""


class AccessDenied(DatabaseRefused):
    """PostgreSQL does not let this user in, or not to what the statement needs."""


class InvalidValue(DatabaseRefused):
    """A value that PostgreSQL cannot use as what it is needed for."""


class Database:
    """A database and a pool of connections to it. ``url`` may hold a password: ``address`` is what can be shown.

    ``application`` names the connections in ``pg_stat_activity``. PostgreSQL stops a statement after ``seconds`` (None:
    never). ``within`` limits a whole call, with the wait for a connection. ``statement_cache`` is the number of
    prepared statements that a connection keeps: 0 for a pooler in transaction mode, which may execute them on another
    connection than the one that prepared them.
    """

    def __init__(
        self,
        url: str,
        *,
        application: str,
        connections: int = 4,
        seconds: float | None = 5.0,
        within: float | None = None,
        read_only: bool = False,
        statement_cache: int = 0,
    ) -> None:
        self.url, self.address = url, without_secrets(url)
        self.problem: str | None = None
        """Why the database is unavailable, if the last call found it so."""
        self._seconds, self._within, self._connections = seconds, within, connections
        self._settings = {"application_name": application}
        self._read_only, self._statement_cache = read_only, statement_cache
        self._pool: asyncpg.Pool | None = None
        self._opening = asyncio.Lock()

    async def fetch(self, statement: str, *values: object, within: float | None = None) -> list[asyncpg.Record]:
        """The rows of one statement; raises as ``connection`` does."""
        async with self.connection(within=within) as connection:
            return await connection.fetch(statement, *values)

    async def fetch_row(self, statement: str, *values: object, within: float | None = None) -> asyncpg.Record | None:
        """The first row of one statement, or None; raises as ``connection`` does."""
        async with self.connection(within=within) as connection:
            return await connection.fetchrow(statement, *values)

    @asynccontextmanager
    async def connection(
        self, seconds: float | None = None, *, within: float | None = None, snapshot: bool = False
    ) -> AsyncGenerator[asyncpg.Connection]:
        """A connection of the pool in a transaction, which is committed at the end of the block or, if that raises,
        rolled back. ``seconds`` and ``within`` replace the database's own limits. All statements of a ``snapshot`` see
        the same state of the tables, and none may write.

        What asyncpg raises inside the block becomes DatabaseUnavailable, NotSetUp or DatabaseRefused.
        """
        limit = seconds or self._seconds
        limits = f"SET LOCAL idle_in_transaction_session_timeout = {int(_IDLE_IN_TRANSACTION * 1000)}"
        if limit is not None:
            limits += f"; SET LOCAL statement_timeout = {int(limit * 1000)}"
        try:
            async with asyncio.timeout(within or self._within):
                pool = await self._open()
                async with pool.acquire(timeout=_ACQUIRE) as acquired:
                    connection = cast("asyncpg.Connection", acquired)
                    async with transaction(connection, read_only=self._read_only, snapshot=snapshot):
                        await connection.execute(limits)
                        yield connection
            self.problem = None
        except ERRORS as error:
            raise self.error(error, limit) from error

    async def connect(self, patience: float | None = None) -> asyncpg.Connection:
        """A connection outside the pool, which the caller closes; raises as ``connection`` does.

        Its statements raise TimeoutError after ``patience`` seconds, whether or not the server responds at all.
        """
        try:
            connection = await asyncpg.connect(
                self.url,
                timeout=_CONNECT,
                command_timeout=patience,
                statement_cache_size=self._statement_cache,
                server_settings=self._settings,
            )
        except ERRORS as error:
            raise self.error(error) from error
        self.problem = None
        return connection

    async def close(self) -> None:
        """Close the pool and cut busy connections; the next call opens it again."""
        async with self._opening:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.terminate()

    def error(self, error: BaseException, seconds: float | None = None) -> RequestError:
        """What an error of asyncpg means; ``seconds`` is the time limit of the statement."""
        if isinstance(error, asyncpg.QueryCanceledError):
            after = f" after {seconds:g} s" if seconds and "statement timeout" in str(error) else ""
            return StatementTimeout(f"PostgreSQL: query cancelled{after} ({error}); narrow it, or retry later")
        if isinstance(error, NOT_SET_UP):
            first = "create it, then " if isinstance(error, asyncpg.InvalidCatalogNameError) else ""
            return NotSetUp(f"PostgreSQL at {self.address}: {error}; {first}run nomnom setup with this schema")
        if isinstance(error, _DENIED):
            return AccessDenied(f"PostgreSQL at {self.address} denies access: {error}; check the user of its URL")
        if isinstance(error, asyncpg.DataError):
            return InvalidValue(f"PostgreSQL rejected a value: {error}")
        if isinstance(error, asyncpg.PostgresError) and not isinstance(error, _UNAVAILABLE):
            return DatabaseRefused(f"PostgreSQL returned an error: {error} ({type(error).__name__})")
        reason = "timed out" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
        self.problem = reason
        return DatabaseUnavailable(
            f"PostgreSQL at {self.address} is unavailable: {reason}; check that it runs, then try again", reason
        )

    async def _open(self) -> asyncpg.Pool:
        async with self._opening:
            if self._pool is None:
                self._pool = await asyncpg.create_pool(
                    self.url,
                    # No connection is opened in advance: a program starts while PostgreSQL is unavailable.
                    min_size=0,
                    max_size=self._connections,
                    timeout=_CONNECT,
                    command_timeout=_LONGEST,
                    max_inactive_connection_lifetime=_IDLE,
                    statement_cache_size=self._statement_cache,
                    server_settings=self._settings,
                    reset=_keep,
                )
            return self._pool


@asynccontextmanager
async def transaction(
    connection: asyncpg.Connection, *, read_only: bool = False, snapshot: bool = False
) -> AsyncGenerator[None]:
    """A transaction whose rollback has a time limit of its own: asyncpg's would wait for a server that is gone."""
    isolation = "repeatable_read" if snapshot else None
    begun = connection.transaction(isolation=isolation, readonly=read_only or snapshot)
    await begun.start()
    try:
        yield
    except BaseException:
        try:
            async with asyncio.timeout(_ROLLBACK):
                await begun.rollback()
        except ERRORS:
            connection.terminate()
        raise
    await begun.commit()


async def close(connection: asyncpg.Connection) -> None:
    """Close a connection of :meth:`Database.connect`, at once if the server does not respond."""
    try:
        await connection.close(timeout=_CLOSE)
    except ERRORS as error:
        _log.debug("connection terminated", error=str(error))
        connection.terminate()


async def _keep(_: object) -> None:
    """Skip asyncpg's reset of a released connection, which would take a round trip: all settings are LOCAL."""
