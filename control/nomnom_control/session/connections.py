"""The connections of an operator's session to PostgreSQL and the api, each opened at its first use.

An unavailable server is an ordinary state here: every call has a timeout and raises an :class:`Unavailable` that says
what is unavailable and what to do, and the next call tries again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

import asyncpg

from nomnom.connections.errors import DatabaseRefused, DatabaseUnavailable, NotSetUp, Unavailable
from nomnom.settings import without_secrets
from nomnom_control.errors import ControlError

if TYPE_CHECKING:
    import httpx

TIMEOUT = 5.0
"""Seconds that a call may take, where it does not say otherwise."""
_CONNECT_TIMEOUT = 3.0
_POOL_SIZE = 4


class ApiUnavailable(Unavailable, ControlError):  # noqa: N818
    """The api cannot be reached or does not respond in time."""

    part = "api"


class ApiRefused(ControlError):  # noqa: N818
    """The api answered with an error. ``status`` is HTTP's; ``retry_after`` in seconds, where the api gave it."""

    def __init__(self, text: str, status: int, retry_after: float | None = None) -> None:
        super().__init__(text)
        self.status, self.retry_after = status, retry_after


class Database:
    """A small pool of PostgreSQL connections. ``url`` holds a password and is never shown."""

    def __init__(self, url: str, timeout: float = TIMEOUT) -> None:
        self.url, self.timeout = url, timeout
        self.problem: str | None = None
        """Why the database is away, after a call that found it so."""
        self._pool: asyncpg.Pool | None = None
        self._opening = asyncio.Lock()

    @asynccontextmanager
    async def connection(self, timeout: float | None = None) -> AsyncGenerator[asyncpg.Connection, None]:
        """A connection; its statements end after ``timeout`` seconds. Raises DatabaseUnavailable, NotSetUp,
        DatabaseRefused.

        PostgreSQL's own errors inside the block become these too.
        """
        try:
            pool = await self._open()
            async with pool.acquire(timeout=self.timeout) as connection:
                if timeout is not None and timeout != self.timeout:
                    await connection.execute(f"SET statement_timeout = {int(timeout * 1000)}")
                    try:
                        yield cast("asyncpg.Connection", connection)
                    finally:
                        if not connection.is_closed():
                            await connection.execute("RESET statement_timeout")
                else:
                    yield cast("asyncpg.Connection", connection)
            self.problem = None
        except asyncpg.UndefinedTableError as error:
            raise NotSetUp(f"PostgreSQL: {error}; run nomnom setup with this schema") from error
        except asyncpg.QueryCanceledError as error:
            raise DatabaseRefused(f"PostgreSQL: {error}; ask for less, or try again when it is idle") from error
        except (
            asyncpg.PostgresConnectionError,
            asyncpg.CannotConnectNowError,
            asyncpg.AdminShutdownError,
            asyncpg.CrashShutdownError,
            asyncpg.TooManyConnectionsError,
            asyncpg.InvalidAuthorizationSpecificationError,
            asyncpg.InvalidCatalogNameError,
            asyncpg.InterfaceError,
            asyncpg.InternalClientError,  # what a connection that is being cut may raise
            OSError,
            TimeoutError,
        ) as error:
            raise self._unavailable(error) from error
        except asyncpg.PostgresError as error:
            raise DatabaseRefused(f"PostgreSQL refused: {error} ({type(error).__name__})") from error

    async def close(self) -> None:
        """Close the pool; connections that are busy are cut."""
        async with self._opening:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.terminate()

    async def _open(self) -> asyncpg.Pool:
        async with self._opening:
            if self._pool is None:
                self._pool = await asyncpg.create_pool(
                    self.url,
                    min_size=0,
                    max_size=_POOL_SIZE,
                    timeout=_CONNECT_TIMEOUT,
                    command_timeout=60,
                    server_settings={
                        "application_name": "nomnom-control",
                        "statement_timeout": str(int(self.timeout * 1000)),
                    },
                )
            return self._pool

    def _unavailable(self, error: Exception) -> DatabaseUnavailable:
        self.problem = _text(error)
        where = without_secrets(self.url)
        text = f"PostgreSQL at {where} is unavailable: {self.problem}; check that it runs, then try again"
        return DatabaseUnavailable(text, self.problem)


class Api:
    """The ingest API, over HTTP."""

    def __init__(self, url: str, token: str | None = None, timeout: float = TIMEOUT) -> None:
        self.url, self.timeout = url.rstrip("/"), timeout
        self._token = token
        self._client: httpx.AsyncClient | None = None

    async def send(
        self, method: str, path: str, *, content: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        """Send a request; raises ApiUnavailable where nothing answers and ApiRefused for any status from 400 on."""
        import httpx  # a tenth of a second that a session which never posts does not spend

        if self._client is None:
            authorization = {"Authorization": f"Bearer {self._token}"} if self._token else {}
            # What is asked is on this machine or behind a port-forward: a proxy of the environment is not for it.
            self._client = httpx.AsyncClient(
                base_url=self.url, timeout=self.timeout, headers=authorization, trust_env=False
            )
        try:
            response = await self._client.request(method, path, content=content, headers=dict(headers or {}))
        except httpx.TransportError as error:
            reason = _text(error)
            raise ApiUnavailable(
                f"the api at {self.url} is unavailable: {reason}; check that it runs, then try again", reason
            ) from error
        if response.status_code >= 400:
            raise _refused(self.url, response)
        return response

    async def close(self) -> None:
        """Close the connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()


def _refused(url: str, response: httpx.Response) -> ApiRefused:
    problem: Any = None
    if "json" in response.headers.get("content-type", ""):
        try:
            problem = response.json()
        except ValueError:
            problem = None
    said = response.text[:200]
    if isinstance(problem, dict):
        said = str(problem.get("detail") or problem.get("title") or said)  # pyright: ignore[reportUnknownArgumentType]
    waiting = response.headers.get("retry-after", "")
    retry_after = float(waiting) if waiting.replace(".", "", 1).isdigit() else None
    return ApiRefused(f"the api at {url} answered {response.status_code}: {said}", response.status_code, retry_after)


def _text(error: BaseException) -> str:
    return (str(error) or type(error).__name__).removeprefix("nats: ")
