"""One message, followed to its final status."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType

from nomnom.connections.errors import RequestError
from nomnom.envelope import REMOVED, Status
from nomnom.presentation import figures
from nomnom.presentation.marks import STATUSES, SUPERSEDED
from nomnom.presentation.terms import Term
from nomnom_tui.app.view import View
from nomnom_tui.text.styles import STATUS_MARKS, Line, Style, status_line
from nomnom_tui.widgets.panel import Panel
from nomnom_tui.widgets.properties import TextTable, labelled

if TYPE_CHECKING:
    from nomnom.inspection.history import Operation
    from nomnom_control.session.messages import State

_LABEL = 19
_STEPS = (Status.ACCEPTED, Status.PROCESSING, Status.COMPLETED)


class MessageView(View):
    """Shows the status of the message as it changes, its times, and its error."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("d", "letter", "Dead letter", id="message.letter"),
        Binding("y", "copy", "Copy ID", show=False, id="message.copy"),
    ]

    def __init__(self, message_id: str) -> None:
        super().__init__()
        self.message_id = message_id.strip().lower()
        self._state: State | None = None
        self._states: list[State] = []
        self._operations: Sequence[Operation] = ()
        self._audit_problem = ""
        self._lines = TextTable(id="lines")

    @property
    def crumb(self) -> str:
        """The start of its ID."""
        return f"{self.message_id[:13]}…"

    def content(self) -> ComposeResult:
        """The status and its history."""
        yield Panel(f"Message {self.message_id}", self._lines, id="message", loading_text="loading the status")

    def begin(self) -> None:
        """Load often: most messages are processed within a second."""
        self._lines.focus()
        self.subscribe("message", 0.3, self._load, self._show, self.query_one("#message", Panel))

    async def _load(self) -> State:
        pipeline = await self.session.pipeline()
        state = await pipeline.messages.state(self.message_id)
        if state != self._state or state.final:
            try:
                self._operations = await pipeline.audit.history(state.message_id, state.removed_at)
                self._audit_problem = ""
            except RequestError as error:
                self._audit_problem = str(error)
        return state

    def _show(self, state: State) -> None:
        if state != self._state:
            self._states.append(state)
        self._state = state
        self._feeds["message"].interval = 2.0 if state.final else 0.3
        self._lines.show_lines(
            [*self._status_path(state), "", *self._properties(state), *self._done(), *self._history()]
        )
        self.refresh_bindings()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Enable ``letter`` only if the message is a dead letter."""
        if action == "letter":
            return self._state is not None and self._state.status is Status.DLQ
        return super().check_action(action, parameters)

    def _status_path(self, state: State) -> list[Line]:
        """Render accepted ─ processing ─ completed, or how it ended otherwise."""
        end = Status.COMPLETED if state.status in _STEPS else state.status
        steps = (*_STEPS[:2], end)
        reached = steps.index(state.status)
        parts: list[tuple[str, Style]] = [("  ", Style.PLAIN)]
        for at, each in enumerate(steps):
            mark, style = (
                STATUS_MARKS[each] if at == reached else ("●", Style.GOOD) if at < reached else ("○", Style.FAINT)
            )
            if at:
                parts.append((" ──── ", Style.GOOD if at <= reached else Style.FAINT))
            style = Style.STRONG if at == reached and style is Style.GOOD else style
            parts.append((f"{mark} {STATUSES[each].label}", style))
        return ["", parts]

    def _properties(self, state: State) -> list[Line]:
        room, removed = self._lines.room, state.status in REMOVED
        took = None
        if state.received_at is not None and state.processed_at is not None:
            took = (state.processed_at - state.received_at).total_seconds()
        properties = {
            Term.ENTITY: state.entity or figures.NONE,
            Term.RECEIVED: figures.moment(state.received_at),
            STATUSES[state.status].label if removed else Term.PROCESSED: figures.moment(state.processed_at),
            Term.LATENCY: figures.duration(None if removed else took),
            Term.FAILED_ATTEMPTS: figures.count(state.retry_count),
        }
        lines = [
            line for label, value in properties.items() for line in labelled(label, value, room, Style.PLAIN, _LABEL)
        ]
        if state.error:
            lines += labelled(Term.ERROR, state.error, room, Style.BAD, _LABEL)
        if state.superseded:
            lines += labelled(SUPERSEDED.label, SUPERSEDED.meaning, room, width=_LABEL)
        return lines

    def _done(self) -> list[Line]:
        """Render what operators did to the message."""
        lines: list[Line] = [
            [("  ", Style.PLAIN), (figures.moment(each.at), Style.MUTED), (f"  {each}", Style.PLAIN)]
            for each in self._operations
        ]
        if self._audit_problem:
            lines.append([("  the audit log cannot be read: ", Style.MUTED), (self._audit_problem, Style.BAD)])
        return ["", ("  Operations", Style.HEADING), *lines] if lines else []

    def _history(self) -> list[Line]:
        if len(self._states) < 2:
            return []
        shown: list[Line] = ["", ("  Status history", Style.HEADING)]
        for each in self._states:
            attempts = f"  after {figures.counted(each.retry_count, 'failed attempt')}" if each.retry_count else ""
            mark = status_line(each.status)
            assert isinstance(mark, tuple)
            shown.append([("  ", Style.PLAIN), mark, (attempts, Style.MUTED)])  # type: ignore[list-item]
        return shown

    def action_copy(self) -> None:
        """Copy its ID to the clipboard via the terminal (OSC 52)."""
        self.nomnom.copy_to_clipboard(self.message_id)
        self.nomnom.notify("copied, if the terminal supports OSC 52")

    def action_letter(self) -> None:
        """Open its dead letter."""
        self.run_worker(self._open_dead_letter(), name="letter", group="letter", exclusive=True)

    async def _open_dead_letter(self) -> None:
        from nomnom.errors import NomnomError
        from nomnom_tui.screens.dead_letter import DeadLetterView

        try:
            found = await (await self.session.pipeline()).dead_letters.find(self.message_id)
        except NomnomError as error:
            self.nomnom.show_problem("Dead letter", error)
            return
        if found:
            self.nomnom.push_screen(DeadLetterView(found[-1].sequence))
        else:
            self.nomnom.notify("the dead letter no longer exists: it was replayed or deleted", severity="warning")
