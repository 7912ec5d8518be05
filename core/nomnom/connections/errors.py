"""The errors of a request to NATS or PostgreSQL."""

from __future__ import annotations

from datetime import datetime

from nomnom.errors import NomnomError


class RequestError(NomnomError):
    """A request to a server that failed: the base of what connections and inspection raise."""


class Unavailable(RequestError):  # noqa: N818  (a state of the server, which may end by itself)
    """A server that cannot be reached or does not respond in time.

    ``part`` names it: ``nats``, ``database``, or a subclass's own. ``reason`` is the cause without what surrounds it in
    the text; ``since`` is when the problem began, if that is known.
    """

    part = ""

    def __init__(self, text: str, reason: str = "", since: datetime | None = None) -> None:
        super().__init__(text)
        self.reason, self.since = reason or text, since


class NatsUnavailable(Unavailable):
    """NATS cannot be reached or does not respond in time."""

    part = "nats"


class DatabaseUnavailable(Unavailable):
    """PostgreSQL cannot be reached or does not respond in time."""

    part = "database"


class NotSetUp(RequestError):  # noqa: N818
    """A stream, consumer or table does not exist; ``nomnom setup`` creates it."""


class DatabaseRefused(RequestError):  # noqa: N818
    """PostgreSQL responded to a statement with an error."""
