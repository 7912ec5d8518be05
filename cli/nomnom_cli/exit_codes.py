"""Exit codes."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """The exit code of a command."""

    OK = 0
    FAILED = 1
    USAGE = 2
    PARTLY = 3
    """Partial success."""
    NOT_RUNNING = 4
    """The pipeline is not running, or a server is unavailable."""
    REFUSED = 5
    """Not confirmed."""
    INTERRUPTED = 130
