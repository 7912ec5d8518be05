"""What dead letters have in common: the same kind of error, reason or entity."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType

from nomnom_tui.app.dead_letter_changes import narrow, parse_filter
from nomnom_tui.app.view import View
from nomnom_tui.text import figures
from nomnom_tui.text.error_line import error_line
from nomnom_tui.text.styles import Style
from nomnom_tui.widgets.panel import Panel
from nomnom_tui.widgets.table import Column, LiveTable

if TYPE_CHECKING:
    from nomnom.inspection.dead_letters import Group

_WAYS = ("error", "reason", "entity")
_BAR = 12
_INTERVAL = 2.0
_WITHIN = 1.0
"""Seconds of reading letters that are not known yet, for each look."""
_SOON = 0.1
"""Seconds until the next look while there are such letters."""


class DeadLetterGroupsView(View):
    """Groups, the largest first; enter shows the letters of one."""

    CRUMB = "Groups"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("b", "by", "Group by", id="letter_groups.by")]

    def __init__(self, words: str, choose: Callable[[str], None]) -> None:
        super().__init__()
        self._words, self._choose = words, choose
        self._way = _WAYS[0]
        self._most = 1
        self._scan = ""
        """How far the first look at every letter is; empty once it is done."""
        self._table: LiveTable[Group] = LiveTable(
            [
                Column("Letters", lambda each: figures.count(each.count), 9, right=True),
                Column("", lambda each: ("█" * max(1, round(_BAR * each.count / self._most)), Style.BAD), _BAR, rank=1),
                Column("Newest", lambda each: figures.age(each.newest), 7, right=True),
                Column("Oldest", lambda each: figures.age(each.oldest), 7, right=True, rank=2),
                Column("What", lambda each: error_line(each.key) if each.key else "not said", 44, share=1),
            ],
            key=lambda each: each.key,
            id="table",
            empty="no dead letters",
            opens="Show them",
        )

    def content(self) -> ComposeResult:
        """The groups."""
        yield Panel("Groups", self._table, id="groups", awaits="looking at every letter")

    def begin(self) -> None:
        """Letters come and go."""
        self._table.focus()
        # The first look at 100,000 letters takes ten seconds: each load goes on where the one before stopped.
        self.subscribe("groups", _INTERVAL, self._load, self._show, self.query_one("#groups", Panel), timeout=60)

    async def _load(self) -> list[Group]:
        from nomnom.inspection.dead_letters import GroupBy

        pipeline = await self.session.pipeline()
        dead_letters = pipeline.dead_letters
        found = await dead_letters.groups(GroupBy(self._way), parse_filter(self._words), within=_WITHIN)
        known, of = len(dead_letters.index), dead_letters.index.state.messages
        self._scan = "" if dead_letters.index.complete else f"  ◐ {known:,} of {of:,} looked at "
        return found

    def _show(self, groups: list[Group]) -> None:
        self._most = max((each.count for each in groups), default=1)
        self._table.show(groups)
        self._feeds["groups"].interval = _SOON if self._scan else _INTERVAL
        scan = [(self._scan, Style.ACCENT)] if self._scan else []
        words = [(f"  {self._words} ", Style.ACCENT)] if self._words else []
        total = sum(each.count for each in groups)
        self.query_one("#groups", Panel).retitle(
            f"{len(groups):,} groups by {self._way}", f"{total:,} letters", *words, *scan
        )

    def action_by(self) -> None:
        """By error, reason or entity."""
        self._way = _WAYS[(_WAYS.index(self._way) + 1) % len(_WAYS)]
        self._feeds["groups"].refresh()

    @on(LiveTable.Chosen, "#table")
    def _open(self, event: LiveTable.Chosen) -> None:
        self.nomnom.pop_screen()
        self._choose(narrow(self._words, event.row))
