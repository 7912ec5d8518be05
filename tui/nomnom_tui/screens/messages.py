"""Messages: post one, send a file, follow one to its end, and those that were answered last."""

from __future__ import annotations

import shlex
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType

from nomnom.envelope import Status, parse_message_id
from nomnom_control.environments import Progress, Step
from nomnom_tui.app.changes import Change
from nomnom_tui.app.commands import Command
from nomnom_tui.app.view import View
from nomnom_tui.screens.message import MessageView
from nomnom_tui.text import figures
from nomnom_tui.text.error_line import error_line
from nomnom_tui.text.styles import Line, Style
from nomnom_tui.widgets.dialogs import Field, FormDialog
from nomnom_tui.widgets.paged_table import PAGE, PagedTable
from nomnom_tui.widgets.panel import Panel
from nomnom_tui.widgets.table import Column, LiveTable

if TYPE_CHECKING:
    from nomnom.inspection.statuses import MessageStatus
    from nomnom_tui.app.session import Session

STATUS_MARKS: dict[Status, tuple[str, Style]] = {
    Status.ACCEPTED: ("○", Style.ACCENT),
    Status.PROCESSING: ("◐", Style.ACCENT),
    Status.COMPLETED: ("●", Style.GOOD),
    Status.FAILED: ("▲", Style.WARNING),
    Status.DLQ: ("✕", Style.BAD),
}
_STATUSES = (None, Status.COMPLETED, Status.PROCESSING, Status.FAILED, Status.DLQ)


