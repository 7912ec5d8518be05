"""Conditions that need attention, most severe first, and the screen that shows more."""

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
"""Seconds after which a pending message is reported as old."""


@dataclass(frozen=True, slots=True)
class Alert:
    """One condition that needs attention; ``route`` names the screen that shows more about it."""

    severity: Health
    text: str
    route: str


def alerts(heartbeat: Heartbeat, overview: Overview | None) -> list[Alert]:
    """Return everything that needs attention now, most severe first."""
    found: list[Alert] = []
    if heartbeat.problem is not None:
        found.append(Alert(Health.FAILED, heartbeat.problem.text, "environments"))
    for each in heartbeat.components:
        if each.health in (Health.FAILED, Health.DEGRADED, Health.STARTING):
            text = f"{each.name} {each.health.value}" + (f": {each.detail}" if each.detail else "")
            found.append(Alert(each.health, text, "workers" if each.name == WORKER else "logs"))
    if overview is not None:
        found += _from_figures(heartbeat, overview)
    if heartbeat.scaling is not None and heartbeat.scaling.paused:
        text = f"autoscaling is paused at {figures.counted(heartbeat.scaling.desired, 'worker')}"
        found.append(Alert(Health.DEGRADED, text, "workers"))
    order = (Health.FAILED, Health.DEGRADED, Health.STARTING)
    return sorted(found, key=lambda each: order.index(each.severity))


def _from_figures(heartbeat: Heartbeat, overview: Overview) -> list[Alert]:
    found: list[Alert] = []
    if overview.nats_problem:
        found.append(Alert(Health.FAILED, overview.nats_problem, "logs"))
    if overview.database_problem:
        found.append(Alert(Health.FAILED, overview.database_problem, "logs"))
    if overview.balance is not None and overview.balance.unexplained:
        text = f"{figures.counted(overview.balance.unexplained, 'message')} unexplained: see nomnom account"
        found.append(Alert(Health.FAILED, text, "messages"))
    for stream in (overview.stream, overview.dead):
        if stream is not None and stream.fill is not None and stream.fill >= _FULL:
            text = f"{stream.name} is {stream.fill:.0%} full; a full stream rejects messages"
            found.append(Alert(Health.DEGRADED, text, "streams"))
    lag, oldest = overview.lag, overview.oldest
    if lag and heartbeat.scaling is not None and heartbeat.scaling.ready == 0:
        found.append(Alert(Health.DEGRADED, f"{figures.counted(lag, 'message')} pending, no worker ready", "workers"))
    elif lag and oldest is not None and oldest > _OLD:
        text = f"{figures.counted(lag, 'message')} pending, oldest {figures.duration(oldest)}"
        found.append(Alert(Health.DEGRADED, text, "workers"))
    if overview.consumer is not None and overview.consumer.paused:
        found.append(Alert(Health.DEGRADED, f"consumer {overview.consumer.name} is paused", "consumers"))
    if overview.dead_letters:
        oldest_text = f", oldest {figures.duration(overview.oldest_dead)}" if overview.oldest_dead else ""
        text = f"{figures.counted(overview.dead_letters, 'dead letter')}{oldest_text}"
        found.append(Alert(Health.DEGRADED, text, "dead-letters"))
    if overview.retention is not None and overview.retention.warning:
        found.append(Alert(Health.DEGRADED, overview.retention.warning, "dead-letters"))
    return found
