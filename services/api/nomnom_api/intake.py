"""The components shared by single messages and batches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from nomnom.schema import Schema
from nomnom.settings import ApiSettings
from nomnom_api.bodies import Bodies
from nomnom_api.identities import Clock
from nomnom_api.keys import Keys
from nomnom_api.publisher import Publisher
from nomnom_api.telemetry import Metrics


@dataclass(frozen=True, slots=True)
class Intake:
    """The components that accept messages; one instance per process."""

    settings: ApiSettings
    schema: Schema
    bodies: Bodies
    publisher: Publisher
    keys: Keys
    clock: Clock
    metrics: Metrics
    stopping: Callable[[], bool]
    """Returns whether the process is shutting down."""
