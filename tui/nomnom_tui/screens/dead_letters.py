"""Dead letters: messages that could not be written, with what failed and what can be done about it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal

from nomnom.presentation import figures
from nomnom.presentation.terms import Term
from nomnom_tui.app.commands import Command
from nomnom_tui.app.dead_letter_changes import (
    Targets,
    delete_change,
    fields_problem,
    filter_problem,
    parse_fields,
    parse_filter,
    replay_change,
)
from nomnom_tui.app.view import View
from nomnom_tui.text.error_line import error_line, failed_field
from nomnom_tui.text.styles import Line, Style
from nomnom_tui.widgets.dead_letter_filter import FilterDialog
from nomnom_tui.widgets.dead_letter_pane import DeadLetterPane
from nomnom_tui.widgets.dialogs import Field, FormDialog
from nomnom_tui.widgets.paged_table import PAGE, PagedTable, page_keys
from nomnom_tui.widgets.panel import Panel
from nomnom_tui.widgets.table import Column, LiveTable

if TYPE_CHECKING:
    from nomnom.inspection.dead_letters import DeadLetter, Filter
    from nomnom_control.session.dead_letters import Edit, Page

_SCAN_SECONDS = 0.4
"""Seconds to scan unindexed dead letters per refresh; the next refresh continues."""
_INTERVAL = 2.0
_SCAN_INTERVAL = 0.1


class DeadLetterTable(PagedTable["DeadLetter"]):
    """A page of dead letters. The panel title shows the paging keys, which leaves the key bar to the actions."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("right_square_bracket", "turn(1)", "Next page", key_display="]", show=False, id="table.next_page"),
    ]


