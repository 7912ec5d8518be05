"""The question which letters to show, with how many these would be while it is typed."""

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

_HINT = "entity: reason: payload: id: since:2h until: or words"
_PAUSE = 0.2
"""Seconds without a key before letters are counted."""
_WITHIN = 0.4
"""Seconds of reading letters that are not known yet, before the count is told again."""


class FilterDialog(FormDialog):
    """A filter's words; below them what they let through."""

    def __init__(self, session: Session, words: str) -> None:
        field = Field("words", "Filter", words, _HINT, filter_problem)
        super().__init__("Which dead letters", [field], lambda _: self._counted, "Filter")
        self._session = session
        self._counted: Sequence[Line] = ("",)

    def on_mount(self) -> None:
        """Count what the present words let through."""
        self._count_soon()

    @on(Input.Changed)
    def _count_soon(self) -> None:
        self.run_worker(self._count(self.values["words"]), name="count", group="count", exclusive=True)

    async def _count(self, words: str) -> None:
        await asyncio.sleep(_PAUSE)
        if filter_problem(words) is not None:
            self._tell("")
            return
        complete = False
        while not complete:
            try:
                dead_letters = (await self._session.pipeline()).dead_letters
                page = await dead_letters.page(parse_filter(words), limit=1, within=_WITHIN)
            except NomnomError as error:
                self._tell([("▲ ", Style.WARNING), (str(error), Style.MUTED)])
                return
            complete = page.complete
            matching, total = figures.count(page.matching), figures.count(page.total)
            scan = "" if complete else f"   ◐ {figures.count(page.scanned)} looked at"
            self._tell([(matching, Style.STRONG), (f" of {total} match", Style.MUTED), (scan, Style.ACCENT)])
            await asyncio.sleep(0)

    def _tell(self, line: Line) -> None:
        self._counted = (line,)
        self.query_one("#preview", Static).update(content(*self._counted))
