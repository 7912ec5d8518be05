"""``nomnom setup``: streams, consumer and tables, made or brought forward. Safe to run again, and twice at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import asyncpg
import nats
from nats.errors import Error as NatsError

from nomnom.database import migrate
from nomnom.errors import NomnomError
from nomnom.roles import Role, ensure_roles
from nomnom.schema import load_schema
from nomnom.settings import Settings, SetupSettings, without_secrets
from nomnom.streams import StreamsNotReadyError, ensure_streams
from nomnom.telemetry import configure_logging, logger

T = TypeVar("T")
_log = logger(__name__)
_PAUSE = 0.5
_PASSING = (
    OSError,
    NatsError,
    StreamsNotReadyError,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
)
_WAIT = 30.0


class SetupError(NomnomError):
    """NATS or PostgreSQL could not be reached in time."""


async def set_up(settings: Settings, wait: float = _WAIT, roles: Sequence[Role] = ()) -> list[str]:
    """Make streams, tables and roles, waiting up to ``wait`` seconds for each server; returns what was done.

    Raises SetupError, StreamError, MigrationError, RoleError or SchemaError.
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
            inbox_prefix=settings.nats_inbox_prefix,
        )
        try:
            done.extend(await ensure_streams(client.jetstream(timeout=10), settings.streams))
        finally:
            await client.close()

    async def tables() -> None:
        connection = await asyncpg.connect(settings.database_url, timeout=5)
        try:
            done.extend(await migrate(connection, schema))
            done.extend(await ensure_roles(connection, schema, roles))
        finally:
            await connection.close()

    await _retry(streams, wait, "NATS", settings.nats_url)
    await _retry(tables, wait, "PostgreSQL", settings.database_url)
    return done


def roles_of(settings: SetupSettings) -> list[Role]:
    """The roles of the components that have a URL of their own."""
    return [Role.from_url(component, url) for component, url in settings.role_urls.items()]


def main() -> None:
    """``nomnom-setup``: what ``nomnom setup`` does, for an image that holds no terminal app."""
    try:
        settings = SetupSettings.from_environment()
        configure_logging("setup", settings)
        done = asyncio.run(set_up(settings, settings.nomnom_setup_wait, roles_of(settings)))
    except NomnomError as error:
        raise SystemExit(f"nomnom-setup: {error}") from error
    for each in done:
        _log.info(each)


async def _retry(step: Callable[[], Awaitable[T]], wait: float, what: str, url: str) -> T:
    deadline = asyncio.get_running_loop().time() + wait
    while True:
        try:
            return await step()
        except _PASSING as error:
            if asyncio.get_running_loop().time() >= deadline:
                problem = str(error) or type(error).__name__
                raise SetupError(f"{what} at {without_secrets(url)} was not ready in {wait:g} s: {problem}") from error
            await asyncio.sleep(_PAUSE)


async def _ignore(_: Exception) -> None:
    """nats-py reports here, and raises, every failed attempt: what was raised is what gets handled."""
