"""A dry run: the predicted result of a replay for each dead letter. Nothing is changed."""

from __future__ import annotations

from collections import Counter
from time import monotonic
from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType

from nomnom.errors import NomnomError
from nomnom.presentation import figures
from nomnom_tui.app.dead_letter_changes import Targets, replay_change
from nomnom_tui.app.view import View
from nomnom_tui.text.error_line import error_line
from nomnom_tui.text.styles import Line, Style
from nomnom_tui.widgets.panel import Panel
from nomnom_tui.widgets.table import Column, LiveTable

if TYPE_CHECKING:
    from nomnom_control.session.dead_letters import Edit, Prediction

_REDRAW = 0.3
"""Seconds between redraws: the results of 100,000 dead letters arrive in 500 parts."""
_MARKS = {
    "completes": ("✓", Style.GOOD),
    "superseded": ("·", Style.MUTED),
    "already completed": ("·", Style.MUTED),
    "fails": ("✕", Style.BAD),
    "undetermined": ("?", Style.WARNING),
    "gone": ("○", Style.MUTED),
    "impossible": ("✕", Style.BAD),
}


class DryRunView(View):
    """Shows predictions as they arrive, and their number by result."""

    CRUMB = "Dry run"
    CHANGES = frozenset({"replay"})
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("p", "replay", "Replay", id="dry_run.replay"),
        Binding("t", "test_in_database", "Test in PostgreSQL", id="dry_run.deep"),
    ]

    def __init__(self, targets: Targets, edit: Edit | None = None) -> None:
        super().__init__()
        self._targets, self._edit = targets, edit
        self._in_database = False
        self._found: list[Prediction] = []
        self._table: LiveTable[Prediction] = LiveTable(
            [
                Column("Sequence", lambda each: figures.count(each.sequence), 8, right=True),
                Column("Entity", lambda each: each.entity, 10),
                Column("Result", _result, 19),
                Column("Reason", lambda each: error_line(each.detail), 30, share=1),
            ],
            key=lambda each: each.sequence,
            id="table",
            empty="no such dead letters",
        )

    def content(self) -> ComposeResult:
        """The table of predictions."""
        yield Panel("Dry run", self._table, id="predictions", loading_text="running")

    def begin(self) -> None:
        """Start the dry run in a worker that ends with the view."""
        self._table.focus()
        self._start()

    def _start(self) -> None:
        self._found = []
        self._table.show([])
        self.run_worker(self._run(), name="dry run", group="dry run", exclusive=True)

    async def _run(self) -> None:
        panel = self.query_one("#predictions", Panel)
        try:
            pipeline = await self.session.pipeline()
            shown = 0.0
            async for part in pipeline.dead_letters.dry_run(
                self._targets.selection, self._edit, deep=self._in_database
            ):
                self._found.extend(part)
                if monotonic() - shown >= _REDRAW:
                    self._show(ended=False)
                    shown = monotonic()
        except NomnomError as error:
            panel.show_notice((("▲ ", Style.WARNING), (str(error), Style.PLAIN)))
            return
        self._show(ended=True)

    def _show(self, *, ended: bool) -> None:
        panel = self.query_one("#predictions", Panel)
        panel.show_notice()
        self._table.show(tuple(self._found))
        counted = Counter(each.outcome.value for each in self._found)
        beside = [(f"  {_MARKS[name][0]} {number:,} {name}", _MARKS[name][1]) for name, number in counted.most_common()]
        if not ended:
            beside.append((f"  ◐ of {self._targets.count:,}", Style.ACCENT))
        edited = [] if self._edit is None else ["edited" if self._edit.payload is not None else _fields(self._edit)]
        tested = ["tested in PostgreSQL"] if self._in_database else []
        panel.retitle(f"Dry run of {self._targets.title}", *beside, *tested, *edited)

    def action_test_in_database(self) -> None:
        """Also write each dead letter's rows to PostgreSQL, in a transaction that is rolled back."""
        self._in_database = not self._in_database
        self._start()

    def action_replay(self) -> None:
        """Replay them."""
        self.nomnom.perform(replay_change(self.session, self._targets, self._edit), self._leave)

    def _leave(self, done: bool) -> None:
        if done and self.nomnom.screen is self:
            self.nomnom.pop_screen()


def _fields(edit: Edit) -> str:
    return "with " + ", ".join(f"{name}={value}" for name, value in edit.fields.items())


def _result(prediction: Prediction) -> Line:
    mark, style = _MARKS[prediction.outcome.value]
    return (f"{mark} {prediction.outcome.value}", style)
