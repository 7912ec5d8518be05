"""The local autoscaler at work: it reads the lag, asks the rule, and starts and ends workers."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import msgspec

from nomnom.connections.nats import NatsConnection
from nomnom.inspection.jetstream import JetStream
from nomnom.streams import StreamSettings
from nomnom.telemetry import logger
from nomnom_control.environments import WORKER, ScalingRule, ScalingSample
from nomnom_control.environments.local.autoscaler import Autoscaler
from nomnom_control.environments.local.services import Services
from nomnom_control.errors import ControlError

_log = logger(__name__)
_TIMEOUT = 2.0
_KEPT = 1800
MAX_WORKERS = 64


class WorkerScaling:
    """Keeps the number of workers as the rule wants it, or as a person does (``held``)."""

    def __init__(self, services: Services, rule: ScalingRule, held: int | None, nats_url: str) -> None:
        self.held = held
        self.desired = 0
        self.lag: int | None = None
        self.changing = asyncio.Lock()
        """Held while workers are started or ended."""
        self._services = services
        self._nats = NatsConnection(nats_url, "nomnom-autoscaler", timeout=_TIMEOUT)
        self._autoscaler = Autoscaler(rule)
        self._samples: deque[ScalingSample] = deque(maxlen=_KEPT)
        self._decision = "not decided yet"
        self._decided_at: datetime | None = None
        self._look = asyncio.Event()

    @property
    def rule(self) -> ScalingRule:
        """The rule that decides while nobody holds the number."""
        return self._autoscaler.rule

    def set_rule(self, rule: ScalingRule) -> None:
        """Replace the rule."""
        self._autoscaler.rule = rule
        self._look.set()

    def hold(self, replicas: int | None) -> None:
        """Keep that many workers until it is None again; raises ControlError."""
        if replicas is not None and not 0 <= replicas <= MAX_WORKERS:
            raise ControlError(f"expected 0 to {MAX_WORKERS} workers, found {replicas}")
        self.held = replicas
        self._look.set()

    def describe(self) -> dict[str, Any]:
        """The numbers now, and the last decision with its reason."""
        return {
            "rule": asdict(self.rule),
            "lag": self.lag,
            "desired": self.desired,
            "actual": len(self._services.of(WORKER)),
            "paused": self.held is not None,
            "decided_at": self._decided_at,
            "decision": self._decision,
        }

    def history(self) -> list[ScalingSample]:
        """One sample a poll, oldest first, of the last while."""
        return list(self._samples)

    async def run(self) -> None:
        """Decide and act, once every polling interval and at once when something was set, until cancelled."""
        streams = StreamSettings()
        try:
            while True:
                self._look.clear()
                self.lag = await JetStream(self._nats).lag(streams.stream, streams.consumer)
                self._decide()
                try:
                    await self._apply()
                except ControlError as error:
                    self._decision += f"; {error}"
                    _log.error("workers not changed", error=str(error))
                actual = len(self._services.of(WORKER))
                self._samples.append(ScalingSample(datetime.now(UTC), self.lag, self.desired, actual))
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self.rule.polling):
                        await self._look.wait()
        finally:
            await self._nats.close()

    def _decide(self) -> None:
        if self.held is None:
            decision = self._autoscaler.decide(self.lag, self.desired, time.monotonic())
            desired, self._decision = decision.desired, decision.reason
        else:
            desired, self._decision = self.held, f"paused: held at {self.held} by hand"
        if desired != self.desired or self._decided_at is None:
            self._decided_at = datetime.now(UTC)
        self.desired = desired

    async def _apply(self) -> None:
        async with self.changing:
            workers = self._services.of(WORKER)
            if self.desired > len(workers):
                missing = self.desired - len(workers)
                started = [self._services.add_worker() for _ in range(missing)]
                # Each is waited for, so that none is still starting when an error of another is told.
                outcomes = await asyncio.gather(*started, return_exceptions=True)
                for each in outcomes:
                    if isinstance(each, BaseException):
                        raise each
            elif self.desired < len(workers):
                await asyncio.gather(*(self._services.end(each) for each in workers[self.desired :]))


def change_rule(rule: ScalingRule, changes: Mapping[str, float]) -> ScalingRule:
    """The rule with other fields; raises ControlError where it makes no sense."""
    whole = {name: int(value) if value == int(value) else value for name, value in changes.items()}
    try:
        changed = msgspec.convert({**asdict(rule), **whole}, ScalingRule)
    except msgspec.ValidationError as error:
        raise ControlError(f"the scaling rule: {error}") from error
    if not 0 <= changed.minimum <= changed.maximum <= MAX_WORKERS or changed.maximum < 1:
        raise ControlError(f"expected 0 <= minimum <= maximum <= {MAX_WORKERS} and a maximum of at least 1")
    if changed.threshold < 1 or changed.cooldown < 0 or changed.polling < 0.1:
        raise ControlError("expected a threshold of at least 1, a cooldown from 0 s, polling from 0.1 s")
    return changed
