"""The housekeeper's errors."""

from nomnom.errors import NomnomError


class HousekeeperError(NomnomError):
    """The base class of the housekeeper's errors."""
