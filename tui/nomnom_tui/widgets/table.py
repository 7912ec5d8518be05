"""A table of many rows that are updated live.

Textual's DataTable stores and measures every cell: 10,000 rows take seconds and block key presses. This table keeps the
caller's row objects and renders only the lines on the screen; its columns share the available width, and the less
important ones are hidden if it is narrow.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style as RichStyle
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from nomnom.presentation.terminal import printable
from nomnom_tui.text.styles import Line, Palette, Style, pieces

R = TypeVar("R")

_GAP = 2
_ELLIPSIS = "…"


@dataclass(frozen=True, slots=True)
class Column(Generic[R]):
    """One column: how it renders a row's cell, and its width.

    ``width`` is fixed if ``share`` is 0; otherwise it is the minimum, and ``share`` is the column's weight when free
    width is distributed. If the table is too narrow, columns with the highest ``rank`` are hidden first, rank 0 never.
    """

    title: str
    cell: Callable[[R], Line]
    width: int
    share: int = 0
    right: bool = False
    rank: int = 0


class LiveTable(ScrollView, Generic[R], can_focus=True):
    """Rows identified by key: an update keeps the cursor and the marks on their rows, and the scroll position.

    :meth:`show` sets the rows; they are compared by key and drawn when visible. Posts :class:`Highlighted` when the
    cursor moves to another row, :class:`Chosen` on enter or a second click.
    """

    DEFAULT_CSS = """
    LiveTable { height: 1fr; background: $background; scrollbar-size-vertical: 1; overflow-x: hidden; }
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "cursor(-1)", "Up", show=False, id="table.up"),
        Binding("down,j", "cursor(1)", "Down", show=False, id="table.down"),
        Binding("pageup,ctrl+b", "page(-1.0)", "Page up", show=False, id="table.page_up"),
        Binding("pagedown,ctrl+f", "page(1.0)", "Page down", show=False, id="table.page_down"),
        Binding("ctrl+u", "page(-0.5)", "Half page up", show=False, id="table.half_up"),
        Binding("ctrl+d", "page(0.5)", "Half page down", show=False, id="table.half_down"),
        Binding("home,g", "edge(0)", "First row", show=False, id="table.first"),
        Binding("end,G", "edge(-1)", "Last row", show=False, id="table.last"),
        Binding("enter", "choose", "Open", show=False, id="table.open"),
        Binding("space", "mark", "Mark", show=False, id="table.mark"),
    ]

    class Highlighted(Message):
        """The cursor is on another row, or None if there are no rows."""

        def __init__(self, table: LiveTable[Any], row: Any) -> None:
            self.table = table
            self.row = row
            super().__init__()

        @property
        def control(self) -> LiveTable[Any]:
            return self.table

    class Chosen(Message):
        """A row was opened with enter or a click on the cursor's row."""

        def __init__(self, table: LiveTable[Any], row: Any) -> None:
            self.table = table
            self.row = row
            super().__init__()

        @property
        def control(self) -> LiveTable[Any]:
            return self.table

    class Marked(Message):
        """Rows were marked or unmarked."""

        def __init__(self, table: LiveTable[Any]) -> None:
            self.table = table
            super().__init__()

        @property
        def control(self) -> LiveTable[Any]:
            return self.table

    def __init__(
        self,
        columns: Sequence[Column[R]],
        key: Callable[[R], Hashable],
        *,
        id: str | None = None,
        empty: str = "no rows",
        enter_label: str = "",
        markable: bool = False,
        header: bool = True,
    ) -> None:
        super().__init__(id=id)
        self.columns = list(columns)
        self.empty = empty
        self.enter_label = enter_label
        """What enter does, for the key bar; empty hides the key."""
        self.marked: set[Hashable] = set()
        self._key = key
        self._markable = markable
        self._header = header
        self._rows: Sequence[R] = ()
        self._loaded = False
        self._cursor = 0
        self._palette: Palette | None = None
        self._layout_for: int | None = None
        self._layout: list[tuple[Column[R], int]] = []

    # What is shown

    @property
    def rows(self) -> Sequence[R]:
        """The rows shown last."""
        return self._rows

    @property
    def cursor(self) -> int:
        """The index of the row that the cursor is on."""
        return self._cursor

    @property
    def current(self) -> R | None:
        """The row that the cursor is on."""
        return self._rows[self._cursor] if self._rows else None

    def show(self, rows: Sequence[R]) -> None:
        """Show these rows. The cursor stays on the row with its key, or at its index if that row is gone."""
        before, cursor = self.current, self._cursor
        offset = cursor - round(self.scroll_y)
        self._rows = rows
        self._loaded = True
        if before is not None and rows:
            found = self._find(self._key(before), cursor)
            self._cursor = min(cursor, len(rows) - 1) if found is None else found
        else:
            self._cursor = 0
        self._measure()
        if self._cursor != cursor and 0 <= offset < self._lines:
            self.scroll_to(y=max(0, self._cursor - offset), animate=False, force=True)
        after = self.current
        if before is not after:
            self.post_message(self.Highlighted(self, after))
        self.refresh()

    def replace_columns(self, columns: Sequence[Column[R]]) -> None:
        """Show other columns."""
        self.columns = list(columns)
        self._layout_for = None
        self.refresh()

    def move_to(self, key: Hashable) -> bool:
        """Put the cursor on the row with this key; false if there is none."""
        found = self._find(key, self._cursor)
        if found is not None:
            self._move(found)
        return found is not None

    def clear_marks(self) -> None:
        """Unmark all rows."""
        if self.marked:
            self.marked.clear()
            self.post_message(self.Marked(self))
            self.refresh()

    def _find(self, key: Hashable, near: int) -> int | None:
        rows = self._rows
        # Rows rarely move far between two updates.
        for at in range(max(0, near - 64), min(len(rows), near + 64)):
            if self._key(rows[at]) == key:
                return at
        return next((at for at, row in enumerate(rows) if self._key(row) == key), None)

    # Keys and mouse

    def action_cursor(self, by: int) -> None:
        """Move the cursor by this many rows."""
        self._move(self._cursor + by)

    def action_page(self, pages: float) -> None:
        """Move the cursor by this many pages."""
        self._move(self._cursor + round(pages * max(1, self._lines - 1)))

    def action_edge(self, edge: int) -> None:
        """Move the cursor to the first (0) or last (-1) row."""
        self._move(0 if edge == 0 else len(self._rows) - 1)

    def action_choose(self) -> None:
        """Open the cursor's row."""
        if (row := self.current) is not None:
            self.post_message(self.Chosen(self, row))

    def action_mark(self) -> None:
        """Mark or unmark the cursor's row, and move to the next."""
        if (row := self.current) is not None:
            self.marked ^= {self._key(row)}
            self.post_message(self.Marked(self))
            self._move(self._cursor + 1)
            self.refresh()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Enable marking only if the table is markable."""
        return self._markable if action == "mark" else True

    def on_click(self, event: events.Click) -> None:
        """Move the cursor to the clicked row; a click on the cursor's row opens it."""
        at = round(self.scroll_y) + event.y - (1 if self._header else 0)
        if event.y < (1 if self._header else 0) or not 0 <= at < len(self._rows):
            return
        if at == self._cursor:
            self.action_choose()
        else:
            self._move(at)

    def _move(self, to: int) -> None:
        to = max(0, min(to, len(self._rows) - 1))
        if to == self._cursor or not self._rows:
            return
        old, self._cursor = self._cursor, to
        top, lines = round(self.scroll_y), self._lines
        if to < top:
            self.scroll_to(y=to, animate=False, force=True)
        elif to >= top + lines:
            self.scroll_to(y=to - lines + 1, animate=False, force=True)
        for row in (old, to):
            self.refresh(Region(0, row - round(self.scroll_y) + (1 if self._header else 0), self.size.width, 1))
        self.post_message(self.Highlighted(self, self.current))

    # Drawing

    @property
    def _lines(self) -> int:
        """The number of rows that fit on the screen."""
        return max(1, self.scrollable_content_region.height - (1 if self._header else 0))

    def _measure(self) -> None:
        self.virtual_size = Size(0, len(self._rows) + (1 if self._header else 0))

    def on_mount(self) -> None:
        """Reload the colours when the theme changes."""
        self.app.theme_changed_signal.subscribe(self, self._reload_colours)

    def _reload_colours(self, _: object) -> None:
        self._palette = None
        self.refresh()

    def on_resize(self) -> None:
        """Keep the cursor visible."""
        self._layout_for = None
        top, lines = round(self.scroll_y), self._lines
        if self._rows and not top <= self._cursor < top + lines:
            self.scroll_to(y=max(0, self._cursor - lines + 1), animate=False, force=True)

    def on_focus(self) -> None:
        """Redraw: the cursor of the focused table looks different."""
        self.refresh()

    def on_blur(self) -> None:
        """Redraw: the cursor of the focused table looks different."""
        self.refresh()

    def render_line(self, y: int) -> Strip:
        """Render one line of the screen."""
        if self._palette is None:
            self._palette = Palette(self.app)
        width = self.scrollable_content_region.width
        self._arrange(width)
        base = self.rich_style
        if self._header and y == 0:
            return self._draw(width, [((each.title, Style.MUTED),) for each, _ in self._layout], base, None)
        at = round(self.scroll_y) + y - (1 if self._header else 0)
        if at >= len(self._rows):
            if at == 0 and self._loaded:
                return Strip(
                    [Segment(set_cell_size(f" {self.empty}", width), base + self._palette[Style.MUTED])], width
                )
            return Strip.blank(width, base)
        row = self._rows[at]
        marked = self._key(row) in self.marked if self.marked else False
        if at == self._cursor:
            name = "cursor" if self.has_focus else "cursor-inactive"
            base += RichStyle(bgcolor=self.app.theme_variables[name])
        return self._draw(width, [each.cell(row) for each, _ in self._layout], base, marked)

    def _draw(self, width: int, cells: Iterable[Line], base: RichStyle, marked: bool | None) -> Strip:
        assert self._palette is not None
        segments = [Segment("✓" if marked else " ", base + self._palette[Style.ACCENT])]
        used = 1
        for (column, room), cell in zip(self._layout, cells, strict=True):
            segments.extend(_fit(pieces(cell), room, column.right, base, self._palette))
            segments.append(Segment(" " * _GAP, base))
            used += room + _GAP
        return Strip(segments, used).adjust_cell_length(width, base)

    def _arrange(self, width: int) -> None:
        """Compute the column widths; hide columns of the highest rank while they do not fit."""
        if self._layout_for == width:
            return
        self._layout_for = width
        shown = list(self.columns)
        while sum(each.width + _GAP for each in shown) + 1 - _GAP > width:
            least = max(shown, key=lambda each: each.rank)
            if least.rank == 0:
                break
            shown.remove(least)
        free = max(0, width - 1 - sum(each.width + _GAP for each in shown) + _GAP)
        shares = sum(each.share for each in shown)
        self._layout = [(each, each.width + (free * each.share // shares if shares else 0)) for each in shown]


def _fit(cell: list[tuple[str, Style]], room: int, right: bool, base: RichStyle, palette: Palette) -> list[Segment]:
    """Return the cell's pieces truncated or padded to exactly this width."""
    segments: list[Segment] = []
    left = room
    for raw, style in cell:
        text = printable(raw)
        length = cell_len(text)
        if left <= 0:
            break
        if length > left:
            segments.append(Segment(set_cell_size(text, left - 1) + _ELLIPSIS, base + palette[style]))
            left = 0
            break
        segments.append(Segment(text, base + palette[style]))
        left -= length
    if left > 0:
        filler = Segment(" " * left, base)
        segments.insert(0, filler) if right else segments.append(filler)
    return segments
