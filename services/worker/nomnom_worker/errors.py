"""The worker's errors."""

from nomnom.errors import NomnomError


class WorkerError(NomnomError):
    """The base class of the worker's errors."""


class OutageError(WorkerError):
    """A server is unavailable. Not caused by a message, so it uses up no attempt."""


class RefusedError(WorkerError):
    """PostgreSQL or its client rejected a batch, because of at least one of its messages."""


class AbandonedError(WorkerError):
    """The worker has to stop during an outage: it returns its messages to the stream."""
