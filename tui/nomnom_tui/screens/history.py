"""A component's revisions: what was rolled out when and why, what each changed, and the way back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.widgets import Static

from nomnom_control.environments import Revision
from nomnom_tui.app.changes import Change
from nomnom_tui.app.view import View
from nomnom_tui.text import figures
from nomnom_tui.text.styles import Line, Style, content
from nomnom_tui.widgets.panel import Panel
from nomnom_tui.widgets.table import Column, LiveTable


def revision_columns() -> list[Column[Revision]]:
    """The columns of a table of revisions."""
    return [
        Column("Revision", _number, 9),
        Column("When", lambda each: figures.moment(each.at), 19),
        Column("Cause", lambda each: each.cause, 12, share=1),
    ]


def _number(revision: Revision) -> Line:
    return [("● " if revision.current else "  ", Style.ACCENT), (str(revision.number), Style.PLAIN)]


class HistoryView(View):
    """Revisions, newest first; below them what the chosen one set, compared with the present one."""

    CHANGES = frozenset({"rollback"})
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("u", "rollback", "Roll back to it", show=False, id="history.rollback")
    ]
    DEFAULT_CSS = """
    HistoryView #settings { height: 2fr; }
    HistoryView #told { padding: 0 1; }
    """

    def __init__(self, component: str) -> None:
        super().__init__()
        self.component = component
        self._table: LiveTable[Revision] = LiveTable(
            revision_columns(), key=lambda each: each.number, empty="no revision yet", opens="Roll back to it"
        )

    @property
    def crumb(self) -> str:
        """Which component's history."""
        return f"{self.component} history"

    def content(self) -> ComposeResult:
        """Revisions, and the settings of the one under the cursor."""
        yield Panel(f"Revisions of {self.component}", self._table, id="revisions", awaits="asking for the revisions")
        yield Panel("Settings", Vertical(Static(id="told")), id="settings")

    def begin(self) -> None:
        """Refresh every few seconds: someone else may roll out too."""
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
        self._tell()

    @on(LiveTable.Highlighted)
    def _tell(self) -> None:
        chosen = self._table.current
        present = next((each for each in self._table.rows if each.current), None)
        if chosen is None:
            return
        against = {} if present is None else present.variables
        self.query_one("#settings", Panel).retitle(
            f"Settings of revision {chosen.number}",
            "the present one" if chosen.current else "compared with the present",
        )
        lines = _differences(against, chosen.variables)
        self.query_one("#told", Static).update(content(*(lines or [("the defaults", Style.MUTED)])))

    @on(LiveTable.Chosen)
    def action_rollback(self) -> None:
        """Roll out the settings of the revision under the cursor."""
        chosen = self._table.current
        if chosen is None or chosen.current:
            self.nomnom.notify("that is the present revision")
            return
        number = chosen.number
        self.nomnom.perform(
            Change(
                f"Roll {self.component} back to revision {number}",
                self.session.command(f"rollback {self.component} {number}"),
                begin=lambda: self.environment.rollback(self.component, number),
                plan=(
                    f"revision {number}'s settings become a new revision",
                    f"every {self.component} is replaced, one after another",
                ),
            )
        )


def _differences(present: Mapping[str, str], chosen: Mapping[str, str]) -> list[Line]:
    lines: list[Line] = []
    for name in sorted({*present, *chosen}):
        now, then = present.get(name), chosen.get(name)
        if now == then:
            lines.append([("  ", Style.PLAIN), (f"{name}={then}", Style.PLAIN)])
            continue
        if then is not None:
            lines.append([("+ ", Style.GOOD), (f"{name}={then}", Style.GOOD)])
        if now is not None:
            lines.append([("- ", Style.BAD), (f"{name}={now}", Style.BAD), ("  now", Style.MUTED)])
    return lines
