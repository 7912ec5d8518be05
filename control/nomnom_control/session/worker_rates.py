"""The rates of each worker, from two readings of its Prometheus metrics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from time import monotonic

from nomnom_control.environments import WORKER, Environment

_PROCESSED = ("nomnom_worker_completed", "nomnom_worker_repeated", "nomnom_worker_dead_letters")
_FAILED = ("nomnom_worker_failed",)
_BATCH = "nomnom_worker_batch_messages"


@dataclass(frozen=True, slots=True)
class WorkerRates:
    """One worker: messages/s and mean batch size since the last reading, and the failures since its start."""

    rate: float | None
    batch: float | None
    errors: int


@dataclass(frozen=True, slots=True)
class _Reading:
    at: float
    processed: float
    failed: float
    batches: float
    batched: float


class WorkerMeter:
    """Reads the metrics of an environment's workers; rates are available from the second reading on."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._last: dict[str, _Reading] = {}

    async def read(self) -> dict[str, WorkerRates]:
        """The rates of each worker by replica name. Raises ControlError if the environment is unavailable."""
        texts = await self._environment.metrics(WORKER)
        readings = {name: _read(text) for name, text in texts.items()}
        rates = {name: _compare(self._last.get(name), reading) for name, reading in readings.items()}
        self._last = readings
        return rates


def _read(text: str) -> _Reading:
    from prometheus_client.parser import text_string_to_metric_families

    totals: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            totals[sample.name] = totals.get(sample.name, 0.0) + (0.0 if "le" in sample.labels else sample.value)
    return _Reading(
        monotonic(),
        _sum(totals, _PROCESSED),
        _sum(totals, _FAILED),
        totals.get(f"{_BATCH}_count", 0.0),
        totals.get(f"{_BATCH}_sum", 0.0),
    )


def _sum(totals: Mapping[str, float], names: tuple[str, ...]) -> float:
    return sum(totals.get(f"{name}_total", 0.0) for name in names)


def _compare(before: _Reading | None, now: _Reading) -> WorkerRates:
    # Decreased totals belong to a new process of the same name.
    if before is None or now.processed < before.processed or now.at <= before.at:
        return WorkerRates(None, None, int(now.failed))
    batches = now.batches - before.batches
    mean = (now.batched - before.batched) / batches if batches > 0 else None
    return WorkerRates((now.processed - before.processed) / (now.at - before.at), mean, int(now.failed))
