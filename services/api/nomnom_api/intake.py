"""What the two ways in share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from nomnom.schema import Schema
from nomnom.settings import ApiSettings
from nomnom_api.access import Access
from nomnom_api.bodies import Bodies
from nomnom_api.identities import Clock
from nomnom_api.publisher import Publisher
from nomnom_api.telemetry import Metrics


@dataclass(frozen=True, slots=True)
class Intake:
    """The parts that take messages, one each a process."""

    settings: ApiSettings
    schema: Schema
    access: Access
    bodies: Bodies
    publisher: Publisher
    clock: Clock
    metrics: Metrics
    stopping: Callable[[], bool]
    """Whether the process is on its way down."""
