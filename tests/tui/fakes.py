"""An environment that stands still: fixed answers, for snapshots of the screens with fixed data only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from nomnom.envelope import Status
from nomnom.inspection.jetstream import ConsumerReport, StreamReport, StreamState
from nomnom.inspection.statuses import StatusCount
from nomnom_control.environments import (
    Component,
    Endpoints,
    Environment,
    Health,
    Instance,
    LogLine,
    Progress,
    Revision,
    Scaling,
    ScalingRule,
    Step,
)
from nomnom_control.errors import ControlError
from nomnom_control.session.overview import Overview
from nomnom_tui.app.session import Session

QUESTIONS = 5
"""Answers that the pipeline gives before it keeps silent, so that what is drawn of them is always the same."""
MOMENT = datetime(2024, 6, 1, 12, 0, 0, tzinfo=UTC)


class FakeEnvironment(Environment):
    """Answers the same each time; ``broken`` makes every question fail, ``asked`` records what was asked of it."""

    kind = "local"
    name = "local"

    def __init__(self, *, stopped: bool = False) -> None:
        self.stopped = stopped
        self.broken: str | None = None
        self.asked: list[str] = []
        self.rule = ScalingRule(minimum=0, maximum=4, threshold=500, cooldown=30, polling=1)
        self.paused = False
        self.wanted = 3
        self.lines = fake_lines()

    def _answer(self, question: str) -> None:
        self.asked.append(question)
        if self.broken:
            raise ControlError(self.broken)

    async def components(self) -> list[Component]:
        self._answer("components")
        if self.stopped:
            return [Component(name, 0, 0, Health.STOPPED) for name in ("nats", "postgres", "api", "worker")]
        return fake_components()

    async def endpoints(self) -> Endpoints:
        self._answer("endpoints")
        return Endpoints(
            "http://127.0.0.1:8080",
            "nats://127.0.0.1:4222",
            "http://127.0.0.1:8222",
            "postgresql://postgres:secret@127.0.0.1:5432/nomnom",
        )

    async def logs(
        self, components: Sequence[str] = (), *, follow: bool = False, tail: int | None = 100
    ) -> AsyncIterator[LogLine]:
        self._answer("logs")
        for line in self.lines:
            if not components or line.component in components:
                yield line
        if follow:
            await asyncio.Event().wait()

    async def scaling(self) -> Scaling:
        self._answer("scaling")
        return Scaling(
            self.rule, 1234, self.wanted, 3, 2, self.paused, MOMENT, "lag 1,234 / threshold 500 → 3, within 0…4"
        )

    async def set_scaling_rule(self, rule: ScalingRule) -> None:
        self._answer("set_scaling_rule")
        self.rule = rule

    async def scale(self, component: str, replicas: int) -> None:
        self._answer(f"scale {component} {replicas}")
        self.wanted, self.paused = replicas, True

    async def pause_autoscaling(self) -> None:
        self._answer("pause")
        self.paused = True

    async def resume_autoscaling(self) -> None:
        self._answer("resume")
        self.paused = False

    async def _steps(self, question: str, *names: str) -> AsyncIterator[Progress]:
        self._answer(question)
        for name in names:
            yield Progress(name, Step.STARTED)
            yield Progress(name, Step.OUTPUT, f"{name} says something")
            yield Progress(name, Step.DONE, "ready", 0.3)

    def restart(self, component: str) -> AsyncIterator[Progress]:
        return self._steps(f"restart {component}", f"{component}-1", f"{component}-2")

    def configure(self, component: str, settings: Mapping[str, str], cause: str) -> AsyncIterator[Progress]:
        return self._steps(f"configure {component}", f"{component}-1")

    async def history(self, component: str) -> list[Revision]:
        self._answer("history")
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
    """A session whose pipeline stands still too: its overview moves on by one fixed second with each question."""

    def __init__(self, environment: FakeEnvironment, *, readonly: bool = False) -> None:
        super().__init__(environment, readonly=readonly)
        self.frozen = FakePipeline()

    async def pipeline(self) -> Any:
        return self.frozen


class FakePipeline:
    """Answers what the overview asks."""

    def __init__(self) -> None:
        self.asked = 0

    async def overview(self) -> Overview:
        self.asked += 1
        if self.asked > QUESTIONS:
            await asyncio.Event().wait()
        at = MOMENT + timedelta(seconds=self.asked)
        accepted, processed = 410 * self.asked, 380 * self.asked
        waiting = accepted - processed
        stream = StreamReport(
            {"name": "MESSAGES", "max_bytes": 1024**3},
            MOMENT,
            StreamState(waiting, 200 * waiting, processed + 1, at - timedelta(seconds=3), accepted, at),
        )
        dead = StreamReport(
            {"name": "MESSAGESDLQ", "max_bytes": 1024**3},
            MOMENT,
            StreamState(42, 9000, 1, at - timedelta(hours=2), 42 + self.asked, at),
        )
        consumer = ConsumerReport("MESSAGES", "workers", MOMENT, {}, num_ack_pending=500, num_pending=waiting - 500)
        counts = (StatusCount(Status.COMPLETED, 1_234_567, exact=False), StatusCount(Status.FAILED, 3, exact=True))
        return Overview(at, stream, consumer, dead, counts)


def fake_components() -> list[Component]:
    """A pipeline at work, with one worker coming up."""
    up = MOMENT - timedelta(hours=3)
    return [
        Component("nats", 1, 1, Health.HEALTHY, "2.12.1", "127.0.0.1:4222", (Instance("nats", "running", True, up),)),
        Component(
            "postgres", 1, 1, Health.HEALTHY, "17.6", "127.0.0.1:5432", (Instance("postgres", "running", True, up),)
        ),
        Component("api", 1, 1, Health.HEALTHY, "0.1.0", "127.0.0.1:8080", (Instance("api-1", "running", True, up, 1),)),
        Component(
            "worker",
            3,
            2,
            Health.STARTING,
            "0.1.0",
            "2 of 3 ready",
            (
                Instance("worker-1", "running", True, up),
                Instance("worker-2", "running", True, MOMENT - timedelta(minutes=4)),
                Instance("worker-3", "starting", False, MOMENT - timedelta(seconds=1)),
            ),
        ),
    ]


def fake_lines() -> list[LogLine]:
    """Some lines of every component and level."""
    told: list[tuple[str, str, str, dict[str, Any]]] = [
        ("nats", "info", "Server is ready", {}),
        ("postgres", "info", "database system is ready to accept connections", {}),
        ("api", "info", "listening", {"address": "127.0.0.1:8080"}),
        ("worker", "info", "batch written", {"messages": 500, "seconds": 0.041}),
        ("worker", "warning", "message will be retried", {"message_id": "0190-1", "attempt": 2}),
        ("worker", "error", "message is a dead letter", {"message_id": "0190-1", "reason": "record"}),
    ]
    return [
        LogLine(component, f"{component}-1", MOMENT + timedelta(milliseconds=350 * at), level, text, fields)
        for at, (component, level, text, fields) in enumerate(told * 3)
    ]
