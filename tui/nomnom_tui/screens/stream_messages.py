"""The messages of a stream, paged by sequence. Browsing is read-only: nothing is consumed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal

from nomnom.envelope import DEAD, INGEST
from nomnom.presentation import figures
from nomnom_tui.app.commands import Command
from nomnom_tui.app.view import View
from nomnom_tui.screens.stored_message import StoredMessageView
from nomnom_tui.text.styles import Line, Style
from nomnom_tui.widgets.dialogs import Field, FormDialog
from nomnom_tui.widgets.message_pane import MessagePane
from nomnom_tui.widgets.paged_table import PAGE, PagedTable, page_keys
from nomnom_tui.widgets.panel import Panel
from nomnom_tui.widgets.table import Column, LiveTable

if TYPE_CHECKING:
    from nomnom.inspection.jetstream import MessagePage, StoredMessage

_FIRST_LINE = 300


@dataclass(frozen=True, slots=True)
class PageRequest:
    """The requested page: after a sequence, before a sequence, or the first one if neither is set."""

    after: int | None = None
    before: int | None = None
    newest_first: bool = True
    subject: str = ">"


@dataclass(frozen=True, slots=True)
class Shown:
    """A page and its request."""

    request: PageRequest
    page: MessagePage


class StreamMessagesView(View):
    """Lists messages, newest or oldest first, from any sequence, of all or some subjects."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("o", "order", "Order", id="stream_messages.order"),
        Binding("s", "seek", "Sequence", id="stream_messages.seek"),
        Binding("slash", "filter", "Subject", id="stream_messages.filter"),
        Binding("f", "edge", "Follow", show=False, id="stream_messages.follow"),
        Binding("v", "next_format", "Payload format", show=False, id="stream_messages.format"),
    ]
    DEFAULT_CSS = """
    StreamMessagesView #page { width: 3fr; }
    StreamMessagesView #preview { width: 2fr; }
    StreamMessagesView.-narrow #preview { display: none; }
    """

    def __init__(self, stream: str) -> None:
        super().__init__()
        self.stream = stream
        self._request = PageRequest()
        self._turned: int | None = 1
        self._target: int | None = None
        self._previous_requests: list[PageRequest] = []
        self._shown: Shown | None = None
        self._table: PagedTable[StoredMessage] = PagedTable(
            message_columns(), key=lambda each: each.sequence, id="table", empty="no messages", enter_label="Open"
        )
        self._pane = MessagePane(id="pane")

    @property
    def crumb(self) -> str:
        """The stream."""
        return f"{self.stream} messages"

    def content(self) -> ComposeResult:
        """A page and, if wide enough, the message under the cursor."""
        with Horizontal():
            yield Panel("Messages", self._table, id="page", loading_text="loading messages")
            yield Panel("Message", self._pane, id="preview")

    def begin(self) -> None:
        """Reload the page regularly: messages of a work queue are removed and new ones arrive."""
        self._table.focus()
        self.subscribe("messages", 2.0, self._load, self._show, self.query_one("#page", Panel))

    def environment_changed(self) -> None:
        """Start at the newest message of the new environment."""
        self._table.show([])
        self._go(PageRequest())

    # Pages

    async def _load(self) -> Shown:
        request = self._request
        pipeline = await self.session.pipeline()
        self._pane.grammar = pipeline.grammar
        page = await pipeline.jetstream.messages(
            self.stream,
            after=request.after,
            before=request.before,
            limit=PAGE,
            newest_first=request.newest_first,
            subject=request.subject,
        )
        at_edge = request.after if request.newest_first else request.before
        if at_edge is not None and len(page.messages) < PAGE:
            # Less than a page left in this direction: show the first page, which is full and receives new ones.
            request = PageRequest(newest_first=request.newest_first, subject=request.subject)
            page = await pipeline.jetstream.messages(
                self.stream, limit=PAGE, newest_first=request.newest_first, subject=request.subject
            )
        return Shown(request, page)

    def _show(self, shown: Shown) -> None:
        self._shown, self._request = shown, shown.request
        messages = shown.page.messages
        if self._turned is None:
            self._table.show(messages)
        else:
            self._table.turn(messages, self._turned)
            self._turned = None
        if self._target is not None:
            if not self._table.move_to(self._target):
                self.nomnom.notify(f"{self.stream} has no message {self._target:,}", severity="warning")
            self._target = None
        self._retitle(shown)
        self._preview()

    def _retitle(self, shown: Shown) -> None:
        request, state, messages = shown.request, shown.page.state, shown.page.messages
        beside: list[tuple[str, Style]] = [(f" {figures.count(state.messages)}", Style.PLAIN)]
        if messages:
            first, last = messages[0].sequence, messages[-1].sequence
            beside.append((f"  {first:,} … {last:,}", Style.MUTED))
        beside.append(("  newest first" if request.newest_first else "  oldest first", Style.MUTED))
        if request.subject != ">":
            beside.append((f"  subject {request.subject}", Style.ACCENT))
        elif request.after is None and request.before is None and request.newest_first:
            beside.append(("  following", Style.GOOD))
        has_previous, has_next = self._neighbours(shown)
        self._table.set_neighbours(previous=has_previous, next=has_next)
        keys = page_keys(previous=has_previous, next=has_next)
        beside.append((f"  {keys} ", Style.MUTED))
        self.query_one("#page", Panel).retitle(self.stream, *beside)

    def _neighbours(self, shown: Shown) -> tuple[bool, bool]:
        """Return whether there is a previous and a next page in the current order."""
        request, page = shown.request, shown.page
        if not page.messages:
            return False, False
        if request.subject != ">":
            return bool(self._previous_requests), page.more
        against, along = (request.after, request.before) if request.newest_first else (request.before, request.after)
        if against is not None:
            return page.more, True
        return along is not None, page.more

    def _go(self, request: PageRequest, turned: int = 1) -> None:
        self._request, self._turned = request, turned
        self._feeds["messages"].refresh()

    @on(PagedTable.Turned)
    def _turn(self, event: PagedTable.Turned) -> None:
        shown = self._shown
        if shown is None or not shown.page.messages or self._turned is not None:
            return
        request, messages = shown.request, shown.page.messages
        if event.by > 0:
            if request.subject != ">":
                self._previous_requests.append(request)
            self._go(_next_page(request, messages[-1].sequence))
        elif request.subject != ">":
            # A subject can only be filtered in ascending order: the previous page is the one visited before.
            self._go(self._previous_requests.pop(), -1)
        else:
            self._go(_previous_page(request, messages[0].sequence), -1)

    def action_order(self) -> None:
        """Switch between newest first and oldest first."""
        if self._request.subject != ">":
            self.nomnom.notify("a subject filter always shows the oldest first", severity="warning")
            return
        self._go(PageRequest(newest_first=not self._request.newest_first))

    def action_edge(self) -> None:
        """Go to the newest messages and follow."""
        self._previous_requests.clear()
        self._go(PageRequest())

    def action_seek(self) -> None:
        """Ask for a sequence and go to it."""
        state = None if self._shown is None else self._shown.page.state
        stored = "" if state is None else f"from {state.first_seq:,} to {state.last_seq:,}"
        form = FormDialog(
            f"Go to a message of {self.stream}",
            [Field("sequence", "Sequence", "", stored, _sequence_problem)],
            lambda values: (),
            "Go",
        )
        self.nomnom.push_screen(form, lambda values: self.seek(_number(values["sequence"])) if values else None)

    def seek(self, sequence: int) -> None:
        """Show the page that starts with this sequence."""
        self._target = sequence
        if self._request.newest_first:
            self._go(PageRequest(before=sequence + 1))
        else:
            self._go(PageRequest(after=sequence - 1, newest_first=False))

    def action_filter(self) -> None:
        """Ask for the subjects to show."""
        form = FormDialog(
            f"Subjects of {self.stream}",
            [
                Field(
                    "subject",
                    "Subject",
                    "" if self._request.subject == ">" else self._request.subject,
                    "* matches one token, > all that follow; empty: all",
                    _subject_problem,
                )
            ],
            lambda values: (("filtered messages are shown oldest first", Style.MUTED),) if values["subject"] else (),
            "Filter",
        )
        self.nomnom.push_screen(form, lambda values: None if values is None else self.filter(values["subject"]))

    def filter(self, subject: str) -> None:
        """Show only messages of these subjects, oldest first; all if empty."""
        self._previous_requests.clear()
        self._go(PageRequest(newest_first=False, subject=subject) if subject and subject != ">" else PageRequest())

    def commands(self) -> Iterable[Command]:
        """Commands to go to a sequence and to filter."""
        return (
            Command("sequence", "go to a message", self._seek_typed, "N"),
            Command("subject", "filter by subject", self.filter, "SUBJECT", lambda _: self._subjects()),
        )

    def _seek_typed(self, text: str) -> None:
        if (problem := _sequence_problem(text)) is None:
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
        beside = () if message is None else (f"as {self._pane.format.value}",)
        self.query_one("#preview", Panel).retitle("Message" if message is None else f"{message.sequence:,}", *beside)

    def action_next_format(self) -> None:
        """Show the payload in the next format."""
        self._pane.next_format()
        self._preview()

    @on(LiveTable.Chosen, "#table")
    def _open(self, event: LiveTable.Chosen) -> None:
        self.nomnom.push_screen(StoredMessageView(event.row))


