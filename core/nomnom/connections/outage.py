"""The reason of an outage, reported once and steadily although each attempt may fail in another way."""

from __future__ import annotations

_REPEATED = 3
"""How many times in a row another reason must be found before it replaces the present one."""


class Outage:
    """Why a server is unavailable, from the first failure until :meth:`end`."""

    def __init__(self, initial: str | None = None) -> None:
        self.reason: str | None = initial
        """None if the server is available. ``initial`` is replaced by the first reason found."""
        self._initial = initial
        self._other, self._times = "", 0

    def report(self, reason: str) -> bool:
        """Report a failure; returns whether its reason is to be logged: the first one, and one that has replaced it.

        A server that restarts refuses connections, is starting up, or does not respond, in turns. Only a reason that is
        found several times in a row replaces the present one.
        """
        if self.reason in (None, self._initial):
            self._initial, self._times = None, 0
            self.reason = reason
            return True
        if reason == self.reason:
            self._times = 0
            return False
        self._times = self._times + 1 if reason == self._other else 1
        self._other = reason
        if self._times < _REPEATED:
            return False
        self.reason, self._times = reason, 0
        return True

    def end(self) -> bool:
        """Report that the server is available; returns whether it was not."""
        ended = self.reason is not None
        self.reason, self._initial, self._times = None, None, 0
        return ended
