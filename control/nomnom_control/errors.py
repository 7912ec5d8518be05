"""The base class of control's errors."""

from nomnom.errors import NomnomError


class ControlError(NomnomError):
    """A failed operation: what failed, with which input, and what to do."""


class NotConfirmed(ControlError):  # noqa: N818
    """The confirmation of a destructive operation does not match what would be lost."""
