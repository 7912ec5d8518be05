"""Tables that show one page of something too long to hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, TypeVar

from textual.binding import Binding, BindingType
from textual.message import Message

from nomnom_tui.widgets.table import LiveTable

R = TypeVar("R")

PAGE = 100
"""Rows of a page."""


class PagedTable(LiveTable[R]):
    """A table of one page: moving past its first or last row, or ``[`` and ``]``, asks the owner for the next page.

    Posts :class:`Turned`; the owner loads that page and hands it to :meth:`turn`, which puts the cursor at the edge
    where the person came from.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("right_square_bracket", "turn(1)", "Next page", key_display="]", id="table.next_page"),
        Binding(
            "left_square_bracket", "turn(-1)", "Previous page", key_display="[", show=False, id="table.previous_page"
        ),
    ]

    class Turned(Message):
        """The next (1) or the previous (-1) page is wanted."""

        def __init__(self, table: PagedTable[Any], by: int) -> None:
            self.table = table
            self.by = by
            super().__init__()

        @property
        def control(self) -> PagedTable[Any]:
            return self.table

    ahead = False
    """Whether there is a next page."""
    behind = False
    """Whether there is a previous page."""

    def edges(self, *, behind: bool, ahead: bool) -> None:
        """Say which neighbouring pages there are: the keys of those that are not are not offered."""
        if (behind, ahead) != (self.behind, self.ahead):
            self.behind, self.ahead = behind, ahead
            self.screen.refresh_bindings()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Turning exists where there is a page to turn to."""
        if action == "turn":
            return self.ahead if parameters == (1,) else self.behind
        return super().check_action(action, parameters)

    def turn(self, rows: Sequence[R], by: int) -> None:
        """Show another page, from its beginning or (``by`` below 0) from its end."""
        self.show(rows)
        self.action_edge(-1 if by < 0 else 0)

    def action_turn(self, by: int) -> None:
        """Ask for the next or the previous page."""
        self.post_message(self.Turned(self, by))

    def _move(self, to: int) -> None:
        last = len(self.rows) - 1
        if self.rows and ((to > last and self.cursor == last) or (to < 0 and self.cursor == 0)):
            if self.ahead if to > last else self.behind:
                self.action_turn(1 if to > last else -1)
            return
        super()._move(to)
