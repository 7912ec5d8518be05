"""``nomnom setup``: streams, consumer and tables, made or brought forward. Safe to run again, and twice at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import asyncpg
import nats
from nats.errors import Error as NatsError

from nomnom.database import migrate
from nomnom.errors import NomnomError
from nomnom.schema import load_schema
from nomnom.settings import Settings, without_secrets
from nomnom.streams import ensure_streams

T = TypeVar("T")
_PAUSE = 0.5


class SetupError(NomnomError):
    """NATS or PostgreSQL could not be reached in time."""


async def set_up(settings: Settings, wait: float = 30.0) -> list[str]:
    """Make streams and tables, waiting up to ``wait`` seconds for each server; returns what was done.

    Raises SetupError, StreamError, MigrationError or SchemaError.
    """
    schema = load_schema(settings.nomnom_schema)
    done: list[str] = []

    async def streams() -> None:
        client = await nats.connect(
            settings.nats_url,
            allow_reconnect=False,
            # nats-py goes through the servers this often, two seconds apart, even where it may not reconnect.
            max_reconnect_attempts=1,
            reconnect_time_wait=0,
            connect_timeout=5,
            error_cb=_ignore,
        )
        try:
            done.extend(await ensure_streams(client.jetstream(timeout=10), settings.streams))
        finally:
            await client.close()

    async def tables() -> None:
        connection = await asyncpg.connect(settings.database_url, timeout=5)
        try:
            done.extend(await migrate(connection, schema))
        finally:
            await connection.close()

    await _retry(streams, wait, "NATS", settings.nats_url)
    await _retry(tables, wait, "PostgreSQL", settings.database_url)
    return done


async def _retry(step: Callable[[], Awaitable[T]], wait: float, what: str, url: str) -> T:
    deadline = asyncio.get_running_loop().time() + wait
    while True:
        try:
            return await step()
        except (OSError, NatsError, asyncpg.PostgresConnectionError, asyncpg.CannotConnectNowError) as error:
            if asyncio.get_running_loop().time() >= deadline:
                problem = str(error) or type(error).__name__
                raise SetupError(f"{what} at {without_secrets(url)} did not answer in {wait:g} s: {problem}") from error
            await asyncio.sleep(_PAUSE)


async def _ignore(_: Exception) -> None:
    """nats-py reports here, and raises, every failed attempt: what was raised is what gets handled."""
