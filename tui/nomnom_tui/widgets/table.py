"""A table of many live rows.

Textual's DataTable keeps and measures every cell it is given: 10,000 rows cost seconds, and keys wait meanwhile. This
one holds the caller's row objects and draws the lines on the screen only; its columns share the width there is, and the
less important ones give way when it is narrow.
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
    """One column: how a row's cell is made, and how wide it may be.

    ``width`` is fixed where ``share`` is 0; else the least, and ``share`` says how much of the free width it gets.
    Where the table is too narrow, columns with the highest ``rank`` disappear first; rank 0 stays.
    """

    title: str
    cell: Callable[[R], Line]
    width: int
    share: int = 0
    right: bool = False
    rank: int = 0


class LiveTable(ScrollView, Generic[R], can_focus=True):
    """Rows by key: on each update the cursor stays on its row, the scroll where it was, and marks on what they mark.

    :meth:`show` takes the rows; they are compared by key and drawn when visible. Posts :class:`Highlighted` when the
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
        Binding("ctrl+u", "page(-0.5)", "Half a page up", show=False, id="table.half_up"),
        Binding("ctrl+d", "page(0.5)", "Half a page down", show=False, id="table.half_down"),
        Binding("home,g", "edge(0)", "First row", show=False, id="table.first"),
        Binding("end,G", "edge(-1)", "Last row", show=False, id="table.last"),
        Binding("enter", "choose", "Open", show=False, id="table.open"),
        Binding("space", "mark", "Mark", show=False, id="table.mark"),
    ]

    class Highlighted(Message):
        """The cursor is on another row (None: there is none)."""

        def __init__(self, table: LiveTable[Any], row: Any) -> None:
            self.table = table
            self.row = row
            super().__init__()

        @property
        def control(self) -> LiveTable[Any]:
            return self.table

    class Chosen(Message):
        """A row was chosen with enter or a click on the cursor's row."""

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
        empty: str = "nothing here",
        opens: str = "",
        markable: bool = False,
        header: bool = True,
    ) -> None:
        super().__init__(id=id)
        self.columns = list(columns)
        self.empty = empty
        self.opens = opens
        """What enter does, for the line of keys; nothing is shown where empty."""
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
        """The rows, as last shown."""
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
        """Show these rows from now on. The cursor stays on its row's key, else on its place."""
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
        """Show other columns from now on."""
        self.columns = list(columns)
        self._layout_for = None
        self.refresh()

    def move_to(self, key: Hashable) -> bool:
        """Put the cursor on the row with this key; false where there is none."""
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
        # Rows seldom move far between two updates.
        for at in range(max(0, near - 64), min(len(rows), near + 64)):
            if self._key(rows[at]) == key:
                return at
        return next((at for at, row in enumerate(rows) if self._key(row) == key), None)

    # Keys and mouse

    def action_cursor(self, by: int) -> None:
        """Move the cursor by so many rows."""
        self._move(self._cursor + by)

    def action_page(self, pages: float) -> None:
        """Move the cursor by so many pages."""
        self._move(self._cursor + round(pages * max(1, self._lines - 1)))

    def action_edge(self, edge: int) -> None:
        """Move the cursor to the first (0) or last (-1) row."""
        self._move(0 if edge == 0 else len(self._rows) - 1)

    def action_choose(self) -> None:
        """Choose the cursor's row."""
        if (row := self.current) is not None:
            self.post_message(self.Chosen(self, row))

    def action_mark(self) -> None:
        """Mark or unmark the cursor's row, and go to the next."""
        if (row := self.current) is not None:
            self.marked ^= {self._key(row)}
            self.post_message(self.Marked(self))
            self._move(self._cursor + 1)
            self.refresh()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Marking exists where the table's owner asked for it."""
        return self._markable if action == "mark" else True

    def on_click(self, event: events.Click) -> None:
        """A click moves the cursor; a click on the cursor's row chooses it."""
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
        """How many rows fit on the screen."""
        return max(1, self.scrollable_content_region.height - (1 if self._header else 0))

    def _measure(self) -> None:
        self.virtual_size = Size(0, len(self._rows) + (1 if self._header else 0))

    def on_mount(self) -> None:
        """Take the theme's colours, and take them again when it changes."""
        self.app.theme_changed_signal.subscribe(self, self._take_colours)

    def _take_colours(self, _: object) -> None:
        self._palette = None
        self.refresh()

    def on_resize(self) -> None:
        """Keep the cursor in sight."""
        self._layout_for = None
        top, lines = round(self.scroll_y), self._lines
        if self._rows and not top <= self._cursor < top + lines:
            self.scroll_to(y=max(0, self._cursor - lines + 1), animate=False, force=True)

    def on_focus(self) -> None:
        """The cursor looks different where the keys go."""
        self.refresh()

    def on_blur(self) -> None:
        """The cursor looks different where the keys do not go."""
        self.refresh()

    def render_line(self, y: int) -> Strip:
        """One line on the screen."""
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
            name = "cursor" if self.has_focus else "cursor-away"
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
        """Give each column its width; drop those of the highest rank while they do not fit."""
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
    """The cell's pieces in exactly so many columns of the screen."""
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
