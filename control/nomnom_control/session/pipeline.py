"""A session with a pipeline: its connections, its schema, and all inspection and repair functions.

They are ``pipeline.account``, ``.dead_letters``, ``.jetstream``, ``.messages``, ``.statuses``, ``.entities``,
``.audit`` and ``.overview()``. Connections are opened at the first use. If a server is unavailable, the call that needs
it raises :class:`nomnom.connections.errors.Unavailable`; the session remains usable.
"""

from __future__ import annotations

import getpass
import socket
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self

import platformdirs

from nomnom.connections.nats import NatsConnection
from nomnom.connections.postgres import Database
from nomnom.grammar import Grammar
from nomnom.inspection.entities import Entities
from nomnom.inspection.statuses import Statuses
from nomnom.schema import Schema
from nomnom.settings import ProgramSettings
from nomnom.settings.streams import StreamSettings
from nomnom_control.environments import Endpoints, Environment
from nomnom_control.session.connections import TIMEOUT, Api

if TYPE_CHECKING:
    from nomnom_control.session.account import Accounts
    from nomnom_control.session.audit import Audit
    from nomnom_control.session.dead_letters import DeadLetters
    from nomnom_control.session.jetstream import JetStream
    from nomnom_control.session.messages import Messages
    from nomnom_control.session.overview import Overview


class Pipeline:
    """The connections to one pipeline; an asynchronous context manager.

    ``actor`` is the user in the audit log (default: user@host). ``spool`` is the folder that keeps audit entries until
    PostgreSQL has them (see :mod:`nomnom_control.session.audit`); its default depends on NOMNOM_HOME.
    """

    def __init__(
        self,
        endpoints: Endpoints,
        schema: Schema,
        streams: StreamSettings | None = None,
        *,
        actor: str | None = None,
        spool: Path | None = None,
        timeout: float = TIMEOUT,
    ) -> None:
        self.endpoints, self.schema = endpoints, schema
        self.streams = streams or StreamSettings()
        self.actor = actor or default_actor()
        self.spool = spool or default_spool()
        self.nats = NatsConnection(endpoints.nats, "nomnom-control", timeout=timeout)
        self.database = Database(endpoints.database, application="nomnom-control", seconds=timeout)
        self.api = Api(endpoints.api, endpoints.api_token, timeout)

    @classmethod
    async def of(cls, environment: Environment) -> Self:
        """The pipeline of an environment. Raises ControlError if the environment does not provide what is needed."""
        return cls(await environment.endpoints(), await environment.schema(), await environment.streams())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections; they are opened again when needed."""
        await self.api.close()
        await self.database.close()
        await self.nats.close()

    @cached_property
    def grammar(self) -> Grammar:
        """The grammar of the schema, compiled at the first use."""
        return Grammar(self.schema)

    @cached_property
    def account(self) -> Accounts:
        """What became of every message."""
        from nomnom_control.session.account import Accounts

        return Accounts(self)

    @cached_property
    def jetstream(self) -> JetStream:
        """Streams, consumers and stored messages."""
        from nomnom_control.session.jetstream import JetStream

        return JetStream(self)

    @cached_property
    def dead_letters(self) -> DeadLetters:
        """The dead letters."""
        from nomnom_control.session.dead_letters import DeadLetters

        return DeadLetters(self)

    @cached_property
    def messages(self) -> Messages:
        """Post and follow messages."""
        from nomnom_control.session.messages import Messages

        return Messages(self.api)

    @cached_property
    def statuses(self) -> Statuses:
        """The statuses of processed messages."""
        return Statuses(self.database)

    @cached_property
    def entities(self) -> Entities:
        """The rows of the entities' tables."""
        return Entities(self.database, self.schema)

    @cached_property
    def audit(self) -> Audit:
        """The audit log."""
        from nomnom_control.session.audit import Audit
        from nomnom_control.session.audit.recovery import Recovery

        return Audit(self.database, self.spool, self.actor, Recovery(self).conclude)

    async def overview(self, previous: Overview | None = None) -> Overview:
        """The current key figures, and what was processed since the ``previous`` ones; those of an unavailable server
        are None, with the reason.
        """
        from nomnom_control.session.overview import read_overview

        return await read_overview(self, previous)


def default_actor() -> str:
    """The user in the audit log: user@host."""
    return f"{getpass.getuser()}@{socket.gethostname()}"


def default_spool() -> Path:
    """The folder for audit entries that are not in PostgreSQL yet."""
    home = ProgramSettings.from_environment().nomnom_home
    return Path(home) / "audit" if home else platformdirs.user_state_path("nomnom") / "audit"
