"""One message of a stream: subject, headers, and payload as a record, as text, or as hex."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType

from nomnom.errors import NomnomError
from nomnom.presentation import figures
from nomnom_tui.app.view import View
from nomnom_tui.text.styles import Style
from nomnom_tui.widgets.bars import TopBar
from nomnom_tui.widgets.message_pane import MessagePane, PayloadFormat
from nomnom_tui.widgets.panel import Panel

if TYPE_CHECKING:
    from nomnom.inspection.jetstream import StoredMessage


class StoredMessageView(View):
    """Reads the message by sequence without consuming it, and shows when it no longer exists."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("v", "next_format", "Record/text/hex", id="stored_message.look"),
        Binding("n", "neighbour(1)", "Newer", id="stored_message.newer"),
        Binding("p", "neighbour(-1)", "Older", id="stored_message.older"),
        Binding("y", "copy", "Copy payload", id="stored_message.copy"),
        Binding("f", "set_format('record')", "As record", show=False, id="stored_message.record"),
        Binding("t", "set_format('text')", "As text", show=False, id="stored_message.text"),
        Binding("x", "set_format('hex')", "As hex", show=False, id="stored_message.hex"),
    ]

    def __init__(self, message: StoredMessage) -> None:
        super().__init__()
        self._message = message
        self._gone = False
        self._pane = MessagePane(id="pane")

    @property
    def crumb(self) -> str:
        """The stream and the sequence."""
        return f"{self._message.stream} {self._message.sequence:,}"

    def content(self) -> ComposeResult:
        """The message."""
        yield Panel("Message", self._pane, id="message", loading_text="loading the schema")

    def begin(self) -> None:
        """Show the message at once, and check regularly whether it still exists."""
        self._pane.focus()
        self._show_message()
        self.subscribe("message", 2.0, self._load, self._show, self.query_one("#message", Panel))

    async def _load(self) -> StoredMessage | None:
        pipeline = await self.session.pipeline()
        self._pane.grammar = pipeline.grammar
        return await pipeline.jetstream.peek(self._message.stream, self._message.sequence)

    def _show(self, message: StoredMessage | None) -> None:
        self._gone = message is None
        self._message = message or self._message
        self._show_message()

    def _show_message(self) -> None:
        self._pane.show_message(self._message)
        formats = [
            (f" {each.value} ", Style.MATCH if each is self._pane.format else Style.MUTED)
            for each in (PayloadFormat.RECORD, PayloadFormat.TEXT, PayloadFormat.HEX)
        ]
        gone = [("  ○ no longer in the stream", Style.WARNING)] if self._gone else []
        self.query_one("#message", Panel).retitle(
            f"{self._message.stream} {self._message.sequence:,}", ("payload as ", Style.MUTED), *formats, *gone
        )

    def action_next_format(self) -> None:
        """Show the payload in the next format."""
        self._pane.next_format()
        self._show_message()

    def action_set_format(self, name: str) -> None:
        """Show the payload as record, text or hex."""
        self._pane.format = PayloadFormat(name)
        self._show_message()

    def action_copy(self) -> None:
        """Copy the payload to the clipboard via the terminal (OSC 52)."""
        self.nomnom.copy_to_clipboard(self._message.payload.decode("utf-8", errors="replace"))
        self.nomnom.notify(f"copied {figures.size(self._message.size)}, if the terminal supports OSC 52")

    async def action_neighbour(self, by: int) -> None:
        """Go to the next newer (1) or older (-1) message of the stream."""
        self.run_worker(self._step(by), name="neighbour", group="neighbour", exclusive=True)

    async def _step(self, by: int) -> None:
        current = self._message
        try:
            jetstream = (await self.session.pipeline()).jetstream
            after, before = (current.sequence, None) if by > 0 else (None, current.sequence)
            page = await jetstream.messages(current.stream, after=after, before=before, limit=1)
        except NomnomError as error:
            self.nomnom.show_problem("Message", error)
            return
        if not page.messages:
            self.nomnom.notify(f"{current.stream} has no {'newer' if by > 0 else 'older'} message")
            return
        self._message, self._gone = page.messages[0], False
        self._pane.action_edge(0)
        self._show_message()
        for bar in self.query(TopBar):
            bar.refresh()
