"""The base of what control raises."""

from nomnom.errors import NomnomError


class ControlError(NomnomError):
    """An operator's action that failed: what, on what, and what to do."""
