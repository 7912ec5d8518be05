"""The filter dialog of the dead letters, which counts the matches while typing."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from textual import on
from textual.widgets import Input, Static

from nomnom.errors import NomnomError
from nomnom.presentation import figures
from nomnom_tui.app.dead_letter_changes import filter_problem, parse_filter
from nomnom_tui.app.session import Session
from nomnom_tui.text.styles import Line, Style, content
from nomnom_tui.widgets.dialogs import Field, FormDialog

_HINT = "entity: reason: payload: id: since:2h until: or text"
_DEBOUNCE = 0.2
"""Seconds without a key press before matches are counted."""
_SCAN_SECONDS = 0.4
"""Seconds to scan unindexed dead letters before the count is updated."""


class FilterDialog(FormDialog):
    """Edits a filter; below it the number of dead letters that match."""

    def __init__(self, session: Session, words: str) -> None:
        field = Field("words", "Filter", words, _HINT, filter_problem)
        super().__init__("Filter dead letters", [field], lambda _: self._count_line, "Filter")
        self._session = session
        self._count_line: Sequence[Line] = ("",)

    def on_mount(self) -> None:
        """Count the matches of the current filter."""
        self._count_soon()

    @on(Input.Changed)
    def _count_soon(self) -> None:
        self.run_worker(self._count(self.values["words"]), name="count", group="count", exclusive=True)

    async def _count(self, words: str) -> None:
        await asyncio.sleep(_DEBOUNCE)
        if filter_problem(words) is not None:
            self._show_count("")
            return
        complete = False
        while not complete:
            try:
                dead_letters = (await self._session.pipeline()).dead_letters
                page = await dead_letters.page(parse_filter(words), limit=1, within=_SCAN_SECONDS)
            except NomnomError as error:
                self._show_count([("▲ ", Style.WARNING), (str(error), Style.MUTED)])
                return
            complete = page.complete
            matching, total = figures.count(page.matching), figures.count(page.total)
            scan = "" if complete else f"   ◐ scanned {figures.count(page.scanned)}"
            self._show_count([(matching, Style.STRONG), (f" of {total} match", Style.MUTED), (scan, Style.ACCENT)])
            await asyncio.sleep(0)

    def _show_count(self, line: Line) -> None:
        self._count_line = (line,)
        # While the dialog closes, its widgets are removed before this worker is cancelled.
        for preview in self.query("#preview").results(Static):
            preview.update(content(*self._count_line))
