"""The dashboard's errors, each with its HTTP status."""

from __future__ import annotations

from nomnom.errors import NomnomError


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

    def __init__(self, source: str, problem: str) -> None:
        self.source, self.problem = source, problem
        super().__init__(f"{source}: {problem}")


class QueryTimeoutError(UnavailableError):
    """A query that was cancelled at its time limit."""
