"""A dry run: what a replay of these letters would come to, letter by letter; nothing is changed."""

from __future__ import annotations

from collections import Counter
from time import monotonic
from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType

from nomnom.errors import NomnomError
from nomnom.presentation import figures
from nomnom_tui.app.dead_letter_changes import Chosen, replay_change
from nomnom_tui.app.view import View
from nomnom_tui.text.error_line import error_line
from nomnom_tui.text.styles import Line, Style
from nomnom_tui.widgets.panel import Panel
from nomnom_tui.widgets.table import Column, LiveTable

if TYPE_CHECKING:
    from nomnom_control.session.dead_letters import Edit, Prediction

_REDRAW = 0.3
"""Seconds between two looks at what was found: of 100,000 letters there are 500 parts."""
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
    """Predictions as they are made, and how many of each kind."""

    CRUMB = "Dry run"
    CHANGES = frozenset({"replay"})
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("p", "replay", "Replay them", id="letter_trials.replay"),
        Binding("t", "deep", "Let PostgreSQL try", id="letter_trials.deep"),
    ]

    def __init__(self, chosen: Chosen, edit: Edit | None = None) -> None:
        super().__init__()
        self._chosen, self._edit = chosen, edit
        self._deep = False
        self._found: list[Prediction] = []
        self._table: LiveTable[Prediction] = LiveTable(
            [
                Column("Sequence", lambda each: figures.count(each.sequence), 8, right=True),
                Column("Entity", lambda each: each.entity, 10),
                Column("Outcome", _outcome, 19),
                Column("Why", lambda each: error_line(each.detail), 30, share=1),
            ],
            key=lambda each: each.sequence,
            id="table",
            empty="no such letters",
        )

    def content(self) -> ComposeResult:
        """The predictions."""
        yield Panel("Dry run", self._table, id="trials", awaits="trying")

    def begin(self) -> None:
        """Begin to try, in a worker that ends with the view."""
        self._table.focus()
        self._start()

    def _start(self) -> None:
        self._found = []
        self._table.show([])
        self.run_worker(self._run(), name="dry run", group="dry run", exclusive=True)

    async def _run(self) -> None:
        panel = self.query_one("#trials", Panel)
        try:
            pipeline = await self.session.pipeline()
            shown = 0.0
            async for part in pipeline.dead_letters.dry_run(self._chosen.selection, self._edit, deep=self._deep):
                self._found.extend(part)
                if monotonic() - shown >= _REDRAW:
                    self._show(ended=False)
                    shown = monotonic()
        except NomnomError as error:
            panel.say((("▲ ", Style.WARNING), (str(error), Style.PLAIN)))
            return
        self._show(ended=True)

    def _show(self, *, ended: bool) -> None:
        panel = self.query_one("#trials", Panel)
        panel.say()
        self._table.show(tuple(self._found))
        counted = Counter(each.outcome.value for each in self._found)
        beside = [(f"  {_MARKS[name][0]} {number:,} {name}", _MARKS[name][1]) for name, number in counted.most_common()]
        if not ended:
            beside.append((f"  ◐ of {self._chosen.count:,}", Style.ACCENT))
        edited = [] if self._edit is None else ["edited" if self._edit.payload is not None else _fields(self._edit)]
        deep = ["tried by PostgreSQL"] if self._deep else []
        panel.retitle(f"Dry run of {self._chosen.title}", *edited, *deep, *beside, (" ", Style.PLAIN))

    def action_deep(self) -> None:
        """Let PostgreSQL try each letter's rows too, in a transaction that is rolled back."""
        self._deep = not self._deep
        self._start()

    def action_replay(self) -> None:
        """Send them to the workers again."""
        self.nomnom.perform(replay_change(self.session, self._chosen, self._edit), self._leave)

    def _leave(self, done: bool) -> None:
        if done and self.nomnom.screen is self:
            self.nomnom.pop_screen()


def _fields(edit: Edit) -> str:
    return "with " + ", ".join(f"{name}={value}" for name, value in edit.fields.items())


def _outcome(prediction: Prediction) -> Line:
    mark, style = _MARKS[prediction.outcome.value]
    return (f"{mark} {prediction.outcome.value}", style)
