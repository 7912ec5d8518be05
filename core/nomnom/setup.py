"""``nomnom setup``: creates or migrates streams, consumer, tables and roles. Idempotent, also when run concurrently."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from nats.errors import Error as NatsError

from nomnom.account import begin
from nomnom.connections.errors import Unavailable
from nomnom.connections.nats import NatsConnection
from nomnom.connections.postgres import ERRORS, Database
from nomnom.database import migrate
from nomnom.errors import NomnomError
from nomnom.inspection.jetstream import JetStream, StreamReport
from nomnom.partitions import partition_tables
from nomnom.retry import RetryPolicy, retry
from nomnom.roles import Role, ensure_roles
from nomnom.schema import load_schema
from nomnom.settings import Settings, SetupSettings, without_secrets
from nomnom.streams import StreamsNotReadyError, ensure_streams
from nomnom.telemetry import configure_logging, logger

_log = logger(__name__)
_RETRY = RetryPolicy(first=0.25, longest=1.0)
_TRANSIENT = (OSError, NatsError, Unavailable, StreamsNotReadyError)
_WAIT = 30.0


class SetupError(NomnomError):
    """NATS or PostgreSQL was not ready in time."""


async def set_up(settings: Settings, wait: float = _WAIT, roles: Sequence[Role] = (), expire: int = 0) -> list[str]:
    """Create or migrate streams, tables and roles, waiting up to ``wait`` seconds for each server.

    ``expire`` confirms how many messages and dead letters are past a maximum age that is lowered. Returns what was
    done. Raises SetupError, StreamError, MigrationError, RoleError or SchemaError.
    """
    schema = load_schema(settings.nomnom_schema)
    done: list[str] = []
    reports: list[StreamReport] = []

    async def streams() -> None:
        nats = NatsConnection(settings.nats_url, "nomnom-setup", inbox_prefix=settings.nats_inbox_prefix)
        try:
            done.extend(await ensure_streams(nats, settings.streams, expire))
            reports.append(await JetStream(nats).stream(settings.streams.stream))
        finally:
            await nats.close()

    async def tables() -> None:
        # A migration takes as long as it takes.
        database = Database(settings.database_url, application="nomnom-setup", seconds=None)
        connection = await database.connect()
        try:
            done.extend(await migrate(connection, schema))
            done.extend(await partition_tables(connection))
            await begin(connection, reports[-1])
            done.extend(await ensure_roles(connection, schema, roles))
        except ERRORS as error:
            raise database.error(error) from error
        finally:
            await connection.close()

    await _ready(streams, wait, "NATS", settings.nats_url)
    await _ready(tables, wait, "PostgreSQL", settings.database_url)
    return done


def roles_of(settings: SetupSettings) -> list[Role]:
    """The roles of the components that have a URL of their own."""
    return [Role.from_url(component, url) for component, url in settings.role_urls.items()]


def main() -> None:
    """``nomnom-setup``: the same as ``nomnom setup``, for images without the command line."""
    try:
        settings = SetupSettings.from_environment()
        configure_logging("setup", settings)
        done = asyncio.run(
            set_up(settings, settings.nomnom_setup_wait, roles_of(settings), settings.nomnom_setup_expire)
        )
    except NomnomError as error:
        raise SystemExit(f"nomnom-setup: {error}") from error
    for each in done:
        _log.info(each)


async def _ready(step: Callable[[], Awaitable[None]], wait: float, what: str, url: str) -> None:
    """Do a step once its server is ready; raises SetupError if that takes longer than ``wait`` seconds."""
    try:
        await retry(step, _RETRY, _TRANSIENT, within=wait)
    except _TRANSIENT as error:
        problem = error.reason if isinstance(error, Unavailable) else str(error) or type(error).__name__
        raise SetupError(f"{what} at {without_secrets(url)} not ready after {wait:g} s: {problem}") from error
