"""Long operations: the Progress events of one run, kept independently of the screen that shows them."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from enum import StrEnum
from time import monotonic
from typing import cast

from nomnom.errors import NomnomError
from nomnom_control.environments import Progress, Step

_OUTPUT_LINES = 500

logger = logging.getLogger(__name__)


class OperationState(StrEnum):
    """The state of an operation."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(slots=True)
class StepRecord:
    """The recorded events of one step."""

    name: str
    state: Step
    started: float
    text: str = ""
    seconds: float | None = None
    output: deque[str] = field(default_factory=lambda: deque[str](maxlen=_OUTPUT_LINES))

    @property
    def elapsed(self) -> float:
        """Duration of the step in seconds, so far if it is running."""
        return self.seconds if self.seconds is not None else monotonic() - self.started


class Operation:
    """One operation and everything it reported. Running it again skips the steps that are done."""

    def __init__(self, title: str, command: str, begin: Callable[[], AsyncIterator[Progress]]) -> None:
        self.title = title
        self.command = command
        self.state = OperationState.RUNNING
        self.problem = ""
        self.steps: list[StepRecord] = []
        self.started = monotonic()
        self.ended: float | None = None
        self._begin = begin
        self._task: asyncio.Task[None] | None = None

    @property
    def running(self) -> bool:
        """Whether it is running."""
        return self.state is OperationState.RUNNING

    @property
    def elapsed(self) -> float:
        """Duration in seconds, so far if it is running."""
        return (self.ended or monotonic()) - self.started

    @property
    def current_step(self) -> str:
        """The name of the running step, or an empty string."""
        return next((each.name for each in reversed(self.steps) if each.state in (Step.STARTED, Step.OUTPUT)), "")

    def cancel(self) -> None:
        """Cancel it; the next run can resume from the state it leaves."""
        if self._task is not None:
            self._task.cancel()

    async def run(self) -> OperationState:
        """Run to completion. Errors are not raised but recorded in ``state`` and ``problem``."""
        self.steps.clear()
        self.state, self.problem = OperationState.RUNNING, ""
        self.started, self.ended = monotonic(), None
        self._task = asyncio.create_task(self._consume(), name=f"operation {self.title}")
        try:
            await self._task
        except asyncio.CancelledError:
            self.state, self.problem = OperationState.CANCELLED, "cancelled"
            own = asyncio.current_task()
            if own is not None and own.cancelling():
                self._task.cancel()
                raise
        except (NomnomError, OSError) as error:
            self.state, self.problem = OperationState.FAILED, str(error)
        except Exception as error:
            logger.exception("operation %s", self.title)
            self.state = OperationState.FAILED
            self.problem = f"unexpected {type(error).__name__}: {error} (type :log for the log file)"
        finally:
            self.ended = monotonic()
        return self.state

    async def _consume(self) -> None:
        # An iterator of Progress is an asynchronous generator: closing it stops the operation.
        async with aclosing(cast("AsyncGenerator[Progress, None]", self._begin())) as events:
            async for event in events:
                self._record(event)
        failed = [each for each in self.steps if each.state is Step.FAILED]
        self.state = OperationState.FAILED if failed else OperationState.DONE
        self.problem = failed[-1].text if failed else ""

    def _record(self, event: Progress) -> None:
        step = next((each for each in self.steps if each.name == event.step), None)
        if step is None:
            step = StepRecord(event.step, event.state, monotonic())
            self.steps.append(step)
        if event.state is Step.OUTPUT:
            step.output.append(event.text)
            return
        step.state = event.state
        if event.text:
            step.text = event.text
        if event.state in (Step.DONE, Step.FAILED, Step.SKIPPED):
            step.seconds = event.seconds if event.seconds is not None else monotonic() - step.started
