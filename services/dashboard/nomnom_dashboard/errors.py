"""The dashboard's errors. Each knows the HTTP status that it becomes."""

from __future__ import annotations

from nomnom.errors import NomnomError


class DashboardError(NomnomError):
    """Something that a query could not be answered for."""

    status = 500
    retry_after: int | None = None


class InvalidQueryError(DashboardError):
    """A parameter that cannot be used; the text says what is allowed."""

    status = 400

    def __init__(self, problem: str, allowed: list[str] | None = None) -> None:
        self.allowed = allowed
        super().__init__(problem)


class UnauthorizedError(DashboardError):
    """No token or password, or a wrong one."""

    status = 401


class NotFoundError(DashboardError):
    """What was asked for does not exist."""

    status = 404


class UnavailableError(DashboardError):
    """PostgreSQL or NATS is away, or not set up; asking again later may help."""

    status = 503
    retry_after = 5

    def __init__(self, source: str, problem: str) -> None:
        self.source, self.problem = source, problem
        super().__init__(f"{source}: {problem}")


class QueryTimeoutError(UnavailableError):
    """A query that was stopped at its time limit."""
