"""A stream's messages, a page at a time by sequence; looking at them consumes nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal

from nomnom.envelope import DEAD, INGEST
from nomnom_tui.app.commands import Command
from nomnom_tui.app.view import View
from nomnom_tui.screens.stored_message import StoredMessageView
from nomnom_tui.text import figures
from nomnom_tui.text.styles import Line, Style
from nomnom_tui.widgets.dialogs import Field, FormDialog
from nomnom_tui.widgets.message_pane import MessagePane
from nomnom_tui.widgets.paged_table import PAGE, PagedTable
from nomnom_tui.widgets.panel import Panel
from nomnom_tui.widgets.table import Column, LiveTable

if TYPE_CHECKING:
    from nomnom.inspection.jetstream import MessagePage, StoredMessage

_FIRST_LINE = 300


@dataclass(frozen=True, slots=True)
class Asked:
    """Which page is wanted: that above a sequence, that below one, or (neither) the one at the edge."""

    after: int | None = None
    before: int | None = None
    newest_first: bool = True
    subject: str = ">"


@dataclass(frozen=True, slots=True)
class Shown:
    """A page, and what was asked for."""

    asked: Asked
    page: MessagePage


class StreamMessagesView(View):
    """The newest first, or the oldest; from any sequence on; of all subjects or some."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("o", "order", "Order", id="stream_messages.order"),
        Binding("s", "seek", "Sequence", id="stream_messages.seek"),
        Binding("slash", "filter", "Subject", id="stream_messages.filter"),
        Binding("f", "edge", "Follow", show=False, id="stream_messages.follow"),
        Binding("v", "look", "Payload as", show=False, id="stream_messages.look"),
    ]
    DEFAULT_CSS = """
    StreamMessagesView #page { width: 3fr; }
    StreamMessagesView #preview { width: 2fr; }
    StreamMessagesView.-narrow #preview { display: none; }
    """

    def __init__(self, stream: str) -> None:
        super().__init__()
        self.stream = stream
        self._asked = Asked()
        self._turned: int | None = 1
        self._wanted: int | None = None
        self._passed: list[Asked] = []
        self._shown: Shown | None = None
        self._table: PagedTable[StoredMessage] = PagedTable(
            message_columns(), key=lambda each: each.sequence, id="table", empty="no message here", opens="Open"
        )
        self._pane = MessagePane(id="pane")

    @property
    def crumb(self) -> str:
        """Which stream's."""
        return f"{self.stream} messages"

    def content(self) -> ComposeResult:
        """A page, and with room the message under the cursor."""
        with Horizontal():
            yield Panel("Messages", self._table, id="page", awaits=f"reading {self.stream}")
            yield Panel("Message", self._pane, id="preview")

    def begin(self) -> None:
        """Load the page again now and then: in a work queue messages go, and at the edge new ones come."""
        self._table.focus()
        self.subscribe("messages", 2.0, self._load, self._show, self.query_one("#page", Panel))

    def environment_changed(self) -> None:
        """The other environment's pages begin at the edge."""
        self._table.show([])
        self._go(Asked())

    # Pages

    async def _load(self) -> Shown:
        asked = self._asked
        pipeline = await self.session.pipeline()
        self._pane.grammar = pipeline.grammar
        page = await pipeline.jetstream.messages(
            self.stream,
            after=asked.after,
            before=asked.before,
            limit=PAGE,
            newest_first=asked.newest_first,
            subject=asked.subject,
        )
        at_edge = asked.after if asked.newest_first else asked.before
        if at_edge is not None and len(page.messages) < PAGE:
            # There is less than a page up to the edge: the page at the edge itself is full, and lives.
            asked = Asked(newest_first=asked.newest_first, subject=asked.subject)
            page = await pipeline.jetstream.messages(
                self.stream, limit=PAGE, newest_first=asked.newest_first, subject=asked.subject
            )
        return Shown(asked, page)

    def _show(self, shown: Shown) -> None:
        self._shown, self._asked = shown, shown.asked
        messages = shown.page.messages
        if self._turned is None:
            self._table.show(messages)
        else:
            self._table.turn(messages, self._turned)
            self._turned = None
        if self._wanted is not None:
            if not self._table.move_to(self._wanted):
                self.nomnom.notify(f"{self.stream} has no message {self._wanted:,} (any more)", severity="warning")
            self._wanted = None
        self._retitle(shown)
        self._preview()

    def _retitle(self, shown: Shown) -> None:
        asked, state, messages = shown.asked, shown.page.state, shown.page.messages
        beside: list[tuple[str, Style]] = [(f" {figures.count(state.messages)}", Style.PLAIN)]
        if messages:
            first, last = messages[0].sequence, messages[-1].sequence
            beside.append((f"  {first:,} … {last:,}", Style.MUTED))
        beside.append(("  newest first" if asked.newest_first else "  oldest first", Style.MUTED))
        if asked.subject != ">":
            beside.append((f"  subject {asked.subject}", Style.ACCENT))
        elif asked.after is None and asked.before is None and asked.newest_first:
            beside.append(("  following", Style.GOOD))
        behind, ahead = self._neighbours(shown)
        self._table.edges(behind=behind, ahead=ahead)
        ways = [text for text, there in (("[ before", behind), ("] more", ahead)) if there]
        beside.append((f"  {'  '.join(ways)} ", Style.MUTED))
        self.query_one("#page", Panel).retitle(f"Messages of {self.stream}", *beside)

    def _neighbours(self, shown: Shown) -> tuple[bool, bool]:
        """Whether there is a page before this one, and one after it, in the order shown."""
        asked, page = shown.asked, shown.page
        if not page.messages:
            return False, False
        if asked.subject != ">":
            return bool(self._passed), page.more
        against, along = (asked.after, asked.before) if asked.newest_first else (asked.before, asked.after)
        if against is not None:
            return page.more, True
        return along is not None, page.more

    def _go(self, asked: Asked, turned: int = 1) -> None:
        self._asked, self._turned = asked, turned
        self._feeds["messages"].refresh()

    @on(PagedTable.Turned)
    def _turn(self, event: PagedTable.Turned) -> None:
        shown = self._shown
        if shown is None or not shown.page.messages or self._turned is not None:
            return
        asked, messages = shown.asked, shown.page.messages
        if event.by > 0:
            if asked.subject != ">":
                self._passed.append(asked)
            self._go(_beyond(asked, messages[-1].sequence))
        elif asked.subject != ">":
            # Subjects are filtered forwards only: the way back is the way that was come.
            self._go(self._passed.pop(), -1)
        else:
            self._go(_in_front(asked, messages[0].sequence), -1)

    def action_order(self) -> None:
        """Newest or oldest first."""
        if self._asked.subject != ">":
            self.nomnom.notify("subjects are filtered from the oldest on", severity="warning")
            return
        self._go(Asked(newest_first=not self._asked.newest_first))

    def action_edge(self) -> None:
        """To the newest messages, and follow them."""
        self._passed.clear()
        self._go(Asked())

    def action_seek(self) -> None:
        """Ask for a sequence and go there."""
        state = None if self._shown is None else self._shown.page.state
        held = "" if state is None else f"{state.first_seq:,} to {state.last_seq:,} are held"
        form = FormDialog(
            f"Go to a message of {self.stream}",
            [Field("sequence", "Sequence", "", held, _sequence)],
            lambda values: (),
            "Go",
        )
        self.nomnom.push_screen(form, lambda values: self.seek(_number(values["sequence"])) if values else None)

    def seek(self, sequence: int) -> None:
        """Show the page that begins with this sequence."""
        self._wanted = sequence
        if self._asked.newest_first:
            self._go(Asked(before=sequence + 1))
        else:
            self._go(Asked(after=sequence - 1, newest_first=False))

    def action_filter(self) -> None:
        """Ask for the subjects to show."""
        form = FormDialog(
            f"Subjects of {self.stream}",
            [
                Field(
                    "subject",
                    "Subject",
                    "" if self._asked.subject == ">" else self._asked.subject,
                    "* is one token, > all that follow; empty for all",
                    _subject,
                )
            ],
            lambda values: (
                (("oldest first: subjects are filtered forwards", Style.MUTED),) if values["subject"] else ()
            ),
            "Filter",
        )
        self.nomnom.push_screen(form, lambda values: None if values is None else self.filter(values["subject"]))

    def filter(self, subject: str) -> None:
        """Show messages of these subjects only, oldest first; of all where empty."""
        self._passed.clear()
        self._go(Asked(newest_first=False, subject=subject) if subject and subject != ">" else Asked())

    def commands(self) -> Iterable[Command]:
        """The same, typed."""
        return (
            Command("sequence", "go to a message", self._seek_typed, "N"),
            Command("subject", "filter by subject", self.filter, "SUBJECT", lambda _: self._subjects()),
        )

    def _seek_typed(self, text: str) -> None:
        if (problem := _sequence(text)) is None:
            self.seek(_number(text))
        else:
            self.nomnom.notify(problem, severity="warning")

    def _subjects(self) -> list[str]:
        prefixes = {each.subject.rpartition(".")[0] for each in self._table.rows}
        return sorted(f"{each}.>" for each in prefixes if each)

    # The message under the cursor

    @on(LiveTable.Highlighted, "#table")
    def _preview(self) -> None:
        message = self._table.current
        self._pane.show_message(message)
        beside = () if message is None else (f"as {self._pane.look.value}",)
        self.query_one("#preview", Panel).retitle("Message" if message is None else f"{message.sequence:,}", *beside)

    def action_look(self) -> None:
        """The payload as record, text or hex."""
        self._pane.next_look()
        self._preview()

    @on(LiveTable.Chosen, "#table")
    def _open(self, event: LiveTable.Chosen) -> None:
        self.nomnom.push_screen(StoredMessageView(event.row))


