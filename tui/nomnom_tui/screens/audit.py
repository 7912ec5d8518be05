"""The audit log: who did what to which message, when, and with what result. It outlives the messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType

from nomnom.presentation import figures
from nomnom_tui.app.dead_letter_changes import undo_change
from nomnom_tui.app.view import View
from nomnom_tui.text.styles import Line, Style
from nomnom_tui.widgets.paged_table import PAGE, PagedTable
from nomnom_tui.widgets.panel import Panel
from nomnom_tui.widgets.table import Column

if TYPE_CHECKING:
    from nomnom_control.session.audit import Record


class AuditView(View):
    """Lists entries, newest first, and undoes replays that were not processed yet."""

    CRUMB = "Audit log"
    CHANGES = frozenset({"undo", "undo_run"})
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("u", "undo", "Undo", id="audit.undo"),
        Binding("U", "undo_run", "Undo run", id="audit.undo_run"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._edges: list[int | None] = [None]
        """For each page up to the current one, the entry before which it starts."""
        self._turned: int | None = 1
        self._table: PagedTable[Record] = PagedTable(
            [
                Column("Entry", lambda each: figures.count(each.id), 8, right=True, rank=2),
                Column("When", lambda each: figures.moment(each.at), 19),
                Column("Who", lambda each: each.actor, 18, rank=1),
                Column("Action", lambda each: each.action.value, 8),
                Column("Sequence", lambda each: figures.count(each.sequence) if each.sequence else "", 8, right=True),
                Column("Entity", lambda each: each.entity, 10, rank=3),
                Column("Message ID", lambda each: (each.message_id or "", Style.MUTED), 36, rank=4),
                Column("Result", _result, 24, share=1),
            ],
            key=lambda each: each.id,
            id="table",
            empty="no entries yet",
        )

    def content(self) -> ComposeResult:
        """The table of entries."""
        yield Panel("Audit log", self._table, id="audit", loading_text="loading the audit log")

    def begin(self) -> None:
        """Load entries regularly: other users add some too."""
        self._table.focus()
        self.subscribe("audit", 3.0, self._load, self._show, self.query_one("#audit", Panel))

    async def _load(self) -> list[Record]:
        pipeline = await self.session.pipeline()
        return list(await pipeline.audit.read(before=self._edges[-1], limit=PAGE))

    def _show(self, records: list[Record]) -> None:
        if self._turned is None:
            self._table.show(records)
        else:
            self._table.turn(records, self._turned)
            self._turned = None
        self._table.set_neighbours(previous=len(self._edges) > 1, next=len(records) == PAGE)

    @on(PagedTable.Turned)
    def _turn(self, event: PagedTable.Turned) -> None:
        if self._turned is not None or not self._table.rows:
            return
        if event.by > 0:
            self._edges.append(self._table.rows[-1].id)
        else:
            self._edges.pop()
        self._turned = event.by
        self._feeds["audit"].refresh()

    def action_undo(self) -> None:
        """Undo the replay of this message."""
        if (record := self._replay()) is not None and record.message_id is not None:
            self.nomnom.perform(undo_change(self.session, run=record.run, message_id=record.message_id))

    def action_undo_run(self) -> None:
        """Undo all replays of this run."""
        if (record := self._replay()) is not None:
            self.nomnom.perform(undo_change(self.session, run=record.run))

    def _replay(self) -> Record | None:
        record = self._table.current
        if record is None:
            return None
        if record.action.value != "replay":
            self.nomnom.notify("only a replay can be undone", severity="warning")
            return None
        return record


def _result(record: Record) -> Line:
    notes = [str(record.detail[name]) for name in ("note", "changes") if record.detail.get(name)]
    style = Style.BAD if record.result == "failed" else Style.PLAIN
    return [(record.result, style), (f"  {'; '.join(notes)}" if notes else "", Style.MUTED)]
