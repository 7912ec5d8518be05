"""The revisions of a component: when and why each was rolled out, what it changed, and rollback."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.widgets import Static

from nomnom.presentation import figures
from nomnom_control.environments import Revision
from nomnom_tui.app.changes import Change
from nomnom_tui.app.view import View
from nomnom_tui.text.styles import Line, Style, content
from nomnom_tui.widgets.panel import Panel
from nomnom_tui.widgets.table import Column, LiveTable


def revision_columns() -> list[Column[Revision]]:
    """Return the columns of a table of revisions."""
    return [
        Column("Revision", _number, 9),
        Column("When", lambda each: figures.moment(each.at), 19),
        Column("Cause", lambda each: each.cause, 12, share=1),
    ]


def _number(revision: Revision) -> Line:
    return [("● " if revision.current else "  ", Style.ACCENT), (str(revision.number), Style.PLAIN)]


class HistoryView(View):
    """Revisions, newest first; below them the settings of one compared with the current revision."""

    CHANGES = frozenset({"rollback"})
    BINDINGS: ClassVar[list[BindingType]] = [Binding("u", "rollback", "Roll back", show=False, id="history.rollback")]
    DEFAULT_CSS = """
    HistoryView #settings { height: 2fr; }
    HistoryView #comparison { padding: 0 1; }
    """

    def __init__(self, component: str) -> None:
        super().__init__()
        self.component = component
        self._table: LiveTable[Revision] = LiveTable(
            revision_columns(), key=lambda each: each.number, empty="no revisions yet", enter_label="Roll back"
        )

    @property
    def crumb(self) -> str:
        """The component."""
        return f"{self.component} history"

    def content(self) -> ComposeResult:
        """Revisions and the settings of the one under the cursor."""
        yield Panel(f"Revisions of {self.component}", self._table, id="revisions", loading_text="loading revisions")
        yield Panel("Settings", Vertical(Static(id="comparison")), id="settings")

    def begin(self) -> None:
        """Refresh every few seconds: other users may roll out too."""
        self._table.focus()
        self.subscribe(
            "history",
            5.0,
            lambda: self.environment.history(self.component),
            self._show,
            self.query_one("#revisions", Panel),
        )

    def _show(self, revisions: list[Revision]) -> None:
        self._table.show(revisions)
        self._compare()

    @on(LiveTable.Highlighted)
    def _compare(self) -> None:
        selected = self._table.current
        current = next((each for each in self._table.rows if each.current), None)
        if selected is None:
            return
        variables = {} if current is None else current.variables
        self.query_one("#settings", Panel).retitle(
            f"Settings of revision {selected.number}",
            "current revision" if selected.current else "compared with the current revision",
        )
        lines = _differences(variables, selected.variables)
        self.query_one("#comparison", Static).update(content(*(lines or [("defaults only", Style.MUTED)])))

    @on(LiveTable.Chosen)
    def action_rollback(self) -> None:
        """Roll back to the revision under the cursor."""
        selected = self._table.current
        if selected is None or selected.current:
            self.nomnom.notify("this is the current revision")
            return
        number = selected.number
        self.nomnom.perform(
            Change(
                f"Roll {self.component} back to revision {number}",
                self.session.command(f"rollback {self.component} {number}"),
                begin=lambda: self.environment.rollback(self.component, number),
                plan=(
                    f"create a new revision with the settings of revision {number}",
                    f"replace every {self.component}, one at a time",
                ),
            )
        )


def _differences(current: Mapping[str, str], selected: Mapping[str, str]) -> list[Line]:
    lines: list[Line] = []
    for name in sorted({*current, *selected}):
        before, after = current.get(name), selected.get(name)
        if before == after:
            lines.append([("  ", Style.PLAIN), (f"{name}={after}", Style.PLAIN)])
            continue
        if after is not None:
            lines.append([("+ ", Style.GOOD), (f"{name}={after}", Style.GOOD)])
        if before is not None:
            lines.append([("- ", Style.BAD), (f"{name}={before}", Style.BAD), ("  current", Style.MUTED)])
    return lines
