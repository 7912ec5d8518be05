"""A fake environment and pipeline with fixed responses, for tests of the screens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from nomnom.envelope import Status
from nomnom.inspection.jetstream import ConsumerReport, StreamReport, StreamState
from nomnom.inspection.statuses import StatusCount
from nomnom.scaling import ScalingPolicy
from nomnom_control.environments import (
    Component,
    Endpoints,
    Environment,
    Health,
    LogLine,
    Progress,
    Replica,
    Revision,
    Scaling,
    Step,
)
from nomnom_control.environments.variables import Variables
from nomnom_control.errors import ControlError
from nomnom_control.session.overview import Overview
from nomnom_tui.app.session import Session

ANSWERS = 5
"""Responses of the fake pipeline before it stops responding, so that snapshots are deterministic."""
MOMENT = datetime(2024, 6, 1, 12, 0, 0, tzinfo=UTC)


class FakeEnvironment(Environment):
    """Returns the same data each time; ``broken`` makes every request fail, ``requests`` records them."""

    kind = "local"
    name = "local"

    def __init__(self, *, stopped: bool = False) -> None:
        self.stopped = stopped
        self.broken: str | None = None
        self.requests: list[str] = []
        self.policy = ScalingPolicy(minimum=0, maximum=4, threshold=500, cooldown=30, polling=1)
        self.paused = False
        self.desired = 3
        self.lines = fake_lines()

    def _record(self, request: str) -> None:
        self.requests.append(request)
        if self.broken:
            raise ControlError(self.broken)

    async def components(self) -> list[Component]:
        self._record("components")
        if self.stopped:
            return [Component(name, 0, 0, Health.STOPPED) for name in ("nats", "postgres", "api", "worker")]
        return fake_components()

    async def endpoints(self) -> Endpoints:
        self._record("endpoints")
        return Endpoints(
            "http://127.0.0.1:8080",
            "nats://127.0.0.1:4222",
            "http://127.0.0.1:8222",
            "postgresql://postgres:secret@127.0.0.1:5432/nomnom",
        )

    async def logs(
        self, components: Sequence[str] = (), *, follow: bool = False, tail: int | None = 100
    ) -> AsyncIterator[LogLine]:
        self._record("logs")
        for line in self.lines:
            if not components or line.component in components:
                yield line
        if follow:
            await asyncio.Event().wait()

    async def scaling(self) -> Scaling:
        self._record("scaling")
        return Scaling(
            self.policy, 1234, self.desired, 3, 2, self.paused, MOMENT, "lag 1,234 / threshold 500 → 3, within 0…4"
        )

    async def set_scaling_policy(self, policy: ScalingPolicy) -> None:
        self._record("set_scaling_policy")
        self.policy = policy

    async def scale(self, component: str, replicas: int) -> None:
        self._record(f"scale {component} {replicas}")
        self.desired, self.paused = replicas, True

    async def pause_autoscaling(self) -> None:
        self._record("pause")
        self.paused = True

    async def resume_autoscaling(self) -> None:
        self._record("resume")
        self.paused = False

    async def _steps(self, request: str, *names: str) -> AsyncIterator[Progress]:
        self._record(request)
        for name in names:
            yield Progress(name, Step.STARTED)
            yield Progress(name, Step.OUTPUT, f"output of {name}")
            yield Progress(name, Step.DONE, "ready", 0.3)

    def restart(self, component: str) -> AsyncIterator[Progress]:
        return self._steps(f"restart {component}", f"{component}-1", f"{component}-2")

    async def variables(self, component: str) -> Variables:
        return Variables({"BATCH_SIZE": "500", "POLL_INTERVAL_MS": "50"})

    def roll_out(self, component: str, changes: Mapping[str, str], cause: str) -> AsyncIterator[Progress]:
        return self._steps(f"configure {component}", f"{component}-1")

    async def history(self, component: str) -> list[Revision]:
        self._record("history")
        return [
            Revision(3, MOMENT, "BATCH_SIZE=500", True, {"BATCH_SIZE": "500", "POLL_INTERVAL_MS": "50"}),
            Revision(2, MOMENT - timedelta(hours=2), "restart", False, {"BATCH_SIZE": "200"}),
            Revision(1, MOMENT - timedelta(days=1), "first start", False, {}),
        ]

    def rollback(self, component: str, revision: int | None = None) -> AsyncIterator[Progress]:
        return self._steps(f"rollback {component} {revision}", f"{component}-1")

    def start(self) -> AsyncIterator[Progress]:
        self.stopped = False
        return self._steps("start", "nats", "postgres", "setup", "api", "worker")

    def stop(self) -> AsyncIterator[Progress]:
        self.stopped = True
        return self._steps("stop", "api", "worker", "postgres", "nats")

    def destroy(self) -> AsyncIterator[Progress]:
        self.stopped = True
        return self._steps("destroy", "data")


class FakeSession(Session):
    """A session with a fake pipeline, whose overview advances by one second with each request."""

    def __init__(self, environment: FakeEnvironment, *, readonly: bool = False) -> None:
        super().__init__(environment, readonly=readonly)
        self.fake = FakePipeline()

    async def pipeline(self) -> Any:
        return self.fake


class FakePipeline:
    """Returns the data of the overview."""

    def __init__(self) -> None:
        self.requests = 0

    async def overview(self, previous: Overview | None = None) -> Overview:
        self.requests += 1
        if self.requests > ANSWERS:
            await asyncio.Event().wait()
        at = MOMENT + timedelta(seconds=self.requests)
        accepted, processed = 410 * self.requests, 380 * self.requests
        pending = accepted - processed
        stream = StreamReport(
            {"name": "MESSAGES", "max_bytes": 1024**3},
            MOMENT,
            StreamState(pending, 200 * pending, processed + 1, at - timedelta(seconds=3), accepted, at),
        )
        dead = StreamReport(
            {"name": "MESSAGESDLQ", "max_bytes": 1024**3},
            MOMENT,
            StreamState(42, 9000, 1, at - timedelta(hours=2), 42 + self.requests, at),
        )
        consumer = ConsumerReport("MESSAGES", "workers", MOMENT, {}, num_ack_pending=500, num_pending=pending - 500)
        counts = (StatusCount(Status.COMPLETED, 1_234_567, exact=False), StatusCount(Status.FAILED, 3, exact=True))
        return Overview(at, stream, consumer, dead, counts, lag=pending, processed=380 if previous else None)


def fake_components() -> list[Component]:
    """Return a running pipeline with one worker starting."""
    up = MOMENT - timedelta(hours=3)
    return [
        Component("nats", 1, 1, Health.HEALTHY, "2.12.1", "127.0.0.1:4222", (Replica("nats", "running", True, up),)),
        Component(
            "postgres", 1, 1, Health.HEALTHY, "17.6", "127.0.0.1:5432", (Replica("postgres", "running", True, up),)
        ),
        Component("api", 1, 1, Health.HEALTHY, "0.1.0", "127.0.0.1:8080", (Replica("api-1", "running", True, up, 1),)),
        Component(
            "worker",
            3,
            2,
            Health.STARTING,
            "0.1.0",
            "2 of 3 ready",
            (
                Replica("worker-1", "running", True, up),
                Replica("worker-2", "running", True, MOMENT - timedelta(minutes=4)),
                Replica("worker-3", "starting", False, MOMENT - timedelta(seconds=1)),
            ),
        ),
    ]


def fake_lines() -> list[LogLine]:
    """Return lines of every component and level."""
    lines: list[tuple[str, str, str, dict[str, Any]]] = [
        ("nats", "info", "Server is ready", {}),
        ("postgres", "info", "database system is ready to accept connections", {}),
        ("api", "info", "listening", {"address": "127.0.0.1:8080"}),
        ("worker", "info", "batch written", {"messages": 500, "seconds": 0.041}),
        ("worker", "warning", "message will be retried", {"message_id": "0190-1", "attempt": 2}),
        ("worker", "error", "message is a dead letter", {"message_id": "0190-1", "reason": "record"}),
    ]
    return [
        LogLine(component, f"{component}-1", MOMENT + timedelta(milliseconds=350 * at), level, text, fields)
        for at, (component, level, text, fields) in enumerate(lines * 3)
    ]
