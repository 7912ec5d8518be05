"""A change requested by the user: what it does, what it deletes, and the equivalent command."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from nomnom_control.environments import Progress


@dataclass(frozen=True, slots=True)
class Change:
    """One change. Pass it to the app's ``perform``, which refuses, confirms and makes all changes.

    ``act`` makes a quick change; ``begin`` starts a long one, whose steps are shown on their own screen. ``losses`` or
    ``plan`` require confirmation first; ``confirm_text`` requires typing that text.
    """

    title: str
    """What it does, as an imperative: Scale workers to 3."""
    command: str
    """The equivalent command line: nomnom scale 3."""
    act: Callable[[], Awaitable[object]] | None = None
    begin: Callable[[], AsyncIterator[Progress]] | None = None
    losses: tuple[str, ...] = ()
    plan: tuple[str, ...] = ()
    confirm_text: str | None = None
    timeout: float = 30.0
    """Timeout of a quick change in seconds."""
    success: str = ""
    """Message to show on success; defaults to the title."""

    @property
    def needs_confirmation(self) -> bool:
        """Whether the user has to confirm it first."""
        return bool(self.losses or self.plan or self.confirm_text)
