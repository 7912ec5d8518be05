"""The steps of a long operation, live. Leaving the screen does not stop the operation."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.widgets import Static

from nomnom.presentation import figures
from nomnom.presentation.terminal import printable
from nomnom_control.environments import Step
from nomnom_tui.app.operations import Operation, OperationState
from nomnom_tui.app.view import View
from nomnom_tui.text.styles import STEP_MARKS, Line, Style, content
from nomnom_tui.widgets.panel import Panel

_OUTPUT = 12
_REDRAW = 0.2


class OperationView(View):
    """Shows one operation: every step with its state, duration and text, and the output of the running step."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("c", "cancel", "Cancel", id="operation.cancel"),
        Binding("t", "retry", "Retry", id="operation.retry"),
        Binding("escape,q", "app.back", "Back", id="operation.leave"),
    ]
    CHANGES = frozenset({"cancel", "retry"})

    def __init__(self, operation: Operation) -> None:
        super().__init__()
        self.operation = operation

    @property
    def crumb(self) -> str:
        """The operation's title."""
        return self.operation.title

    def content(self) -> ComposeResult:
        """The steps and their output."""
        yield Panel("Steps", VerticalScroll(Static(id="steps"), can_focus=True), id="steps-panel")

    def begin(self) -> None:
        """Redraw regularly."""
        self._draw()
        self.set_interval(_REDRAW, self._tick)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Enable cancel while it is running, and retry after it failed or was cancelled."""
        if action == "cancel" and not self.operation.running:
            return False
        if action == "retry" and self.operation.state not in (OperationState.FAILED, OperationState.CANCELLED):
            return False
        return super().check_action(action, parameters)

    def action_cancel(self) -> None:
        """Cancel the operation."""
        self.operation.cancel()

    def action_retry(self) -> None:
        """Run it again; the environment skips the steps that are done."""
        self.nomnom.run_operation(self.operation)
        self.refresh_bindings()

    def _tick(self) -> None:
        if self.is_visible:
            self._draw()

    def _draw(self) -> None:
        operation = self.operation
        lines: list[Line] = [[("$ ", Style.MUTED), (operation.command, Style.MUTED)], ""]
        width = max((len(each.name) for each in operation.steps), default=0) + 2
        for step in operation.steps:
            mark, style = STEP_MARKS[step.state]
            faded = step.state is Step.SKIPPED
            lines.append(
                [
                    (f" {mark} ", style),
                    (step.name.ljust(width), Style.MUTED if faded else Style.PLAIN),
                    (figures.duration(step.elapsed).rjust(8) if not faded else "skipped ".rjust(8), Style.MUTED),
                    (f"  {printable(step.text)}", Style.BAD if step.state is Step.FAILED else Style.MUTED),
                ]
            )
            if step.state in (Step.STARTED, Step.OUTPUT, Step.FAILED):
                lines += [(f"     {printable(text)}", Style.MUTED) for text in list(step.output)[-_OUTPUT:]]
        lines += ["", self._summary()]
        self.query_one("#steps", Static).update(content(*lines))
        panel = self.query_one("#steps-panel", Panel)
        panel.retitle(f"{operation.title}  ·  {operation.state.value}  {figures.duration(operation.elapsed)}")
        self.refresh_bindings()

    def _summary(self) -> Line:
        operation = self.operation
        match operation.state:
            case OperationState.RUNNING:
                return [
                    (" esc", Style.ACCENT),
                    (" keeps it running in the background, ", Style.MUTED),
                    ("c", Style.ACCENT),
                    (" cancels", Style.MUTED),
                ]
            case OperationState.DONE:
                return [
                    (" ✓ done", Style.GOOD),
                    (f" in {figures.duration(operation.elapsed)}   ", Style.MUTED),
                    ("2", Style.ACCENT),
                    (" shows the pipeline, ", Style.MUTED),
                    ("esc", Style.ACCENT),
                    (" goes back", Style.MUTED),
                ]
            case OperationState.FAILED:
                return [(f" ✕ {operation.problem}", Style.BAD), ("   t", Style.ACCENT), (" retries", Style.MUTED)]
            case OperationState.CANCELLED:
                return [(" ✕ cancelled", Style.WARNING), ("   t", Style.ACCENT), (" retries", Style.MUTED)]
