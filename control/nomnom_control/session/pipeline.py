"""A pipeline as an operator's session sees it: its connections, its schema, and what can be asked of it and done to it.

Everything that inspects or repairs hangs here: ``pipeline.dead_letters``, ``.jetstream``, ``.messages``,
``.statuses``, ``.entities``, ``.audit``, ``.overview()``. Nothing is opened before it is used, and what is away is an
error of the call that needed it (:class:`nomnom.connections.errors.Unavailable`), never of the session.
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
    from nomnom_control.session.audit import Audit
    from nomnom_control.session.dead_letters import DeadLetters
    from nomnom_control.session.jetstream import JetStream
    from nomnom_control.session.messages import Messages
    from nomnom_control.session.overview import Overview


class Pipeline:
    """The connections to one pipeline and all that control does with them; an asynchronous context manager.

    ``actor`` is who the audit names (this user at this host by default). ``journal`` is the folder that keeps audit
    entries until PostgreSQL has them (see :mod:`nomnom_control.session.audit`); NOMNOM_HOME moves its default.
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
        """The pipeline that runs in an environment; raises ControlError where the environment cannot tell of it."""
        return cls(await environment.endpoints(), await environment.schema(), await environment.streams())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close what was opened; the session can be used again afterwards."""
        await self.api.close()
        await self.database.close()
        await self.nats.close()

    @cached_property
    def grammar(self) -> Grammar:
        """The schema's grammar, compiled at its first use."""
        return Grammar(self.schema)

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
        """Posting messages and following them."""
        from nomnom_control.session.messages import Messages

        return Messages(self.api)

    @cached_property
    def statuses(self) -> Statuses:
        """The messages that workers have processed."""
        return Statuses(self.database)

    @cached_property
    def entities(self) -> Entities:
        """The rows that workers wrote."""
        return Entities(self.database, self.schema)

    @cached_property
    def audit(self) -> Audit:
        """What people did to this pipeline's messages."""
        from nomnom_control.session.audit import Audit

        return Audit(self.database, self.spool, self.actor)

    async def overview(self) -> Overview:
        """The pipeline's figures now; a part that is away leaves its own empty and says why."""
        from nomnom_control.session.overview import look

        return await look(self)


def default_actor() -> str:
    """Who acts, as the audit names them: user@host."""
    return f"{getpass.getuser()}@{socket.gethostname()}"


def default_spool() -> Path:
    """The folder that keeps audit entries until PostgreSQL has them."""
    home = ProgramSettings.from_environment().nomnom_home
    return Path(home) / "audit" if home else platformdirs.user_state_path("nomnom") / "audit"
