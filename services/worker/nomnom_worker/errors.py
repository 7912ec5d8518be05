"""The worker's errors."""

from nomnom.errors import NomnomError


class WorkerError(NomnomError):
    """The base class of the worker's errors."""


class OutageError(WorkerError):
    """A server is unavailable. Not caused by a message, so it uses up no attempt."""


class RefusedError(WorkerError):
    """PostgreSQL or its client rejected a statement, on a connection that works.

    ``certain``: because of the values of a message; otherwise the tables may be the cause. ``slow``: it was cancelled
    at a time limit. ``table`` and ``column`` are those that must not be null and were, if that is the error.
    """

    def __init__(
        self,
        text: str,
        *,
        certain: bool = False,
        slow: bool = False,
        table: str | None = None,
        column: str | None = None,
    ) -> None:
        super().__init__(text)
        self.certain, self.slow, self.table, self.column = certain, slow, table, column


class AbandonedError(WorkerError):
    """The worker has to stop during an outage: it returns its messages to the stream."""