class MessagesView(View):
    """The messages received last that a worker has answered; posting, sending and following from here."""

    CRUMB = "Messages"
    CHANGES = frozenset({"post", "ingest"})
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("n", "post", "Post one", id="messages.post"),
        Binding("i", "ingest", "Send a file", id="messages.ingest"),
        Binding("l", "look_up", "Look up an id", id="messages.look_up"),
        Binding("s", "status", "Status", id="messages.status"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._status: Status | None = None
        self._begun: list[MessageStatus | None] = [None]
        """Behind which message each page begins, up to the present one."""
        self._turned: int | None = 1
        self._table: PagedTable[MessageStatus] = PagedTable(
            [
                Column("Status", lambda each: status_line(each.status), 12),
                Column("Message id", lambda each: each.message_id, 36),
                Column("Entity", lambda each: each.entity, 8),
                Column("Received", lambda each: figures.moment(each.received_at), 19, rank=3),
                Column("Age", lambda each: figures.age(each.received_at), 7, right=True),
                Column("Took", _took, 7, right=True),
                Column("Failed", lambda each: str(each.retry_count or ""), 6, right=True, rank=2),
                Column("", _note, 20, share=1, rank=1),
            ],
            key=lambda each: each.message_id,
            id="table",
            empty="no messages: n posts one",
            opens="Follow",
        )

    def content(self) -> ComposeResult:
        """The messages."""
        yield Panel("Messages", self._table, id="messages", awaits="asking PostgreSQL")

    def begin(self) -> None:
        """New ones come."""
        self._table.focus()
        self.subscribe("messages", 2.0, self._load, self._show, self.query_one("#messages", Panel))

    def environment_changed(self) -> None:
        """The other environment's messages begin at the newest."""
        self._table.show([])
        self._first_page()

    async def _load(self) -> list[MessageStatus]:
        pipeline = await self.session.pipeline()
        return await pipeline.statuses.recent(self._status, after=self._begun[-1], limit=PAGE)

    def _show(self, messages: list[MessageStatus]) -> None:
        if self._turned is None:
            self._table.show(messages)
        else:
            self._table.turn(messages, self._turned)
            self._turned = None
        self._table.edges(behind=len(self._begun) > 1, ahead=len(messages) == PAGE)
        status = [] if self._status is None else [("  only ", Style.MUTED), (self._status.value, Style.ACCENT)]
        waiting = ("  what still waits is in the stream (3) ", Style.MUTED)
        self.query_one("#messages", Panel).retitle("Messages answered last", *status, waiting)

    @on(PagedTable.Turned)
    def _turn(self, event: PagedTable.Turned) -> None:
        if self._turned is not None or not self._table.rows:
            return
        if event.by > 0:
            self._begun.append(self._table.rows[-1])
        else:
            self._begun.pop()
        self._go(event.by)

    def _first_page(self) -> None:
        self._begun = [None]
        self._go(1)

    def _go(self, turned: int) -> None:
        self._turned = turned
        if "messages" in self._feeds:
            self._feeds["messages"].refresh()

    def action_status(self) -> None:
        """Of all statuses, or of one after the other."""
        self._status = _STATUSES[(_STATUSES.index(self._status) + 1) % len(_STATUSES)]
        self._first_page()

    def show_status(self, text: str) -> None:
        """Show messages of this status only; of all where empty."""
        known = {each.value: each for each in _STATUSES if each is not None}
        if text and text not in known:
            self.nomnom.notify(f"no status {text!r}; there are {', '.join(known)}", severity="warning", markup=False)
            return
        self._status = known.get(text)
        self._first_page()

    def commands(self) -> Iterable[Command]:
        """The same, typed."""
        return (
            Command("message", "follow a message", self._follow, "ID"),
            Command(
                "status",
                "show messages of one status",
                self.show_status,
                "STATUS",
                lambda _: [each.value for each in _STATUSES if each is not None],
            ),
        )

    @on(LiveTable.Chosen, "#table")
    def _open(self, event: LiveTable.Chosen) -> None:
        self._follow(event.row.message_id)

    def action_look_up(self) -> None:
        """Ask for an id and follow that message."""
        form = FormDialog(
            "Follow a message",
            [Field("id", "Message id", "", "as the api answered it", _id_problem)],
            lambda _: (),
            "Go",
        )
        self.nomnom.push_screen(form, lambda values: None if values is None else self._follow(values["id"]))

    def _follow(self, message_id: str) -> None:
        if (problem := _id_problem(message_id)) is not None:
            self.nomnom.notify(problem, severity="warning")
            return
        self.nomnom.push_screen(MessageView(message_id))

    def action_post(self) -> None:
        """Write a message and post it."""
        from nomnom_tui.screens.post import PostView

        self.nomnom.push_screen(PostView())

    def action_ingest(self) -> None:
        """Ask for a file and send it."""
        form = FormDialog(
            "Send a file of records, a message a line",
            [
                Field("path", "File", "", ".gz is unpacked; what was interrupted goes on", _path_problem),
                Field("entity", "Entity", "", "puts its tag before each line, as .tbl files need it"),
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
    """Send a file's lines to the api, as ``nomnom ingest`` does."""
    from nomnom_control.sending.files import Ingested, Sending

    here = session.environment
    tag = (await here.schema()).entity(entity).tag if entity else None
    ends = await here.endpoints()
    sending = Sending(ends.api, ends.api_token, Path(here.location) / "ingestion")
    step = f"send {path.name}"
    yield Progress(step, Step.STARTED)
    last: Ingested | None = None
    async for last in sending.send(path, tag):
        share = f"{last.offset / last.size:.0%}  " if last.size else ""
        rate = f"{last.accepted / last.seconds:,.0f}/s" if last.seconds else ""
        yield Progress(step, Step.STARTED, last.problem or f"{share}{last.accepted:,} accepted  {rate}")
    if last is None:
        yield Progress(step, Step.SKIPPED, "all of it has been sent already")
        return
    for each in last.refusals[:20]:
        yield Progress(step, Step.OUTPUT, f"line {each.line:,}: {each.detail}")
    said = f"{last.accepted:,} accepted" + (f", {last.duplicates:,} there before" if last.duplicates else "")
    if last.refused:
        yield Progress(step, Step.FAILED, f"{said}, {last.refused:,} refused", last.seconds)
    else:
        yield Progress(step, Step.DONE, said, last.seconds)


def status_line(status: Status) -> Line:
    """A status with its mark."""
    mark, style = STATUS_MARKS[status]
    return (f"{mark} {status.value}", style)


def _took(message: MessageStatus) -> str:
    if message.processed_at is None:
        return ""
    return figures.duration((message.processed_at - message.received_at).total_seconds())


def _note(message: MessageStatus) -> Line:
    if message.error:
        return error_line(message.error)
    return ("superseded: newer rows were there" if message.superseded else "", Style.MUTED)


def _id_problem(text: str) -> str | None:
    return None if parse_message_id(text.strip()) is not None else "expected a UUID"


def _path_problem(text: str) -> str | None:
    path = Path(text).expanduser()
    return None if text and path.is_file() else "no such file"
