"""Dead letters: what could not be written, why, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal

from nomnom_tui.app.commands import Command
from nomnom_tui.app.dead_letter_changes import (
    Chosen,
    delete_change,
    fields_problem,
    filter_problem,
    parse_fields,
    parse_filter,
    replay_change,
)
from nomnom_tui.app.view import View
from nomnom_tui.text import figures
from nomnom_tui.text.error_line import error_line, failed_field
from nomnom_tui.text.styles import Line, Style
from nomnom_tui.widgets.dead_letter_filter import FilterDialog
from nomnom_tui.widgets.dead_letter_pane import DeadLetterPane
from nomnom_tui.widgets.dialogs import Field, FormDialog
from nomnom_tui.widgets.paged_table import PAGE, PagedTable
from nomnom_tui.widgets.panel import Panel
from nomnom_tui.widgets.table import Column, LiveTable

if TYPE_CHECKING:
    from nomnom.inspection.dead_letters import DeadLetter, Filter
    from nomnom_control.session.dead_letters import Edit, Page

_WITHIN = 0.4
"""Seconds of reading letters that are not known yet, for each refresh: the rest waits for the next."""
_INTERVAL = 2.0
_SOON = 0.1


class DeadLetterTable(PagedTable["DeadLetter"]):
    """A page of letters. Its title says where there are others: the line of keys has room for what is done to them."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("right_square_bracket", "turn(1)", "Next page", key_display="]", show=False, id="table.next_page"),
    ]


