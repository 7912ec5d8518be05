"""The rows of an entity, paged by key in both directions, and one row with all of its fields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar

from rich.cells import cell_len
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType

from nomnom.presentation import figures
from nomnom_tui.app.view import View
from nomnom_tui.text.styles import Line, Style
from nomnom_tui.widgets.paged_table import PAGE, PagedTable, page_keys
from nomnom_tui.widgets.panel import Panel
from nomnom_tui.widgets.properties import LABEL, TextTable, labelled, wrapped
from nomnom_tui.widgets.table import Column, LiveTable

if TYPE_CHECKING:
    from nomnom.inspection.entities import RowPage
    from nomnom.schema import Entity

_MAX_COLUMN_WIDTH = 40
"""Maximum width of a table column; the view of one row shows full values."""

_TYPE = 16

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class PageRequest:
    """The requested page: after a cursor, before a cursor, or the first one if neither is set."""

    after: str | None = None
    before: str | None = None


class EntityRowsView(View):
    """Rows ordered by key; the key columns stay in place while the other columns scroll."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("right,l", "shift(1)", "More columns", key_display="→", id="entity_rows.right"),
        Binding("left,h", "shift(-1)", "Previous columns", show=False, id="entity_rows.left"),
        Binding("f", "first", "First page", id="entity_rows.first"),
    ]

    def __init__(self, entity: Entity) -> None:
        super().__init__()
        self.entity = entity
        self._request = PageRequest()
        self._turned: int | None = 1
        self._page: RowPage | None = None
        self._offset = 0
        self._table: PagedTable[Row] = PagedTable(
            [], key=self._row_key, id="table", empty="no rows yet", enter_label="All fields"
        )

    @property
    def crumb(self) -> str:
        """The entity."""
        return f"{self.entity.name} rows"

    def content(self) -> ComposeResult:
        """The table of rows."""
        yield Panel(self.entity.name, self._table, id="rows", loading_text="loading rows")

    def begin(self) -> None:
        """Reload the page regularly: rows are written all the time."""
        self._table.focus()
        self.subscribe("rows", 5.0, self._load, self._show, self.query_one("#rows", Panel))

    def environment_changed(self) -> None:
        """Start at the first page of the new environment."""
        self._table.show([])
        self._go(PageRequest())

    def _row_key(self, row: Row) -> tuple[object, ...]:
        return (*(row[each] for each in self.entity.key), row["message_id"])

    async def _load(self) -> RowPage:
        entities = (await self.session.pipeline()).entities
        request = self._request
        page = await entities.rows(self.entity.name, after=request.after, before=request.before, limit=PAGE)
        if request.before is not None and page.previous is None and len(page.rows) < PAGE:
            # Less than a page before the first row: show the first page, which is full.
            self._request = PageRequest()
            return await entities.rows(self.entity.name, limit=PAGE)
        return page

    def _show(self, page: RowPage) -> None:
        self._page = page
        if self._turned is None:
            self._table.show(page.rows)
        else:
            self._arrange(page)
            self._table.turn(page.rows, self._turned)
            self._turned = None
        keys = page_keys(previous=page.previous is not None, next=page.next is not None)
        self._table.set_neighbours(previous=page.previous is not None, next=page.next is not None)
        summary = f" {len(page.rows)} rows by {', '.join(self.entity.key)}"
        hidden = f"  columns from {self._others[self._offset]}" if self._offset else ""
        self.query_one("#rows", Panel).retitle(
            self.entity.name,
            (f"{summary}{hidden}  {keys or ('all rows' if page.rows else '')} ", Style.MUTED),
        )

    def _go(self, request: PageRequest, turned: int = 1) -> None:
        self._request, self._turned = request, turned
        self._feeds["rows"].refresh()

    @on(PagedTable.Turned)
    def _turn(self, event: PagedTable.Turned) -> None:
        page = self._page
        if page is None or self._turned is not None:
            return
        if event.by > 0 and page.next is not None:
            self._go(PageRequest(after=page.next))
        elif event.by < 0 and page.previous is not None:
            self._go(PageRequest(before=page.previous), -1)

    def action_first(self) -> None:
        """Go to the first page."""
        self._go(PageRequest())

    # Columns

    @property
    def _others(self) -> list[str]:
        names = [each.name for each in self.entity.fields if each.name not in self.entity.key]
        return [*names, "received_at", "message_id"]

    def _arrange(self, page: RowPage) -> None:
        """Fit the columns to this page's values; those beyond the right edge are reached with the arrow keys."""
        numeric = {each.name for each in self.entity.fields if each.type.numeric}
        names = [*self.entity.key, *self._others[self._offset :]]
        columns: list[Column[Row]] = []
        for at, name in enumerate(names):
            widest = max((cell_len(shown(row[name])) for row in page.rows), default=0)
            columns.append(
                Column(
                    name,
                    lambda row, name=name: _cell(row[name], strong=name in self.entity.key),
                    max(cell_len(name), min(_MAX_COLUMN_WIDTH, widest), 3),
                    right=name in numeric,
                    # The last ones are hidden first; the key always stays.
                    rank=max(0, at - len(self.entity.key) + 1),
                )
            )
        self._table.replace_columns(columns)

    def action_shift(self, by: int) -> None:
        """Scroll the columns after the key by one."""
        if self._page is None:
            return
        self._offset = max(0, min(len(self._others) - 1, self._offset + by))
        self._arrange(self._page)
        self._show(self._page)

    @on(LiveTable.Chosen)
    def _open(self, event: LiveTable.Chosen) -> None:
        self.nomnom.push_screen(RowView(self.entity, event.row))


