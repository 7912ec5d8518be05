"""Entities with their rows, and messages by status and by the hour they were received."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.widgets import Static

from nomnom.envelope import REMOVED, Status
from nomnom.presentation import figures
from nomnom.presentation.marks import STATUSES, SUPERSEDED
from nomnom_tui.app.view import View
from nomnom_tui.screens.entity_rows import EntityRowsView
from nomnom_tui.text.styles import STATUS_MARKS, Line, Style, content
from nomnom_tui.widgets.column_chart import column_chart
from nomnom_tui.widgets.panel import Panel
from nomnom_tui.widgets.table import Column, LiveTable

if TYPE_CHECKING:
    from nomnom.inspection.entities import EntityReport
    from nomnom.inspection.statuses import StatusCount
    from nomnom.receipts import HourCount

SPANS = (24, 72, 168)
"""Selectable time spans in hours."""
_BAR = 14
_BAD = (Status.FAILED, Status.DLQ)


@dataclass(frozen=True, slots=True)
class Hour:
    """The messages received in one hour, by their current status."""

    at: datetime
    counts: Mapping[Status, int]
    superseded: int

    @property
    def total(self) -> int:
        """The number of messages."""
        return sum(self.counts.values())

    @property
    def bad(self) -> int:
        """The number of messages that failed, temporarily or permanently."""
        return sum(self.counts.get(each, 0) for each in _BAD)


class EntitiesView(View):
    """Entities with row counts; ``message_status`` by status and by hour, as a table and a small chart."""

    CRUMB = "Entities"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("t", "span", "Time span", id="entities.hours"),
    ]
    DEFAULT_CSS = """
    EntitiesView #upper { height: 1fr; max-height: 16; }
    EntitiesView #entities { width: 1fr; }
    EntitiesView #statuses { width: 31; }
    EntitiesView #lower { height: 1fr; }
    EntitiesView #chart { height: auto; padding: 1 1 0 1; display: none; }
    EntitiesView.-high #chart { display: block; }
    """

    def __init__(self) -> None:
        super().__init__()
        self._span = SPANS[0]
        self._hours: list[Hour] = []
        self._max_count = 0
        self._bar_room = _BAR
        self._entities: LiveTable[EntityReport] = LiveTable(
            _entity_columns(), key=lambda each: each.entity.name, id="tables", empty="no entities", enter_label="Rows"
        )
        self._statuses: LiveTable[StatusCount] = LiveTable(
            _status_columns(), key=lambda each: each.status, id="counts", empty="no processed messages yet"
        )
        self._table: LiveTable[Hour] = LiveTable(
            self._hour_columns(), key=lambda each: each.at, id="hours", empty="no messages in this period"
        )

    def content(self) -> ComposeResult:
        """Entities and statuses side by side, hours below."""
        with Horizontal(id="upper"):
            yield Panel("Entities", self._entities, id="entities", loading_text="counting rows")
            yield Panel("Messages by status", self._statuses, id="statuses", loading_text="counting")
        with Vertical(id="lower"):
            yield Panel("By hour", Static(id="chart"), self._table, id="by-hour", loading_text="counting messages")

    def begin(self) -> None:
        """Load cheap counts often and the expensive ones rarely."""
        self._entities.focus()
        self.subscribe("entities", 5.0, self._load_entities, self._show_entities, self.query_one("#entities", Panel))
        self.subscribe("statuses", 3.0, self._load_statuses, self._statuses.show, self.query_one("#statuses", Panel))
        self.subscribe("hours", 15.0, self._load_hours, self._show_hours, self.query_one("#by-hour", Panel), timeout=15)

    def environment_changed(self) -> None:
        """Clear the data of the previous environment."""
        self._hours = []
        for table in (self._entities, self._statuses, self._table):
            table.show([])
        self.query_one("#chart", Static).update("")

    async def _load_entities(self) -> list[EntityReport]:
        return await (await self.session.pipeline()).entities.reports()

    async def _load_statuses(self) -> list[StatusCount]:
        counts = await (await self.session.pipeline()).statuses.counts()
        return [each for each in counts if each.messages or each.status not in REMOVED]

    async def _load_hours(self) -> list[HourCount]:
        return await (await self.session.pipeline()).statuses.by_hour(self._span)

    def _show_entities(self, reports: Sequence[EntityReport]) -> None:
        self._entities.show(reports)
        total = sum(each.count.rows for each in reports)
        exact = all(each.count.exact for each in reports)
        rows = figures.approximate_count(total, exact=exact)
        summary = f"{rows} rows  {figures.size(sum(each.bytes for each in reports))}"
        self.query_one("#entities", Panel).retitle("Entities", (f" {summary} ", Style.MUTED))

    def _show_hours(self, counts: Sequence[HourCount]) -> None:
        self._hours = by_hours(counts, self._span, figures.present())
        self._max_count = max((each.total for each in self._hours), default=0)
        self._table.show(self._hours)
        total = sum(each.total for each in self._hours)
        self.query_one("#by-hour", Panel).retitle(
            "By hour", (f" received in the last {self._span} hours: {figures.count(total)} ", Style.MUTED)
        )
        self._draw()

    def on_resize(self) -> None:
        """Fit the chart to the width."""
        room = _BAR + max(0, self.size.width - 80) // 2
        if room != self._bar_room:
            self._bar_room = room
            self._table.replace_columns(self._hour_columns())
        self.call_after_refresh(self._draw)

    def _draw(self) -> None:
        hours = list(reversed(self._hours))
        if not hours or not self.is_mounted:
            return
        room = max(40, self.size.width - 4)
        every = 6 if room // len(hours) < 3 else 3
        labels = [_axis_label(each.at) if each.at.astimezone().hour % every == 0 else "" for each in hours]
        lines: list[Line] = [("received", Style.MUTED)]
        lines += column_chart([each.total for each in hours], labels, 5, room, Style.ACCENT)
        bad = sum(each.bad for each in hours)
        lines.append([("failed and dead letters (separate scale)", Style.MUTED)])
        if bad:
            lines += column_chart([each.bad for each in hours], labels, 2, room, Style.BAD)
        else:
            lines.append(("      none", Style.GOOD))
        self.query_one("#chart", Static).update(content(*lines))

    def action_span(self) -> None:
        """Switch to the next time span."""
        self._span = SPANS[(SPANS.index(self._span) + 1) % len(SPANS)]
        self._feeds["hours"].refresh()

    @on(LiveTable.Chosen, "#tables")
    def _chosen(self, event: LiveTable.Chosen) -> None:
        self.nomnom.push_screen(EntityRowsView(event.row.entity))

    def _hour_columns(self) -> list[Column[Hour]]:
        def of(status: Status, style: Style = Style.PLAIN) -> Column[Hour]:
            label = STATUSES[status].label.capitalize()
            return Column(label, lambda each: _known(each.counts.get(status, 0), style), 11, right=True)

        return [
            Column("Hour", lambda each: _hour_label(each.at), 9),
            Column("Received", lambda each: _known(each.total), 9, right=True),
            Column("", self._bar, self._bar_room),
            of(Status.COMPLETED),
            of(Status.DLQ, Style.BAD),
            Column("Failed", of(Status.FAILED, Style.WARNING).cell, 7, right=True, rank=1),
            Column("Processing", of(Status.PROCESSING).cell, 10, right=True, rank=2),
            Column(SUPERSEDED.label.capitalize(), lambda each: _known(each.superseded), 10, right=True, rank=3),
        ]

    def _bar(self, hour: Hour) -> Line:
        if not hour.total or not self._max_count:
            return ""
        room = self._bar_room
        filled = max(1, round(hour.total / self._max_count * room))
        bad = min(filled, max(1, round(hour.bad / self._max_count * room))) if hour.bad else 0
        return [("█" * (filled - bad), Style.ACCENT), ("▒" * bad, Style.BAD)]


def by_hours(counts: Sequence[HourCount], span: int, now: datetime) -> list[Hour]:
    """Return the last ``span`` hours, newest first, including hours without messages."""
    found: dict[datetime, tuple[dict[Status, int], int]] = {}
    for each in counts:
        by_status, superseded = found.get(each.hour, ({}, 0))
        by_status[each.status] = by_status.get(each.status, 0) + each.messages
        found[each.hour] = (by_status, superseded + each.superseded)
    latest = max([now.astimezone(UTC).replace(minute=0, second=0, microsecond=0), *found])
    hours = (latest - timedelta(hours=ago) for ago in range(span))
    return [Hour(at, *found.get(at, ({}, 0))) for at in hours]


def _entity_columns() -> list[Column[EntityReport]]:
    return [
        Column("Entity", lambda each: (each.entity.name, Style.STRONG), 14),
        Column("Tag", lambda each: (each.entity.tag, Style.MUTED), 4),
        Column("Rows", lambda each: str(each.count), 15, right=True),
        Column("Size", lambda each: figures.size(each.bytes), 9, right=True),
        Column("Key", lambda each: (", ".join(each.entity.key), Style.MUTED), 24, share=1, rank=1),
        Column("Fields", lambda each: figures.count(len(each.entity.fields)), 6, right=True, rank=2),
        Column("Table", lambda each: (each.entity.table, Style.MUTED), 14, rank=3),
    ]


def _status_columns() -> list[Column[StatusCount]]:
    def name(each: StatusCount) -> Line:
        sign, style = STATUS_MARKS[each.status]
        return [(f"{sign} ", style if each.messages else Style.MUTED), (STATUSES[each.status].label, Style.PLAIN)]

    return [
        Column("Status", name, 13),
        Column("Messages", str, 15, right=True),
    ]


def _known(number: int, style: Style = Style.PLAIN) -> Line:
    return (figures.count(number), style) if number else (figures.NONE, Style.FAINT)


def _hour_label(at: datetime) -> str:
    return at.astimezone().strftime("%a %H:%M")


def _axis_label(at: datetime) -> str:
    local = at.astimezone()
    return local.strftime("%a") if local.hour == 0 else local.strftime("%H")
