"""Tables that show one page of a long list."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, TypeVar

from textual.binding import Binding, BindingType
from textual.message import Message

from nomnom_tui.widgets.table import LiveTable

R = TypeVar("R")

PAGE = 100
"""Rows per page."""


def page_keys(*, previous: bool, next: bool) -> str:
    """Return the paging keys for a panel title, without those of missing pages."""
    return "  ".join(text for text, exists in (("[ prev", previous), ("] next", next)) if exists)


class PagedTable(LiveTable[R]):
    """A table of one page: moving past its first or last row, or ``[`` and ``]``, requests another page.

    Posts :class:`Turned`; the owner loads the page and passes it to :meth:`turn`, which puts the cursor on the row next
    to the page it came from.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("right_square_bracket", "turn(1)", "Next page", key_display="]", id="table.next_page"),
        Binding(
            "left_square_bracket", "turn(-1)", "Previous page", key_display="[", show=False, id="table.previous_page"
        ),
    ]

    class Turned(Message):
        """The next (1) or the previous (-1) page was requested."""

        def __init__(self, table: PagedTable[Any], by: int) -> None:
            self.table = table
            self.by = by
            super().__init__()

        @property
        def control(self) -> PagedTable[Any]:
            return self.table

    has_next = False
    """Whether there is a next page."""
    has_previous = False
    """Whether there is a previous page."""

    def set_neighbours(self, *, previous: bool, next: bool) -> None:
        """Set whether there is a previous and a next page; the keys of missing pages are disabled."""
        if (previous, next) != (self.has_previous, self.has_next):
            self.has_previous, self.has_next = previous, next
            self.screen.refresh_bindings()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Enable turning only if there is such a page."""
        if action == "turn":
            return self.has_next if parameters == (1,) else self.has_previous
        return super().check_action(action, parameters)

    def turn(self, rows: Sequence[R], by: int) -> None:
        """Show another page with the cursor on its first row, or on its last if ``by`` is negative."""
        self.show(rows)
        self.action_edge(-1 if by < 0 else 0)

    def action_turn(self, by: int) -> None:
        """Request the next or the previous page."""
        self.post_message(self.Turned(self, by))

    def _move(self, to: int) -> None:
        last = len(self.rows) - 1
        if self.rows and ((to > last and self.cursor == last) or (to < 0 and self.cursor == 0)):
            if self.has_next if to > last else self.has_previous:
                self.action_turn(1 if to > last else -1)
            return
        super()._move(to)
