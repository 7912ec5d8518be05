"""The worker's errors."""

from nomnom.errors import NomnomError


class WorkerError(NomnomError):
    """The base of what the worker raises on purpose."""


class OutageError(WorkerError):
    """A server that cannot do its part now. No message is to blame, and no attempt is used up."""


class RefusedError(WorkerError):
    """PostgreSQL (or its client) refuses what a batch holds: at least one message is to blame."""


class AbandonedError(WorkerError):
    """The worker has to end before an outage does: what it holds goes back to the stream."""
