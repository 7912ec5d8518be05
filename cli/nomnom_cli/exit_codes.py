"""What the exit codes mean."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """How a command ended."""

    OK = 0
    FAILED = 1
    USAGE = 2
    PARTLY = 3
    """Some of what was asked was done."""
    NOT_RUNNING = 4
    """Nothing runs there, or it does not answer."""
    REFUSED = 5
    """Not confirmed."""
    INTERRUPTED = 130
