"""One message of a stream: subject, headers, and its payload as a record with field names, as text, or as hex."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType

from nomnom.errors import NomnomError
from nomnom_tui.app.view import View
from nomnom_tui.text import figures
from nomnom_tui.text.styles import Style
from nomnom_tui.widgets.bars import TopBar
from nomnom_tui.widgets.message_pane import Look, MessagePane
from nomnom_tui.widgets.panel import Panel

if TYPE_CHECKING:
    from nomnom.inspection.jetstream import StoredMessage


class StoredMessageView(View):
    """Looks at it by its sequence without consuming it, and says when it is gone."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("v", "look", "Record/text/hex", id="stored_message.look"),
        Binding("n", "neighbour(1)", "Newer", id="stored_message.newer"),
        Binding("p", "neighbour(-1)", "Older", id="stored_message.older"),
        Binding("y", "copy", "Copy payload", id="stored_message.copy"),
        Binding("f", "look_as('record')", "As record", show=False, id="stored_message.record"),
        Binding("t", "look_as('text')", "As text", show=False, id="stored_message.text"),
        Binding("x", "look_as('hex')", "As hex", show=False, id="stored_message.hex"),
    ]

    def __init__(self, message: StoredMessage) -> None:
        super().__init__()
        self._message = message
        self._gone = False
        self._pane = MessagePane(id="pane")

    @property
    def crumb(self) -> str:
        """Which message."""
        return f"{self._message.stream} {self._message.sequence:,}"

    def content(self) -> ComposeResult:
        """All of it, in one place that scrolls."""
        yield Panel("Message", self._pane, id="message", awaits="reading the schema")

    def begin(self) -> None:
        """Show it at once; ask now and then whether it is still there."""
        self._pane.focus()
        self._tell()
        self.subscribe("message", 2.0, self._load, self._show, self.query_one("#message", Panel))

    async def _load(self) -> StoredMessage | None:
        pipeline = await self.session.pipeline()
        self._pane.grammar = pipeline.grammar
        return await pipeline.jetstream.peek(self._message.stream, self._message.sequence)

    def _show(self, message: StoredMessage | None) -> None:
        self._gone = message is None
        self._message = message or self._message
        self._tell()

    def _tell(self) -> None:
        self._pane.show_message(self._message)
        looks = [
            (f" {each.value} ", Style.MATCH if each is self._pane.look else Style.MUTED)
            for each in (Look.RECORD, Look.TEXT, Look.HEX)
        ]
        gone = [("  ○ no longer in the stream", Style.WARNING)] if self._gone else []
        self.query_one("#message", Panel).retitle(
            f"{self._message.stream} {self._message.sequence:,}", ("payload as ", Style.MUTED), *looks, *gone
        )

    def action_look(self) -> None:
        """The payload in the next of its three looks."""
        self._pane.next_look()
        self._tell()

    def action_look_as(self, look: str) -> None:
        """The payload as record, text or hex."""
        self._pane.look = Look(look)
        self._tell()

    def action_copy(self) -> None:
        """Put the payload on the clipboard, by way of the terminal."""
        self.nomnom.copy_to_clipboard(self._message.payload.decode("utf-8", errors="replace"))
        self.nomnom.notify(f"{figures.size(self._message.size)} copied, as far as this terminal takes it")

    async def action_neighbour(self, by: int) -> None:
        """The message above or below it in the stream."""
        self.run_worker(self._step(by), name="neighbour", group="neighbour", exclusive=True)

    async def _step(self, by: int) -> None:
        here = self._message
        try:
            jetstream = (await self.session.pipeline()).jetstream
            after, before = (here.sequence, None) if by > 0 else (None, here.sequence)
            page = await jetstream.messages(here.stream, after=after, before=before, limit=1)
        except NomnomError as error:
            self.nomnom.tell_problem("Message", error)
            return
        if not page.messages:
            self.nomnom.notify(f"{here.stream} has no {'newer' if by > 0 else 'older'} message")
            return
        self._message, self._gone = page.messages[0], False
        self._pane.action_edge(0)
        self._tell()
        for bar in self.query(TopBar):
            bar.refresh()
