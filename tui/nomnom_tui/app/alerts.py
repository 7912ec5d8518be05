"""What needs a person's attention, the gravest first, and the screen that helps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nomnom.presentation import figures
from nomnom_control.environments import WORKER, Health
from nomnom_tui.app.heartbeat import Heartbeat

if TYPE_CHECKING:
    from nomnom_control.session.overview import Overview

_FULL = 0.8
_OLD = 60.0
"""Seconds after which a waiting message is old."""


@dataclass(frozen=True, slots=True)
class Alert:
    """One thing to look at: how grave (Health.FAILED, DEGRADED, STARTING), what, and the screen that leads to it."""

    grade: Health
    text: str
    place: str


def alerts(heartbeat: Heartbeat, overview: Overview | None) -> list[Alert]:
    """Everything that needs attention now, the gravest first."""
    found: list[Alert] = []
    if heartbeat.problem is not None:
        found.append(Alert(Health.FAILED, heartbeat.problem.text, "environments"))
    for each in heartbeat.components:
        if each.health in (Health.FAILED, Health.DEGRADED, Health.STARTING):
            text = f"{each.name} is {each.health.value}" + (f": {each.detail}" if each.detail else "")
            found.append(Alert(each.health, text, "workers" if each.name == WORKER else "logs"))
    if overview is not None:
        found += _from_figures(heartbeat, overview)
    if heartbeat.scaling is not None and heartbeat.scaling.paused:
        text = f"autoscaling is paused at {heartbeat.scaling.desired} workers"
        found.append(Alert(Health.DEGRADED, text, "workers"))
    order = (Health.FAILED, Health.DEGRADED, Health.STARTING)
    return sorted(found, key=lambda each: order.index(each.grade))


def _from_figures(heartbeat: Heartbeat, overview: Overview) -> list[Alert]:
    found: list[Alert] = []
    if overview.nats_problem:
        found.append(Alert(Health.FAILED, overview.nats_problem, "logs"))
    if overview.database_problem:
        found.append(Alert(Health.FAILED, overview.database_problem, "logs"))
    for stream in (overview.stream, overview.dead):
        if stream is not None and stream.fill is not None and stream.fill >= _FULL:
            text = f"{stream.name} is {stream.fill:.0%} full: when it is full, messages are refused"
            found.append(Alert(Health.DEGRADED, text, "streams"))
    lag, oldest = overview.lag, overview.oldest
    if lag and heartbeat.scaling is not None and heartbeat.scaling.ready == 0:
        found.append(Alert(Health.DEGRADED, f"{figures.count(lag)} messages wait and no worker is ready", "workers"))
    elif lag and oldest is not None and oldest > _OLD:
        text = f"the oldest of {figures.count(lag)} messages waits for {figures.duration(oldest)}"
        found.append(Alert(Health.DEGRADED, text, "workers"))
    if overview.consumer is not None and overview.consumer.paused:
        found.append(Alert(Health.DEGRADED, f"consumer {overview.consumer.name} is paused", "consumers"))
    if overview.dead_letters:
        waits = f", the oldest for {figures.duration(overview.oldest_dead)}" if overview.oldest_dead else ""
        dead_letters = "dead letter waits" if overview.dead_letters == 1 else "dead letters wait"
        text = f"{figures.count(overview.dead_letters)} {dead_letters}{waits}"
        found.append(Alert(Health.DEGRADED, text, "dead_letters"))
    return found