def message_columns() -> list[Column[StoredMessage]]:
    """Return the columns of a table of stored messages."""
    return [
        Column("Sequence", lambda each: figures.count(each.sequence), 10, right=True),
        Column("Age", lambda each: figures.age(each.stored_at), 7, right=True),
        Column("Stored", lambda each: figures.moment(each.stored_at), 19, rank=2),
        Column("Entity", lambda each: names(each)[0], 10),
        Column("Message ID", lambda each: (names(each)[1], Style.MUTED), 36, rank=1),
        Column("Size", lambda each: figures.size(each.size), 8, right=True),
        Column("Payload", first_line, 28, share=1),
    ]


def names(message: StoredMessage) -> tuple[str, str]:
    """Return the entity and the ID in the subject; for any other subject, the whole subject."""
    for prefix in (INGEST, DEAD):
        if message.subject.startswith(f"{prefix}."):
            entity, _, identity = message.subject.removeprefix(f"{prefix}.").partition(".")
            return entity, identity.partition(".")[0]
    return message.subject, ""


def first_line(message: StoredMessage) -> Line:
    """Return the first line of the payload and the number of further lines, or of a segment's further messages."""
    head, _, rest = message.readable.partition(b"\n")
    text = head[:_FIRST_LINE].decode("utf-8", errors="replace")
    if message.messages > 1:
        return [(text, Style.PLAIN), (f"  +{figures.counted(message.messages - 1, 'message')}", Style.MUTED)]
    more = rest.count(b"\n") + 1 if rest.strip() else 0
    return [(text, Style.PLAIN), (f"  +{figures.counted(more, 'line')}" if more else "", Style.MUTED)]


def _next_page(request: PageRequest, sequence: int) -> PageRequest:
    """Return the request of the next page in the current order."""
    if request.newest_first:
        return PageRequest(before=sequence)
    return PageRequest(after=sequence, newest_first=False, subject=request.subject)


def _previous_page(request: PageRequest, sequence: int) -> PageRequest:
    """Return the request of the previous page in the current order."""
    if request.newest_first:
        return PageRequest(after=sequence)
    return PageRequest(before=sequence, newest_first=False, subject=request.subject)


def _number(text: str) -> int:
    return int(text.replace(",", ""))


def _sequence_problem(text: str) -> str | None:
    plain = text.replace(",", "")
    return None if plain.isascii() and plain.isdigit() and int(plain) > 0 else "expected a whole number above 0"


def _subject_problem(text: str) -> str | None:
    if any(each.isspace() for each in text) or ".." in text or text.startswith(".") or text.endswith("."):
        return "expected tokens separated by single dots, without spaces"
    return None
