"""The form to write and post a message, with examples and validation while typing."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.timer import Timer
from textual.widgets import TextArea

from nomnom.presentation import figures
from nomnom_tui.app.changes import Change
from nomnom_tui.app.view import View
from nomnom_tui.screens.message import MessageView
from nomnom_tui.text.styles import Style
from nomnom_tui.widgets.message_pane import record_lines
from nomnom_tui.widgets.panel import Panel
from nomnom_tui.widgets.properties import TextTable

if TYPE_CHECKING:
    from nomnom_control.session.pipeline import Pipeline

_DEBOUNCE = 0.15
"""Seconds without a key press before the text is validated, so that typing stays responsive."""


class PostView(View):
    """The text, the parsed record, and an example of each entity."""

    CRUMB = "Post"
    CHANGES = frozenset({"post"})
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+s", "post", "Post", priority=True, id="post.post"),
        Binding("ctrl+n", "example(1)", "Next example", priority=True, id="post.next"),
        Binding("ctrl+p", "example(-1)", "Previous example", show=False, priority=True, id="post.previous"),
        Binding("escape", "app.back", "Back", show=False, priority=True, id="post.leave"),
    ]
    DEFAULT_CSS = """
    PostView TextArea, PostView TextArea:focus { height: 1fr; border: none; padding: 0 1; background: $background; }
    PostView #text-panel { width: 1fr; height: 1fr; }
    PostView #checked { width: 1fr; height: 2fr; }
    PostView.-narrow Horizontal { layout: vertical; }
    """

    def __init__(self) -> None:
        super().__init__()
        self._pipeline: Pipeline | None = None
        self._example = -1
        self._valid = False
        self._soon: Timer | None = None
        self._text = TextArea("", id="text", soft_wrap=True, show_line_numbers=True, tab_behavior="focus")
        self._text.cursor_blink = False
        self._checked = TextTable(id="fields", empty="type TAG|field|… and its child records, one per line")

    def content(self) -> ComposeResult:
        """The text and the parsed record."""
        with Horizontal():
            yield Panel("Message", self._text, id="text-panel", loading_text="loading the schema")
            yield Panel("As a record", self._checked, id="checked")

    def begin(self) -> None:
        """Load the schema once and insert its first example."""
        self._text.focus()
        self.subscribe("schema", 3600.0, self.session.pipeline, self._begin, self.query_one("#text-panel", Panel))

    def _begin(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        if not self._text.text:
            self.action_example(1)

    def action_example(self, by: int) -> None:
        """Insert the next or previous entity's example."""
        from nomnom_control.sending.examples import example_message

        if self._pipeline is None:
            return
        schema = self._pipeline.schema
        self._example = (self._example + by) % len(schema.entities)
        entity = schema.entities[self._example]
        self._text.load_text(example_message(schema, entity, self._pipeline.grammar))
        self.query_one("#text-panel", Panel).retitle("Message", f"example of {entity.name}")
        self._check()

    @on(TextArea.Changed)
    def _changed(self) -> None:
        if self._soon is not None:
            self._soon.stop()
        self._soon = self.set_timer(_DEBOUNCE, self._check, name="check")

    def _check(self) -> None:
        if self._pipeline is None:
            return
        payload = self._text.text.encode()
        found = self._pipeline.dead_letters.validate(payload)
        self._valid = found.valid
        room = self._checked.room
        self._checked.show_lines(record_lines(payload, self._pipeline.grammar, room) if payload.strip() else [])

        state = (
            ("  ✓ matches the schema ", Style.GOOD)
            if found.valid
            else (f"  ✕ {figures.counted(len(found.problems), 'problem')} ", Style.BAD)
        )
        self.query_one("#checked", Panel).retitle("As a record", state)

    def action_post(self) -> None:
        """Post the message and follow it; asks first if it does not match the schema."""
        text = self._text.text
        if not text.strip():
            return
        self._check()
        posted: list[str] = []

        async def act() -> None:
            pipeline = await self.session.pipeline()
            posted.append((await pipeline.messages.post(text)).message_id)

        first = text.split("\n", 1)[0]
        quoted = "'" + text.replace("'", "'\\''").replace("\n", "\\n") + "'"
        change = Change(
            f"Post {first[:40]}{'…' if len(first) > 40 or first != text else ''}",
            self.session.command(f"post {quoted}"),
            act=act,
            plan=() if self._valid else ("the message does not match the schema: it will become a dead letter",),
            success="Accepted",
        )
        self.nomnom.perform(change, lambda done: self._follow(posted) if done else None)

    def _follow(self, posted: list[str]) -> None:
        if posted:
            self.nomnom.push_screen(MessageView(posted[0]))
