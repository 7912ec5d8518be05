"""What needs a person's attention, the gravest first, and the screen that helps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nomnom_control.environment import WORKER, Health
from nomnom_tui import figures
from nomnom_tui.pulse import Pulse

if TYPE_CHECKING:
    from nomnom_control.overview import Overview

_FULL = 0.8
_OLD = 60.0
"""Seconds after which a waiting message is old."""


@dataclass(frozen=True, slots=True)
class Concern:
    """One thing to look at: how grave (Health.FAILED, DEGRADED, STARTING), what, and the screen that leads to it."""

    grade: Health
    text: str
    place: str


def concerns(pulse: Pulse, overview: Overview | None) -> list[Concern]:
    """Everything that needs attention now, the gravest first."""
    found: list[Concern] = []
    if pulse.trouble is not None:
        found.append(Concern(Health.FAILED, pulse.trouble.text, "environments"))
    for each in pulse.components:
        if each.health in (Health.FAILED, Health.DEGRADED, Health.STARTING):
            text = f"{each.name} is {each.health.value}" + (f": {each.detail}" if each.detail else "")
            found.append(Concern(each.health, text, "workers" if each.name == WORKER else "logs"))
    if overview is not None:
        found += _from_figures(pulse, overview)
    if pulse.scaling is not None and pulse.scaling.paused:
        text = f"autoscaling is paused at {pulse.scaling.desired} workers"
        found.append(Concern(Health.DEGRADED, text, "workers"))
    order = (Health.FAILED, Health.DEGRADED, Health.STARTING)
    return sorted(found, key=lambda each: order.index(each.grade))


def _from_figures(pulse: Pulse, overview: Overview) -> list[Concern]:
    found: list[Concern] = []
    if overview.nats_trouble:
        found.append(Concern(Health.FAILED, overview.nats_trouble, "logs"))
    if overview.database_trouble:
        found.append(Concern(Health.FAILED, overview.database_trouble, "logs"))
    for stream in (overview.stream, overview.dead):
        if stream is not None and stream.fill is not None and stream.fill >= _FULL:
            text = f"{stream.name} is {stream.fill:.0%} full: when it is full, messages are refused"
            found.append(Concern(Health.DEGRADED, text, "streams"))
    lag, oldest = overview.lag, overview.oldest
    if lag and pulse.scaling is not None and pulse.scaling.ready == 0:
        found.append(Concern(Health.DEGRADED, f"{figures.count(lag)} messages wait and no worker is ready", "workers"))
    elif lag and oldest is not None and oldest > _OLD:
        text = f"the oldest of {figures.count(lag)} messages waits for {figures.duration(oldest)}"
        found.append(Concern(Health.DEGRADED, text, "workers"))
    if overview.consumer is not None and overview.consumer.paused:
        found.append(Concern(Health.DEGRADED, f"consumer {overview.consumer.name} is paused", "consumers"))
    if overview.dead_letters:
        waits = f", the oldest for {figures.duration(overview.oldest_dead)}" if overview.oldest_dead else ""
        letters = "dead letter waits" if overview.dead_letters == 1 else "dead letters wait"
        text = f"{figures.count(overview.dead_letters)} {letters}{waits}"
        found.append(Concern(Health.DEGRADED, text, "dead_letters"))
    return found
