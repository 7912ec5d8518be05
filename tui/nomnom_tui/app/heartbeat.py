"""What every view's top bar says: how the components are and how the workers scale, loaded once for all."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime

from nomnom.errors import NomnomError
from nomnom_control.environments import Component, Environment, Health, Scaling
from nomnom_tui.app.refresh import LoadError

_ORDER = (Health.FAILED, Health.DEGRADED, Health.STARTING)
HISTORY = 900
"""Samples kept: at one every two seconds, half an hour."""


@dataclass(frozen=True, slots=True)
class Sample:
    """The scaling at one moment."""

    at: datetime
    lag: int | None
    desired: int
    actual: int
    ready: int


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The environment's state as last heard, and the trouble of hearing it."""

    components: tuple[Component, ...] = ()
    scaling: Scaling | None = None
    problem: LoadError | None = None
    at: datetime | None = None

    @property
    def health(self) -> Health | None:
        """The worst health of any component; stopped where nothing is wanted."""
        if not self.components:
            return None
        found = {each.health for each in self.components}
        if found == {Health.STOPPED}:
            return Health.STOPPED
        return next((each for each in _ORDER if each in found), Health.HEALTHY)

    @property
    def stopped(self) -> bool:
        """Whether nothing runs."""
        return self.health is Health.STOPPED


def new_history() -> deque[Sample]:
    """A bounded history of samples."""
    return deque(maxlen=HISTORY)


async def take_heartbeat(environment: Environment) -> Heartbeat:
    """Ask for components and scaling; the latter only of something that runs."""
    components = tuple(await environment.components())
    heartbeat = Heartbeat(components, at=datetime.now(UTC))
    if not components or heartbeat.stopped:
        return heartbeat
    try:
        scaling = await environment.scaling()
    except NomnomError:
        # The components say what is away; the workers view asks for the scaling itself and shows the reason.
        return heartbeat
    return Heartbeat(components, scaling, at=datetime.now(UTC))
