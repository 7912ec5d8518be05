"""The base of every error that nomnom raises on purpose."""


class NomnomError(Exception):
    """Something that a person can act on: the text says what failed, with what input, and what to do."""
