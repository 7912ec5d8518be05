"""The dashboard's errors, each with its HTTP status."""

from __future__ import annotations

from nomnom.connections.errors import DatabaseRefused, RequestError
from nomnom.connections.postgres import AccessDenied, InvalidValue, StatementTimeout
from nomnom.errors import NomnomError
from nomnom.inspection.cursors import InvalidQuery


class DashboardError(NomnomError):
    """A query that failed."""

    status = 500
    retry_after: int | None = None


class InvalidQueryError(DashboardError):
    """An invalid parameter; the text says what is allowed."""

    status = 400

    def __init__(self, problem: str, allowed: list[str] | None = None) -> None:
        self.allowed = allowed
        super().__init__(problem)


class UnauthorizedError(DashboardError):
    """The token or password is missing or invalid."""

    status = 401


class NotFoundError(DashboardError):
    """The requested object does not exist."""

    status = 404


class UnavailableError(DashboardError):
    """PostgreSQL or NATS is unavailable or not set up; a later retry may succeed."""

    status = 503
    retry_after = 5


def http_error(error: RequestError) -> DashboardError:
    """The answer to a request that failed at PostgreSQL or NATS."""
    if isinstance(error, InvalidQuery):
        return InvalidQueryError(str(error), error.allowed)
    if isinstance(error, InvalidValue):
        return InvalidQueryError(str(error))
    if isinstance(error, DatabaseRefused) and not isinstance(error, StatementTimeout | AccessDenied):
        return DashboardError(str(error))
    return UnavailableError(str(error))
