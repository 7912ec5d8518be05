"""The state in every view's top bar: component health and scaling, loaded once for the whole app."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime

from nomnom.errors import NomnomError
from nomnom_control.environments import Component, Environment, Health, Scaling
from nomnom_tui.app.refresh import LoadError

_ORDER = (Health.FAILED, Health.DEGRADED, Health.STARTING)
HISTORY = 900
"""Samples kept: half an hour at one sample every two seconds."""


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
    """The last known state of the environment, and why it could not be refreshed if so."""

    components: tuple[Component, ...] = ()
    scaling: Scaling | None = None
    problem: LoadError | None = None
    at: datetime | None = None

    @property
    def health(self) -> Health | None:
        """The worst health of any component; stopped if all components are stopped; None if there are none."""
        if not self.components:
            return None
        found = {each.health for each in self.components}
        if found == {Health.STOPPED}:
            return Health.STOPPED
        return next((each for each in _ORDER if each in found), Health.HEALTHY)

    @property
    def stopped(self) -> bool:
        """Whether nothing is running."""
        return self.health is Health.STOPPED


def new_history() -> deque[Sample]:
    """Return an empty, bounded history of samples."""
    return deque(maxlen=HISTORY)


async def read_heartbeat(environment: Environment) -> Heartbeat:
    """Read components and, if anything is running, scaling; raises ControlError if the components cannot be read."""
    components = tuple(await environment.components())
    heartbeat = Heartbeat(components, at=datetime.now(UTC))
    if not components or heartbeat.stopped:
        return heartbeat
    try:
        scaling = await environment.scaling()
    except NomnomError:
        # The components show what is unavailable; the workers view reads the scaling itself and shows the reason.
        return heartbeat
    return Heartbeat(components, scaling, at=datetime.now(UTC))
