"""The base class of nomnom's errors."""


class NomnomError(Exception):
    """An expected failure. The text says what failed, with which input, and what to do."""