def message_columns() -> list[Column[StoredMessage]]:
    """The columns of a table of stored messages."""
    return [
        Column("Sequence", lambda each: figures.count(each.sequence), 10, right=True),
        Column("Age", lambda each: figures.age(each.stored_at), 7, right=True),
        Column("Stored", lambda each: figures.moment(each.stored_at), 19, rank=2),
        Column("Entity", lambda each: names(each)[0], 10),
        Column("Message id", lambda each: (names(each)[1], Style.MUTED), 36, rank=1),
        Column("Size", lambda each: figures.size(each.size), 8, right=True),
        Column("Payload", first_line, 28, share=1),
    ]


def names(message: StoredMessage) -> tuple[str, str]:
    """Entity and id as the subject names them; a subject of another kind is told whole."""
    for prefix in (INGEST, DEAD):
        if message.subject.startswith(f"{prefix}."):
            entity, _, identity = message.subject.removeprefix(f"{prefix}.").partition(".")
            return entity, identity
    return message.subject, ""


def first_line(message: StoredMessage) -> Line:
    """The payload's first line, and how many follow."""
    head, _, rest = message.payload.partition(b"\n")
    text = head[:_FIRST_LINE].decode("utf-8", errors="replace")
    more = rest.count(b"\n") + 1 if rest.strip() else 0
    return [(text, Style.PLAIN), (f"  +{more} line{'s' if more > 1 else ''}" if more else "", Style.MUTED)]


def _beyond(asked: Asked, sequence: int) -> Asked:
    """The page that follows in the order shown."""
    if asked.newest_first:
        return Asked(before=sequence)
    return Asked(after=sequence, newest_first=False, subject=asked.subject)


def _in_front(asked: Asked, sequence: int) -> Asked:
    """The page before in the order shown."""
    if asked.newest_first:
        return Asked(after=sequence)
    return Asked(before=sequence, newest_first=False, subject=asked.subject)


def _number(text: str) -> int:
    return int(text.replace(",", ""))


def _sequence(text: str) -> str | None:
    plain = text.replace(",", "")
    return None if plain.isascii() and plain.isdigit() and int(plain) > 0 else "a whole number from 1"


def _subject(text: str) -> str | None:
    if any(each.isspace() for each in text) or ".." in text or text.startswith(".") or text.endswith("."):
        return "tokens separated by single dots, without spaces"
    return None