class RowView(View):
    """One row: every field with its type and full value, and the message that wrote it."""

    def __init__(self, entity: Entity, row: Row) -> None:
        super().__init__()
        self.entity, self.row = entity, row
        self._lines = TextTable(id="lines")

    @property
    def crumb(self) -> str:
        """The key."""
        key = [self.row[each] for each in self.entity.key]
        return " ".join(shown(each) for each in key) if None not in key else "no key"

    def content(self) -> ComposeResult:
        """The fields."""
        yield Panel(f"{self.entity.name} {self.crumb}", self._lines, id="row")

    def begin(self) -> None:
        """Show the row as it was on the page; nothing is loaded."""
        self._lines.focus()
        self.call_after_refresh(self._show_fields)

    def on_resize(self) -> None:
        """Rewrap the lines."""
        self.call_after_refresh(self._show_fields)

    def _show_fields(self) -> None:
        room = self._lines.room
        lines: list[Line] = [("Fields", Style.HEADING)]
        for each in self.entity.fields:
            value = self.row[each.name]
            mark = "*" if each.name in self.entity.key else " "
            name = f"{mark} {each.name}"
            style = Style.FAINT if value is None else Style.STRONG if mark == "*" else Style.PLAIN
            parts = wrapped(shown(value) or "''", max(10, room - LABEL - _TYPE - 2))
            lines.append(
                [(f"  {name:<{LABEL}}", Style.MUTED), (f"{each.type.column:<{_TYPE}}", Style.FAINT), (parts[0], style)]
            )
            lines += [[(" " * (LABEL + _TYPE + 2), Style.PLAIN), (part, style)] for part in parts[1:]]
        lines += ["", ("Written by", Style.HEADING)]
        for name in ("message_id", "received_at"):
            lines += labelled(f"  {name}", shown(self.row[name]), room, width=LABEL + _TYPE)
        lines += ["", [("  * key field", Style.MUTED)]]
        self._lines.show_lines(lines)


def shown(value: object) -> str:
    """Return a value as text; null and empty values differ."""
    if value is None:
        return "null"
    if isinstance(value, datetime):
        return figures.moment(value)
    return str(value)


def _cell(value: object, *, strong: bool) -> Line:
    if value is None:
        return ("null", Style.FAINT)
    return (shown(value), Style.STRONG if strong else Style.PLAIN)
