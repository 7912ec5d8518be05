"""PostgreSQL as the api uses it: for statuses alone, over a small pool that is opened when it is first needed."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg

from nomnom.settings import without_secrets
from nomnom_api.errors import UnavailableError

_CONNECTIONS = 4
_CONNECT, _STATEMENT = 2.0, 2.0
_IDLE = 60.0


class Database:
    """A pool that comes back by itself; every question has a time limit and fails as UnavailableError."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._pool: asyncpg.Pool | None = None
        self._opening = asyncio.Lock()

    async def fetch_row(self, statement: str, *values: object, seconds: float = _STATEMENT) -> Any:
        """The first row of one statement, or None, within ``seconds``. Raises UnavailableError."""
        try:
            async with asyncio.timeout(seconds):
                pool = await self._open()
                async with pool.acquire() as connection:
                    return await connection.fetchrow(statement, *values)
        except TimeoutError as error:
            raise self._away(f"no answer in {seconds:g} s") from error
        except (asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError, asyncpg.InvalidCatalogNameError) as error:
            raise self._away(f"{error}: run nomnom setup") from error
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
            raise self._away(str(error) or type(error).__name__) from error

    async def close(self) -> None:
        """End all connections."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.terminate()

    async def _open(self) -> asyncpg.Pool:
        async with self._opening:
            if self._pool is None:
                self._pool = await asyncpg.create_pool(
                    self._url,
                    min_size=0,
                    max_size=_CONNECTIONS,
                    timeout=_CONNECT,
                    command_timeout=_STATEMENT,
                    max_inactive_connection_lifetime=_IDLE,
                    server_settings={"application_name": "nomnom-api", "default_transaction_read_only": "on"},
                )
            return self._pool

    def _away(self, reason: str) -> UnavailableError:
        return UnavailableError(f"PostgreSQL at {without_secrets(self._url)} is away: {reason}")