class DeadLettersView(View):
    """A page of letters, newest first, with room the one under the cursor; by a filter, marked, one or all."""

    CRUMB = "Dead letters"
    CHANGES = frozenset({"replay", "replay_all", "delete", "delete_all"})
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "filter", "Filter", key_display="/", id="dead_letters.filter"),
        Binding("e", "edit", "Edit", id="dead_letters.edit"),
        Binding("d", "dry_run", "Dry run", id="dead_letters.dry_run"),
        Binding("p", "replay", "Replay", id="dead_letters.replay"),
        Binding("b", "groups", "Groups", id="dead_letters.groups"),
        Binding("m", "mend", "Mend", id="dead_letters.mend"),
        Binding("a", "audit", "Audit", id="dead_letters.audit"),
        Binding("D", "dry_run_all", "Dry run of all that match", show=False, id="dead_letters.dry_run_all"),
        Binding("P", "replay_all", "Replay all that match", show=False, id="dead_letters.replay_all"),
        Binding("M", "mend_all", "Mend all that match", show=False, id="dead_letters.mend_all"),
        Binding("x", "delete", "Delete", show=False, id="dead_letters.delete"),
        Binding("X", "delete_all", "Delete all that match", show=False, id="dead_letters.delete_all"),
        Binding("o", "order", "Newest or oldest first", show=False, id="dead_letters.order"),
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
            dead_letter_columns(), key=lambda each: each.sequence, id="table", empty="no dead letters", opens="Open",
            markable=True,
        )  # fmt: skip
        self._pane = DeadLetterPane(id="pane")

    def content(self) -> ComposeResult:
        """A page, and with room the letter under the cursor."""
        with Horizontal():
            yield Panel("Dead letters", self._table, id="page", awaits="reading the dead letters")
            yield Panel("Letter", self._pane, id="preview")

    def begin(self) -> None:
        """Look again every two seconds: letters come and go."""
        self._table.focus()
        self.subscribe("letters", _INTERVAL, self._load, self._show, self.query_one("#page", Panel))

    def environment_changed(self) -> None:
        """The other environment's letters begin at the newest; a filter may name what it does not have."""
        self._table.show([])
        self._table.clear_marks()
        self.filter("")

    # Pages

    @property
    def wanted(self) -> Filter:
        """The present filter."""
        return parse_filter(self._words)

    async def _load(self) -> Page:
        pipeline = await self.session.pipeline()
        self._pane.grammar = pipeline.grammar
        dead_letters = pipeline.dead_letters
        page = await dead_letters.page(
            self.wanted,
            after=self._after,
            before=self._before,
            limit=PAGE,
            newest_first=self._newest_first,
            within=_WITHIN,
        )
        edge = self._after if self._newest_first else self._before
        if edge is not None and len(page.dead_letters) < PAGE:
            # Less than a page up to the edge: the page at the edge itself is full, and lives.
            self._after = self._before = None
            page = await dead_letters.page(self.wanted, limit=PAGE, newest_first=self._newest_first, within=_WITHIN)
        return page

    def _show(self, page: Page) -> None:
        self._page = page
        # What a filter has not looked at yet is looked at without a pause.
        self._feeds["letters"].interval = _INTERVAL if page.complete else _SOON
        self._table.empty = "no dead letter matches" if self._words else "no dead letters"
        if self._turned is None:
            self._table.show(page.dead_letters)
        else:
            self._table.turn(page.dead_letters, self._turned)
            self._turned = None
        ahead, behind = (page.older, page.newer) if self._newest_first else (page.newer, page.older)
        self._table.edges(behind=behind, ahead=ahead)
        self._retitle(page)
        self._preview()

    def _retitle(self, page: Page) -> None:
        known = f" {figures.count(page.matching)}"
        beside: list[tuple[str, Style]] = [(known, Style.PLAIN)]
        if self._words:
            beside += [(f" of {figures.count(page.total)} match ", Style.MUTED), (self._words, Style.ACCENT)]
        if not page.complete:
            beside.append((f"  ◐ {figures.count(page.scanned)} of {figures.count(page.total)} looked at", Style.ACCENT))
        if self._table.marked:
            beside.append((f"  ✓ {len(self._table.marked):,} marked", Style.ACCENT))
        beside.append(("  newest first" if self._newest_first else "  oldest first", Style.MUTED))
        ways = [text for text, there in (("[ before", self._table.behind), ("] more", self._table.ahead)) if there]
        beside.append((f"  {'  '.join(ways)} ", Style.MUTED))
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
        """Newest or oldest first."""
        self._newest_first = not self._newest_first
        self._after = self._before = None
        self._go(1)

    # The filter

    def action_filter(self) -> None:
        """Ask for the letters to show."""
        form = FilterDialog(self.session, self._words)
        self.nomnom.push_screen(form, lambda values: None if values is None else self.filter(values["words"]))

    def filter(self, words: str) -> None:
        """Show letters that match these words only; all where empty."""
        if (problem := filter_problem(words)) is not None:
            self.nomnom.notify(problem, title="Filter", severity="warning", markup=False)
            return
        self._words = words.strip()
        self._after = self._before = None
        self._table.clear_marks()
        if "letters" in self._feeds:
            self._go(1)

    def commands(self) -> Iterable[Command]:
        """The same, typed."""
        return (Command("filter", "show letters that match", self.filter, "WORDS", lambda _: self._suggestions()),)

    def _suggestions(self) -> list[str]:
        dead_letters = self._page.dead_letters if self._page is not None else ()
        named = {f"entity:{each.entity}" for each in dead_letters} | {f"reason:{each.reason}" for each in dead_letters}
        return sorted([*named, "since:15m", "since:2h"])

    # What is done to letters

    def chosen(self) -> Chosen | None:
        """The marked letters, else the one under the cursor."""
        if self._table.marked:
            marked = sorted(each for each in self._table.marked if isinstance(each, int))
            return Chosen(marked, len(marked))
        dead_letter = self._table.current
        return None if dead_letter is None else Chosen([dead_letter.sequence], 1)

    def matching(self) -> Chosen | None:
        """All letters that match the filter, once all have been looked at."""
        page = self._page
        if page is None or page.matching == 0:
            return None
        if not page.complete:
            self.nomnom.notify("not all letters have been looked at yet: in a moment", severity="warning")
            return None
        return Chosen(self.wanted, page.matching)

    def action_replay(self) -> None:
        """Send the marked letters, or this one, to the workers again."""
        if (chosen := self.chosen()) is not None:
            self.nomnom.perform(replay_change(self.session, chosen), self._unmark)

    def action_replay_all(self) -> None:
        """Send all that match to the workers again, at a rate."""
        if (chosen := self.matching()) is None:
            return
        form = FormDialog(
            f"Replay {chosen.which}",
            [Field("rate", "Letters/s", "", "at most; empty for as fast as it goes", _rate_problem)],
            lambda _: (),
            "Go on",
        )

        def go(values: dict[str, str] | None) -> None:
            if values is not None:
                rate = float(values["rate"]) if values["rate"] else None
                self.nomnom.perform(replay_change(self.session, chosen, rate=rate))

        self.nomnom.push_screen(form, go)

    def action_delete(self) -> None:
        """Remove the marked letters, or this one, for good."""
        if (chosen := self.chosen()) is not None:
            self.nomnom.perform(delete_change(self.session, chosen), self._unmark)

    def action_delete_all(self) -> None:
        """Remove all that match for good."""
        if (chosen := self.matching()) is not None:
            self.nomnom.perform(delete_change(self.session, chosen))

    def _unmark(self, done: bool) -> None:
        if done:
            self._table.clear_marks()

    def action_clear_marks(self) -> None:
        """Unmark all."""
        self._table.clear_marks()

    def action_dry_run(self) -> None:
        """What a replay of the marked letters, or of this one, would come to."""
        self._try_out(self.chosen())

    def action_dry_run_all(self) -> None:
        """What a replay of all that match would come to."""
        self._try_out(self.matching())

    def action_mend(self) -> None:
        """Set fields of the marked letters, or of this one, and try that out; the dry run then replays them so."""
        self._mend(self.chosen())

    def action_mend_all(self) -> None:
        """Set fields of all that match, and try that out."""
        self._mend(self.matching())

    def _mend(self, chosen: Chosen | None) -> None:
        if chosen is None:
            return
        dead_letter = self._table.current
        failed = None if dead_letter is None else failed_field(dead_letter.error)
        hint = f"{failed or 'field'}=value, or tag.field=value, or several"
        form = FormDialog(
            f"Mend {chosen.which}", [Field("fields", "Set", "", hint, fields_problem)], lambda _: (), "Try it out"
        )
        self.nomnom.push_screen(
            form, lambda values: None if values is None else self._try_out(chosen, parse_fields(values["fields"]))
        )

    def _try_out(self, chosen: Chosen | None, edit: Edit | None = None) -> None:
        from nomnom_tui.screens.dry_run import DryRunView

        if chosen is not None:
            self.nomnom.push_screen(DryRunView(chosen, edit))

    def action_groups(self) -> None:
        """What the letters have in common."""
        from nomnom_tui.screens.dead_letter_groups import DeadLetterGroupsView

        self.nomnom.push_screen(DeadLetterGroupsView(self._words, self.filter))

    def action_audit(self) -> None:
        """What people did to messages."""
        from nomnom_tui.screens.audit import AuditView

        self.nomnom.push_screen(AuditView())

    def action_edit(self) -> None:
        """Edit this letter's payload."""
        from nomnom_tui.screens.dead_letter_editor import DeadLetterEditorView

        if (dead_letter := self._table.current) is not None:
            self.nomnom.push_screen(DeadLetterEditorView(dead_letter.sequence))

    @on(LiveTable.Highlighted, "#table")
    def _preview(self) -> None:
        dead_letter = self._table.current
        self._pane.show_dead_letter(dead_letter)
        self.query_one("#preview", Panel).retitle(
            "Letter" if dead_letter is None else f"Letter {dead_letter.sequence:,}"
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
    """The columns of a table of letters."""
    return [
        Column("Sequence", lambda each: figures.count(each.sequence), 8, right=True),
        Column("Age", lambda each: figures.age(each.failed_at), 7, right=True),
        Column("Entity", lambda each: each.entity, 10),
        Column("Reason", _reason, 10),
        Column("Tries", lambda each: str(each.attempts), 5, right=True, rank=1),
        Column("Replays", lambda each: str(each.replays or ""), 7, right=True, rank=2),
        Column("Error", lambda each: error_line(each.error), 28, share=1),
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
