"""The dashboard's read-only access to PostgreSQL, with a time limit for every query."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from nomnom.settings import without_secrets
from nomnom_dashboard.errors import InvalidQueryError, QueryTimeoutError, UnavailableError

SOURCE = "PostgreSQL"
_CONNECT_SECONDS = 3.0
_ACQUIRE_SECONDS = 4.0
_MARGIN = 1.0
_IDLE_SECONDS = 60.0
_LIMIT = "SELECT set_config('statement_timeout', $1, true)"


class Database:
    """A connection pool, opened on first use; it reconnects when PostgreSQL is available again."""

    def __init__(self, url: str, connections: int, query_seconds: float) -> None:
        self._url, self._connections, self.query_seconds = url, connections, query_seconds
        self._pool: asyncpg.Pool | None = None
        self._opening = asyncio.Lock()

    @property
    def address(self) -> str:
        """The URL without its password."""
        return without_secrets(self._url)

    async def close(self) -> None:
        """Close all connections."""
        if self._pool is not None:
            self._pool.terminate()
            self._pool = None

    async def fetch(self, statement: str, *values: object, seconds: float | None = None) -> list[asyncpg.Record]:
        """The rows of one statement, within ``seconds``. Raises UnavailableError or QueryTimeoutError."""
        async with self.connection(seconds) as connection:
            return await connection.fetch(statement, *values)

    async def fetch_row(self, statement: str, *values: object) -> asyncpg.Record | None:
        """The first row of one statement, or None. Raises UnavailableError or QueryTimeoutError."""
        async with self.connection() as connection:
            return await connection.fetchrow(statement, *values)

    @asynccontextmanager
    async def connection(self, seconds: float | None = None) -> AsyncGenerator[Any]:
        """A read-only connection; with ``seconds``, in a transaction whose statements may take that long each."""
        limit = seconds or self.query_seconds
        try:
            pool = await self._open()
            async with pool.acquire(timeout=_ACQUIRE_SECONDS) as connection, asyncio.timeout(limit + _MARGIN):
                if seconds is None:
                    yield connection
                else:
                    async with connection.transaction():
                        await connection.execute(_LIMIT, str(int(limit * 1000)))
                        yield connection
        except asyncpg.DataError as error:
            raise InvalidQueryError(f"PostgreSQL rejected a value: {error}") from error
        except asyncpg.QueryCanceledError as error:
            raise QueryTimeoutError(SOURCE, f"query cancelled after {limit:g} s; narrow it with filters") from error
        except (asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError, asyncpg.InvalidCatalogNameError) as error:
            raise UnavailableError(SOURCE, f"not set up for this version ({error}); run nomnom setup") from error
        except (asyncpg.InsufficientPrivilegeError, asyncpg.InvalidAuthorizationSpecificationError) as error:
            raise UnavailableError(SOURCE, f"access to {self.address} denied: {error}") from error
        except TimeoutError as error:
            raise UnavailableError(SOURCE, f"no response from {self.address}") from error
        except (
            OSError,
            asyncpg.PostgresConnectionError,
            asyncpg.OperatorInterventionError,
            asyncpg.InsufficientResourcesError,
            asyncpg.InterfaceError,
        ) as error:
            raise UnavailableError(
                SOURCE, f"{self.address} is unavailable: {str(error) or type(error).__name__}"
            ) from error

    async def _open(self) -> asyncpg.Pool:
        if self._pool is None:
            async with self._opening:
                if self._pool is None:
                    self._pool = await asyncpg.create_pool(
                        self._url,
                        # Open no connection in advance: the dashboard must start while PostgreSQL is unavailable.
                        min_size=0,
                        max_size=self._connections,
                        timeout=_CONNECT_SECONDS,
                        max_inactive_connection_lifetime=_IDLE_SECONDS,
                        server_settings={
                            "application_name": "nomnom-dashboard",
                            "default_transaction_read_only": "on",
                            "statement_timeout": str(int(self.query_seconds * 1000)),
                            "idle_in_transaction_session_timeout": "30000",
                        },
                    )
        return self._pool