class DeadLettersView(View):
    """A page of dead letters and, if wide enough, the one under the cursor. Changes one, the marked ones or all."""

    CRUMB = "Dead letters"
    CHANGES = frozenset({"replay", "replay_all", "delete", "delete_all"})
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "filter", "Filter", key_display="/", id="dead_letters.filter"),
        Binding("e", "edit", "Edit", id="dead_letters.edit"),
        Binding("d", "dry_run", "Dry run", id="dead_letters.dry_run"),
        Binding("p", "replay", "Replay", id="dead_letters.replay"),
        Binding("b", "groups", "Groups", id="dead_letters.groups"),
        Binding("m", "fix_fields", "Fix fields", id="dead_letters.mend"),
        Binding("a", "audit", "Audit", id="dead_letters.audit"),
        Binding("D", "dry_run_all", "Dry run all matching", show=False, id="dead_letters.dry_run_all"),
        Binding("P", "replay_all", "Replay all matching", show=False, id="dead_letters.replay_all"),
        Binding("M", "fix_fields_all", "Fix fields of all matching", show=False, id="dead_letters.mend_all"),
        Binding("x", "delete", "Delete", show=False, id="dead_letters.delete"),
        Binding("X", "delete_all", "Delete all matching", show=False, id="dead_letters.delete_all"),
        Binding("o", "order", "Toggle order", show=False, id="dead_letters.order"),
        Binding("c", "clear_marks", "Unmark all", show=False, id="dead_letters.clear_marks"),
    ]
    DEFAULT_CSS = """
    DeadLettersView #page { width: 3fr; }
    DeadLettersView #preview { width: 2fr; }
    DeadLettersView.-narrow #preview { display: none; }
    """

    def __init__(self) -> None:
        super().__init__()
        self._words = ""
        self._after: int | None = None
        self._before: int | None = None
        self._newest_first = True
        self._turned: int | None = 1
        self._page: Page | None = None
        self._table = DeadLetterTable(
            dead_letter_columns(),
            key=lambda each: each.sequence,
            id="table",
            empty="no dead letters",
            enter_label="Open",
            markable=True,
        )
        self._pane = DeadLetterPane(id="pane")

    def content(self) -> ComposeResult:
        """A page and, if wide enough, the dead letter under the cursor."""
        with Horizontal():
            yield Panel("Dead letters", self._table, id="page", loading_text="loading dead letters")
            yield Panel("Dead letter", self._pane, id="preview")

    def begin(self) -> None:
        """Load the page every two seconds."""
        self._table.focus()
        self.subscribe("letters", _INTERVAL, self._load, self._show, self.query_one("#page", Panel))

    def environment_changed(self) -> None:
        """Start at the newest dead letter without a filter, which may not apply to the new environment."""
        self._table.show([])
        self._table.clear_marks()
        self.filter("")

    # Pages

    @property
    def active_filter(self) -> Filter:
        """The current filter."""
        return parse_filter(self._words)

    async def _load(self) -> Page:
        pipeline = await self.session.pipeline()
        self._pane.grammar = pipeline.grammar
        dead_letters = pipeline.dead_letters
        page = await dead_letters.page(
            self.active_filter,
            after=self._after,
            before=self._before,
            limit=PAGE,
            newest_first=self._newest_first,
            within=_SCAN_SECONDS,
        )
        edge = self._after if self._newest_first else self._before
        if edge is not None and len(page.dead_letters) < PAGE:
            # Less than a page left in this direction: show the first page, which is full and receives new ones.
            self._after = self._before = None
            page = await dead_letters.page(
                self.active_filter, limit=PAGE, newest_first=self._newest_first, within=_SCAN_SECONDS
            )
        return page

    def _show(self, page: Page) -> None:
        self._page = page
        # Continue an incomplete scan without a pause.
        self._feeds["letters"].interval = _INTERVAL if page.complete else _SCAN_INTERVAL
        self._table.empty = "no matching dead letters" if self._words else "no dead letters"
        if self._turned is None:
            self._table.show(page.dead_letters)
        else:
            self._table.turn(page.dead_letters, self._turned)
            self._turned = None
        has_next, has_previous = (page.older, page.newer) if self._newest_first else (page.newer, page.older)
        self._table.set_neighbours(previous=has_previous, next=has_next)
        self._retitle(page)
        self._preview()

    def _retitle(self, page: Page) -> None:
        count = f" {figures.count(page.matching)}"
        beside: list[tuple[str, Style]] = [(count, Style.PLAIN)]
        if self._words:
            beside += [(f" of {figures.count(page.total)} match ", Style.MUTED), (self._words, Style.ACCENT)]
        if not page.complete:
            beside.append((f"  ◐ scanned {figures.count(page.scanned)} of {figures.count(page.total)}", Style.ACCENT))
        if self._table.marked:
            beside.append((f"  ✓ {len(self._table.marked):,} marked", Style.ACCENT))
        beside.append(("  newest first" if self._newest_first else "  oldest first", Style.MUTED))
        keys = page_keys(previous=self._table.has_previous, next=self._table.has_next)
        beside.append((f"  {keys} ", Style.MUTED))
        self.query_one("#page", Panel).retitle("Dead letters", *beside)

    @on(PagedTable.Turned)
    def _turn(self, event: PagedTable.Turned) -> None:
        if self._page is None or not self._page.dead_letters or self._turned is not None:
            return
        first, last = self._page.dead_letters[0].sequence, self._page.dead_letters[-1].sequence
        if (event.by > 0) == self._newest_first:
            self._after, self._before = None, last if event.by > 0 else first
        else:
            self._after, self._before = last if event.by > 0 else first, None
        self._go(event.by)

    def _go(self, turned: int) -> None:
        self._turned = turned
        self._feeds["letters"].refresh()

    def action_order(self) -> None:
        """Switch between newest first and oldest first."""
        self._newest_first = not self._newest_first
        self._after = self._before = None
        self._go(1)

    # The filter

    def action_filter(self) -> None:
        """Open the filter dialog."""
        form = FilterDialog(self.session, self._words)
        self.nomnom.push_screen(form, lambda values: None if values is None else self.filter(values["words"]))

    def filter(self, words: str) -> None:
        """Show only dead letters that match these words; all if empty."""
        if (problem := filter_problem(words)) is not None:
            self.nomnom.notify(problem, title="Filter", severity="warning", markup=False)
            return
        self._words = words.strip()
        self._after = self._before = None
        self._table.clear_marks()
        if "letters" in self._feeds:
            self._go(1)

    def commands(self) -> Iterable[Command]:
        """The ``filter`` command."""
        return (Command("filter", "show matching dead letters", self.filter, "WORDS", lambda _: self._suggestions()),)

    def _suggestions(self) -> list[str]:
        dead_letters = self._page.dead_letters if self._page is not None else ()
        named = {f"entity:{each.entity}" for each in dead_letters} | {f"reason:{each.reason}" for each in dead_letters}
        return sorted([*named, "since:15m", "since:2h"])

    # Changes

    def selected(self) -> Targets | None:
        """Return the marked dead letters, or the one under the cursor."""
        if self._table.marked:
            marked = sorted(each for each in self._table.marked if isinstance(each, int))
            return Targets(marked, len(marked))
        dead_letter = self._table.current
        return None if dead_letter is None else Targets([dead_letter.sequence], 1)

    def matching(self) -> Targets | None:
        """Return all dead letters that match the filter, or None while the scan is incomplete."""
        page = self._page
        if page is None or page.matching == 0:
            return None
        if not page.complete:
            self.nomnom.notify("still scanning the dead letters; try again in a moment", severity="warning")
            return None
        return Targets(self.active_filter, page.matching)

    def action_replay(self) -> None:
        """Replay the marked dead letters, or the one under the cursor."""
        if (selected := self.selected()) is not None:
            self.nomnom.perform(replay_change(self.session, selected), self._unmark)

    def action_replay_all(self) -> None:
        """Ask for a rate and replay all that match."""
        if (selected := self.matching()) is None:
            return
        form = FormDialog(
            f"Replay {selected.description}",
            [Field("rate", "Maximum rate", "", "messages per second; empty: unlimited", _rate_problem)],
            lambda _: (),
            "Continue",
        )

        def go(values: dict[str, str] | None) -> None:
            if values is not None:
                rate = float(values["rate"]) if values["rate"] else None
                self.nomnom.perform(replay_change(self.session, selected, rate=rate))

        self.nomnom.push_screen(form, go)

    def action_delete(self) -> None:
        """Delete the marked dead letters, or the one under the cursor, permanently."""
        if (selected := self.selected()) is not None:
            self.nomnom.perform(delete_change(self.session, selected), self._unmark)

    def action_delete_all(self) -> None:
        """Delete all that match permanently."""
        if (selected := self.matching()) is not None:
            self.nomnom.perform(delete_change(self.session, selected))

    def _unmark(self, done: bool) -> None:
        if done:
            self._table.clear_marks()

    def action_clear_marks(self) -> None:
        """Unmark all."""
        self._table.clear_marks()

    def action_dry_run(self) -> None:
        """Open a dry run for the marked dead letters, or the one under the cursor."""
        self._open_dry_run(self.selected())

    def action_dry_run_all(self) -> None:
        """Open a dry run for all that match."""
        self._open_dry_run(self.matching())

    def action_fix_fields(self) -> None:
        """Set fields of the marked dead letters, or of the one under the cursor; the dry run can replay them edited."""
        self._fix_fields(self.selected())

    def action_fix_fields_all(self) -> None:
        """Set fields of all that match, and dry-run them."""
        self._fix_fields(self.matching())

    def _fix_fields(self, selected: Targets | None) -> None:
        if selected is None:
            return
        dead_letter = self._table.current
        failed = None if dead_letter is None else failed_field(dead_letter.error)
        hint = f"{failed or 'field'}=value [tag.field=value …]"
        form = FormDialog(
            f"Fix fields of {selected.description}",
            [Field("fields", "Set", "", hint, fields_problem)],
            lambda _: (),
            "Dry run",
        )
        self.nomnom.push_screen(
            form,
            lambda values: None if values is None else self._open_dry_run(selected, parse_fields(values["fields"])),
        )

    def _open_dry_run(self, selected: Targets | None, edit: Edit | None = None) -> None:
        from nomnom_tui.screens.dry_run import DryRunView

        if selected is not None:
            self.nomnom.push_screen(DryRunView(selected, edit))

    def action_groups(self) -> None:
        """Open the groups."""
        from nomnom_tui.screens.dead_letter_groups import DeadLetterGroupsView

        self.nomnom.push_screen(DeadLetterGroupsView(self._words, self.filter))

    def action_audit(self) -> None:
        """Open the audit log."""
        from nomnom_tui.screens.audit import AuditView

        self.nomnom.push_screen(AuditView())

    def action_edit(self) -> None:
        """Edit the payload of the dead letter under the cursor."""
        from nomnom_tui.screens.dead_letter_editor import DeadLetterEditorView

        if (dead_letter := self._table.current) is not None:
            self.nomnom.push_screen(DeadLetterEditorView(dead_letter.sequence))

    @on(LiveTable.Highlighted, "#table")
    def _preview(self) -> None:
        dead_letter = self._table.current
        self._pane.show_dead_letter(dead_letter)
        self.query_one("#preview", Panel).retitle(
            "Dead letter" if dead_letter is None else f"Dead letter {dead_letter.sequence:,}"
        )

    @on(LiveTable.Marked, "#table")
    def _marked(self) -> None:
        if self._page is not None:
            self._retitle(self._page)

    @on(LiveTable.Chosen, "#table")
    def _open(self, event: LiveTable.Chosen) -> None:
        from nomnom_tui.screens.dead_letter import DeadLetterView

        self.nomnom.push_screen(DeadLetterView(event.row.sequence))


def dead_letter_columns() -> list[Column[DeadLetter]]:
    """Return the columns of a table of dead letters."""
    return [
        Column("Sequence", lambda each: figures.count(each.sequence), 8, right=True),
        Column("Age", lambda each: figures.age(each.failed_at), 7, right=True),
        Column(Term.ENTITY.capitalize(), lambda each: each.entity, 10),
        Column(Term.REASON.capitalize(), _reason, 10),
        Column(Term.ATTEMPTS.capitalize(), lambda each: str(each.attempts), 8, right=True, rank=1),
        Column(Term.REPLAYS.capitalize(), lambda each: str(each.replays or ""), 7, right=True, rank=2),
        Column(Term.ERROR.capitalize(), lambda each: error_line(each.error), 24, share=1),
    ]


def _reason(dead_letter: DeadLetter) -> Line:
    style = (
        Style.BAD
        if dead_letter.reason == "unanswered"
        else Style.WARNING
        if dead_letter.reason == "envelope"
        else Style.PLAIN
    )
    return (dead_letter.reason, style)


def _rate_problem(text: str) -> str | None:
    if not text:
        return None
    try:
        rate = float(text)
    except ValueError:
        return "expected a number"
    return None if 0 < rate < float("inf") else "expected a number above 0"
