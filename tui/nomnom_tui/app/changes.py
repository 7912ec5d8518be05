"""A change that a person asked for: what it does, what it loses, the command that would do the same."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

from nomnom_control.environments import Progress


@dataclass(frozen=True, slots=True)
class Change:
    """One change. Hand it to the app's ``perform``, the one place where changes are refused, asked for and made.

    ``act`` is a quick change; ``begin`` a long one, whose steps get a screen of their own. It is asked for first where
    it names something in ``loses`` or ``plan``; with ``typed`` the person has to type that word.
    """

    title: str
    """What it does, as an imperative: Scale the workers to 3."""
    command: str
    """The command line that does the same: nomnom scale 3."""
    act: Callable[[], Awaitable[object]] | None = None
    begin: Callable[[], AsyncIterator[Progress]] | None = None
    loses: tuple[str, ...] = ()
    plan: tuple[str, ...] = ()
    typed: str | None = None
    timeout: float = 30.0
    """Seconds that a quick change may take."""
    told: str = field(default="")
    """What to say when it is done; the title where empty."""

    @property
    def asks(self) -> bool:
        """Whether the person is asked first."""
        return bool(self.loses or self.plan or self.typed)
