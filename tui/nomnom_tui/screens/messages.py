"""Messages: the recently processed ones; post one, send a file, follow one."""

from __future__ import annotations

import shlex
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType

from nomnom.envelope import Status, parse_message_id
from nomnom.presentation import figures
from nomnom.presentation.marks import STATUSES, SUPERSEDED
from nomnom.presentation.terms import Term
from nomnom_control.environments import Progress, Step
from nomnom_tui.app.changes import Change
from nomnom_tui.app.commands import Command
from nomnom_tui.app.view import View
from nomnom_tui.screens.message import MessageView
from nomnom_tui.screens.post import PostView
from nomnom_tui.text.error_line import error_line
from nomnom_tui.text.styles import Line, Style, status_line
from nomnom_tui.widgets.dialogs import Field, FormDialog
from nomnom_tui.widgets.paged_table import PAGE, PagedTable
from nomnom_tui.widgets.panel import Panel
from nomnom_tui.widgets.table import Column, LiveTable

if TYPE_CHECKING:
    from nomnom.inspection.statuses import MessageStatus
    from nomnom_tui.app.session import Session

_STATUSES = (None, Status.COMPLETED, *(each for each in Status if each not in (Status.ACCEPTED, Status.COMPLETED)))


class MessagesView(View):
    """The recently received messages that were processed; posts, sends and follows messages."""

    CRUMB = "Messages"
    CHANGES = frozenset({"post", "ingest"})
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("n", "post", "Post", id="messages.post"),
        Binding("i", "ingest", "Send file", id="messages.ingest"),
        Binding("l", "look_up", "Find by ID", id="messages.look_up"),
        Binding("s", "status", "Status", id="messages.status"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._status: Status | None = None
        self._page_starts: list[MessageStatus | None] = [None]
        """For each page up to the current one, the message after which it starts."""
        self._turned: int | None = 1
        self._table: PagedTable[MessageStatus] = PagedTable(
            [
                Column("Status", lambda each: status_line(each.status), 13),
                Column("Message ID", lambda each: each.message_id, 36),
                Column("Entity", lambda each: each.entity, 8),
                Column("Received", lambda each: figures.moment(each.received_at), 19, rank=4),
                Column("Age", lambda each: figures.age(each.received_at), 7, right=True),
                Column(Term.LATENCY.capitalize(), _latency, 7, right=True, rank=1),
                Column("Retries", lambda each: str(each.retry_count or ""), 7, right=True, rank=3),
                Column("", _note, 20, share=1, rank=2),
            ],
            key=lambda each: each.message_id,
            id="table",
            empty="no messages; press n to post one",
            enter_label="Follow",
        )

    def content(self) -> ComposeResult:
        """The table of messages."""
        yield Panel("Messages", self._table, id="messages", loading_text="loading messages")

    def begin(self) -> None:
        """Load the page every two seconds."""
        self._table.focus()
        self.subscribe("messages", 2.0, self._load, self._show, self.query_one("#messages", Panel))

    def environment_changed(self) -> None:
        """Start at the newest message of the new environment."""
        self._table.show([])
        self._first_page()

    async def _load(self) -> list[MessageStatus]:
        pipeline = await self.session.pipeline()
        return await pipeline.statuses.recent(self._status, after=self._page_starts[-1], limit=PAGE)

    def _show(self, messages: list[MessageStatus]) -> None:
        if self._turned is None:
            self._table.show(messages)
        else:
            self._table.turn(messages, self._turned)
            self._turned = None
        self._table.set_neighbours(previous=len(self._page_starts) > 1, next=len(messages) == PAGE)
        label = "" if self._status is None else STATUSES[self._status].label
        status = [("  only ", Style.MUTED), (label, Style.ACCENT)] if label else []
        pending = ("  press 3 for pending messages ", Style.MUTED)
        self.query_one("#messages", Panel).retitle("Recently processed messages", *status, pending)

    @on(PagedTable.Turned)
    def _turn(self, event: PagedTable.Turned) -> None:
        if self._turned is not None or not self._table.rows:
            return
        if event.by > 0:
            self._page_starts.append(self._table.rows[-1])
        else:
            self._page_starts.pop()
        self._go(event.by)

    def _first_page(self) -> None:
        self._page_starts = [None]
        self._go(1)

    def _go(self, turned: int) -> None:
        self._turned = turned
        if "messages" in self._feeds:
            self._feeds["messages"].refresh()

    def action_status(self) -> None:
        """Switch to the next status, or from the last one to all."""
        self._status = _STATUSES[(_STATUSES.index(self._status) + 1) % len(_STATUSES)]
        self._first_page()

    def show_status(self, text: str) -> None:
        """Show only messages with this status; all if empty."""
        known = {each.value: each for each in _STATUSES if each is not None}
        if text and text not in known:
            self.nomnom.notify(
                f"unknown status {text!r}; expected one of {', '.join(known)}", severity="warning", markup=False
            )
            return
        self._status = known.get(text)
        self._first_page()

    def commands(self) -> Iterable[Command]:
        """Commands to follow and filter."""
        return (
            Command("message", "follow a message", self._follow, "ID"),
            Command(
                "status",
                "show messages with one status",
                self.show_status,
                "STATUS",
                lambda _: [each.value for each in _STATUSES if each is not None],
            ),
        )

    @on(LiveTable.Chosen, "#table")
    def _open(self, event: LiveTable.Chosen) -> None:
        self._follow(event.row.message_id)

    def action_look_up(self) -> None:
        """Ask for an ID and follow the message."""
        form = FormDialog(
            "Follow a message",
            [Field("id", "Message ID", "", "a UUID, as returned by the API", _id_problem)],
            lambda _: (),
            "Follow",
        )
        self.nomnom.push_screen(form, lambda values: None if values is None else self._follow(values["id"]))

    def _follow(self, message_id: str) -> None:
        if (problem := _id_problem(message_id)) is not None:
            self.nomnom.notify(problem, severity="warning")
            return
        self.nomnom.push_screen(MessageView(message_id))

    def action_post(self) -> None:
        """Open the form to write and post a message."""
        self.nomnom.push_screen(PostView())

    def action_ingest(self) -> None:
        """Ask for a file and send it."""
        form = FormDialog(
            "Send a file, one message per line",
            [
                Field("path", "File", "", "may be .gz; an interrupted transfer resumes", _path_problem),
                Field("entity", "Entity", "", "prepends its tag to each line; needed for .tbl files"),
            ],
            lambda values: [
                [("$ ", Style.MUTED), (self._ingest_command(values["path"], values["entity"]), Style.ACCENT)]
            ],
            "Send",
        )

        def go(values: dict[str, str] | None) -> None:
            if values is not None:
                path, entity = Path(values["path"]).expanduser(), values["entity"]
                command = self._ingest_command(str(path), entity)
                session = self.session
                change = Change(f"Send {path.name}", command, begin=lambda: send_file(session, path, entity))
                self.nomnom.perform(change)

        self.nomnom.push_screen(form, go)

    def _ingest_command(self, path: str, entity: str) -> str:
        option = f" --entity {shlex.quote(entity)}" if entity else ""
        return self.session.command(f"ingest {shlex.quote(path)}{option}")


async def send_file(session: Session, path: Path, entity: str) -> AsyncIterator[Progress]:
    """Send the lines of a file to the API, like ``nomnom ingest``."""
    from nomnom_control.sending.files import Ingested, Sending

    environment = session.environment
    tag = (await environment.schema()).entity(entity).tag if entity else None
    endpoints = await environment.endpoints()
    sending = Sending(endpoints.api, endpoints.api_token, Path(environment.location) / "ingestion")
    step = f"send {path.name}"
    yield Progress(step, Step.STARTED)
    last: Ingested | None = None
    async for last in sending.send(path, tag):
        share = f"{last.offset / last.size:.0%}  " if last.size else ""
        rate = figures.rate(last.accepted / last.seconds) if last.seconds else ""
        yield Progress(step, Step.STARTED, last.problem or f"{share}{last.accepted:,} accepted  {rate}")
    if last is None:
        yield Progress(step, Step.SKIPPED, "the whole file has already been sent")
        return
    for each in last.refusals[:20]:
        yield Progress(step, Step.OUTPUT, f"line {each.line:,}: {each.detail}")
    summary = f"{last.accepted:,} accepted" + (f", {last.duplicates:,} duplicates" if last.duplicates else "")
    if last.refused:
        yield Progress(step, Step.FAILED, f"{summary}, {last.refused:,} rejected", last.seconds)
    else:
        yield Progress(step, Step.DONE, summary, last.seconds)


def _latency(message: MessageStatus) -> str:
    if message.processed_at is None:
        return ""
    return figures.duration((message.processed_at - message.received_at).total_seconds())


def _note(message: MessageStatus) -> Line:
    if message.error:
        return error_line(message.error)
    return (SUPERSEDED.label + ": " + SUPERSEDED.meaning if message.superseded else "", Style.MUTED)


def _id_problem(text: str) -> str | None:
    return None if parse_message_id(text.strip()) is not None else "expected a UUID"


def _path_problem(text: str) -> str | None:
    path = Path(text).expanduser()
    return None if text and path.is_file() else "no such file"
