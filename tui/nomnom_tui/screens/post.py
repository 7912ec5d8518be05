"""Writing a message and posting it: examples to begin with, and what the schema says while it is typed."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.timer import Timer
from textual.widgets import TextArea

from nomnom_tui.app.changes import Change
from nomnom_tui.app.view import View
from nomnom_tui.screens.message import MessageView
from nomnom_tui.text.styles import Style
from nomnom_tui.widgets.message_pane import record_lines
from nomnom_tui.widgets.panel import Panel
from nomnom_tui.widgets.properties import TextTable

if TYPE_CHECKING:
    from nomnom_control.session.pipeline import Pipeline

_PAUSE = 0.15
"""Seconds without a key before the text is checked: keys come first."""


class PostView(View):
    """A text, how it would be read, and an example of each entity one key away."""

    CRUMB = "Post"
    CHANGES = frozenset({"post"})
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+s", "post", "Post it", priority=True, id="post.post"),
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
        self._checked = TextTable(id="fields", empty="type a message: TAG|field|…, its children below it, a line each")

    def content(self) -> ComposeResult:
        """The text, and how it is read."""
        with Horizontal():
            yield Panel("Message", self._text, id="text-panel", awaits="reading the schema")
            yield Panel("As a record", self._checked, id="checked")

    def begin(self) -> None:
        """Read the schema, once, and begin with its first example."""
        self._text.focus()
        self.subscribe("schema", 3600.0, self.session.pipeline, self._begin, self.query_one("#text-panel", Panel))

    def _begin(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        if not self._text.text:
            self.action_example(1)

    def action_example(self, by: int) -> None:
        """The next or previous entity's example."""
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
        self._soon = self.set_timer(_PAUSE, self._check, name="check")

    def _check(self) -> None:
        if self._pipeline is None:
            return
        payload = self._text.text.encode()
        found = self._pipeline.dead_letters.validate(payload)
        self._valid = found.valid
        room = self._checked.room
        self._checked.show_lines(record_lines(payload, self._pipeline.grammar, room) if payload.strip() else [])
        wrong = len(found.problems)
        state = (
            ("  ✓ follows the schema ", Style.GOOD)
            if found.valid
            else (f"  ✕ {wrong} problem{'s' if wrong > 1 else ''} ", Style.BAD)
        )
        self.query_one("#checked", Panel).retitle("As a record", state)

    def action_post(self) -> None:
        """Post it and follow it; one that does not follow the schema becomes a dead letter, which is asked first."""
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
            plan=() if self._valid else ("it does not follow the schema: it will become a dead letter",),
            told="Accepted",
        )
        self.nomnom.perform(change, lambda done: self._follow(posted) if done else None)

    def _follow(self, posted: list[str]) -> None:
        if posted:
            self.nomnom.push_screen(MessageView(posted[0]))
