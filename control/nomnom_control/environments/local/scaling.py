"""The local autoscaler: it reads the lag, decides by the policy, and starts and ends workers."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from nomnom.connections.nats import NatsConnection
from nomnom.inspection.jetstream import JetStream
from nomnom.scaling import LOCAL_LIMIT, ScalingPolicy, check_number
from nomnom.settings.streams import StreamSettings
from nomnom.telemetry import logger
from nomnom_control.environments import WORKER, ScalingSample
from nomnom_control.environments.local.autoscaler import Autoscaler
from nomnom_control.environments.local.services import Services
from nomnom_control.errors import ControlError

_log = logger(__name__)
_TIMEOUT = 2.0
_KEPT = 1800


class WorkerScaling:
    """Keeps the number of workers that the policy wants, or that a person set (``pinned``)."""

    def __init__(
        self, services: Services, policy: ScalingPolicy, pinned: int | None, nats_url: str, streams: StreamSettings
    ) -> None:
        self.pinned = pinned
        self.desired = 0
        self.lag: int | None = None
        self.changing = asyncio.Lock()
        """Held while workers are started or ended."""
        self._services, self._streams = services, streams
        self._nats = NatsConnection(nats_url, "nomnom-autoscaler", timeout=_TIMEOUT)
        self._autoscaler = Autoscaler(policy)
        self._samples: deque[ScalingSample] = deque(maxlen=_KEPT)
        self._decision = "no decision yet"
        self._decided_at: datetime | None = None
        self._changed = asyncio.Event()

    @property
    def policy(self) -> ScalingPolicy:
        """The policy; it decides while no number is pinned."""
        return self._autoscaler.policy

    def set_policy(self, policy: ScalingPolicy) -> None:
        """Replace the policy."""
        self._autoscaler.policy = policy
        self._changed.set()

    def pin(self, replicas: int | None) -> None:
        """Set the number of workers by hand; None lets the policy decide. Raises ScalingError."""
        if replicas is not None:
            check_number(replicas, LOCAL_LIMIT)
        self.pinned = replicas
        self._changed.set()

    def describe(self) -> dict[str, Any]:
        """The current numbers, and the last decision with its reason."""
        return {
            "policy": asdict(self.policy),
            "lag": self.lag,
            "desired": self.desired,
            "actual": len(self._services.of(WORKER)),
            "paused": self.pinned is not None,
            "decided_at": self._decided_at,
            "decision": self._decision,
        }

    def history(self) -> list[ScalingSample]:
        """The latest samples, one per poll, oldest first."""
        return list(self._samples)

    async def run(self) -> None:
        """Decide and act at every polling interval, and immediately after a change, until cancelled."""
        try:
            while True:
                self._changed.clear()
                self.lag = await JetStream(self._nats).lag(self._streams.stream, self._streams.consumer)
                self._decide()
                try:
                    await self._apply()
                except ControlError as error:
                    self._decision += f"; {error}"
                    _log.error("scaling failed", error=str(error))
                actual = len(self._services.of(WORKER))
                self._samples.append(ScalingSample(datetime.now(UTC), self.lag, self.desired, actual))
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self.policy.polling):
                        await self._changed.wait()
        finally:
            await self._nats.close()

    def _decide(self) -> None:
        if self.pinned is None:
            decision = self._autoscaler.decide(self.lag, self.desired, time.monotonic())
            desired, self._decision = decision.desired, decision.reason
        else:
            desired, self._decision = self.pinned, f"manual override: pinned at {self.pinned}"
        if desired != self.desired or self._decided_at is None:
            self._decided_at = datetime.now(UTC)
        self.desired = desired

    async def _apply(self) -> None:
        async with self.changing:
            workers = self._services.of(WORKER)
            if self.desired > len(workers):
                missing = self.desired - len(workers)
                started = [self._services.add_worker() for _ in range(missing)]
                # Wait for all of them, so that none is still starting when the error of another is raised.
                results = await asyncio.gather(*started, return_exceptions=True)
                for each in results:
                    if isinstance(each, BaseException):
                        raise each
            elif self.desired < len(workers):
                await asyncio.gather(*(self._services.end(each) for each in workers[self.desired :]))
