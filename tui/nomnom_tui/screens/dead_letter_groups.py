"""Dead letters grouped by kind of error, by reason or by entity."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType

from nomnom.presentation import figures
from nomnom_tui.app.dead_letter_changes import narrow, parse_filter
from nomnom_tui.app.view import View
from nomnom_tui.text.error_line import error_line
from nomnom_tui.text.styles import Style
from nomnom_tui.widgets.panel import Panel
from nomnom_tui.widgets.table import Column, LiveTable

if TYPE_CHECKING:
    from nomnom.inspection.dead_letters import Group

_GROUPINGS = ("error", "reason", "entity")
_BAR = 12
_INTERVAL = 2.0
_SCAN_SECONDS = 1.0
"""Seconds to scan unindexed dead letters per load."""
_SCAN_INTERVAL = 0.1
"""Interval in seconds while the scan is incomplete."""


class DeadLetterGroupsView(View):
    """Lists groups, largest first; enter shows the dead letters of one."""

    CRUMB = "Groups"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("b", "by", "Group by", id="letter_groups.by")]

    def __init__(self, words: str, choose: Callable[[str], None]) -> None:
        super().__init__()
        self._words, self._choose = words, choose
        self._grouping = _GROUPINGS[0]
        self._max_count = 1
        self._scan = ""
        """Progress of the initial scan; empty once it is complete."""
        self._table: LiveTable[Group] = LiveTable(
            [
                Column("Count", lambda each: figures.count(each.count), 9, right=True),
                Column(
                    "", lambda each: ("█" * max(1, round(_BAR * each.count / self._max_count)), Style.BAD), _BAR, rank=1
                ),
                Column("Newest", lambda each: figures.age(each.newest), 7, right=True),
                Column("Oldest", lambda each: figures.age(each.oldest), 7, right=True, rank=2),
                Column("Group", lambda each: error_line(each.key) if each.key else "none", 44, share=1),
            ],
            key=lambda each: each.key,
            id="table",
            empty="no dead letters",
            enter_label="Show",
        )

    def content(self) -> ComposeResult:
        """The table of groups."""
        yield Panel("Groups", self._table, id="groups", loading_text="scanning dead letters")

    def begin(self) -> None:
        """Load the groups."""
        self._table.focus()
        # The first scan of 100,000 dead letters takes ten seconds: each load continues where the previous one stopped.
        self.subscribe("groups", _INTERVAL, self._load, self._show, self.query_one("#groups", Panel), timeout=60)

    async def _load(self) -> list[Group]:
        from nomnom.inspection.dead_letters import GroupBy

        pipeline = await self.session.pipeline()
        dead_letters = pipeline.dead_letters
        found = await dead_letters.groups(GroupBy(self._grouping), parse_filter(self._words), within=_SCAN_SECONDS)
        scanned, total = len(dead_letters.index), dead_letters.index.state.messages
        self._scan = "" if dead_letters.index.complete else f"  ◐ scanned {scanned:,} of {total:,} "
        return found

    def _show(self, groups: list[Group]) -> None:
        self._max_count = max((each.count for each in groups), default=1)
        self._table.show(groups)
        self._feeds["groups"].interval = _SCAN_INTERVAL if self._scan else _INTERVAL
        scan = [(self._scan, Style.ACCENT)] if self._scan else []
        words = [(f"  {self._words} ", Style.ACCENT)] if self._words else []
        total = sum(each.count for each in groups)
        self.query_one("#groups", Panel).retitle(
            f"{figures.counted(len(groups), 'group')} by {self._grouping}",
            figures.counted(total, "dead letter"),
            *words,
            *scan,
        )

    def action_by(self) -> None:
        """Group by error, reason or entity."""
        self._grouping = _GROUPINGS[(_GROUPINGS.index(self._grouping) + 1) % len(_GROUPINGS)]
        self._feeds["groups"].refresh()

    @on(LiveTable.Chosen, "#table")
    def _open(self, event: LiveTable.Chosen) -> None:
        self.nomnom.pop_screen()
        self._choose(narrow(self._words, event.row))
