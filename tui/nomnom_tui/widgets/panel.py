"""A titled part of a view that always says how its data are: awaited, fresh, or in trouble and when it tries again."""

from __future__ import annotations

from datetime import UTC, datetime

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.timer import Timer
from textual.widget import Widget
from textual.widgets import Static

from nomnom.presentation import figures
from nomnom_tui.app.refresh import LoadError
from nomnom_tui.text.styles import Line, Piece, Style, content, pieces


class Notice(Static):
    """A line or two in the place of, or above, what cannot be shown."""

    DEFAULT_CSS = """
    Notice { height: auto; padding: 0 1; color: $muted; display: none; }
    """


class Panel(Vertical):
    """A titled part of a view. Its title and the figure beside it can change."""

    DEFAULT_CSS = """
    Panel {
        height: 1fr;
        border-top: solid $border;
        border-title-background: $background;
        border-title-color: $foreground;
        padding: 0;
    }
    Panel:focus-within { border-top: solid $accent; border-title-color: $accent; }
    """

    def __init__(self, title: str, *children: Widget, id: str | None = None, awaits: str = "") -> None:
        super().__init__(*children, id=id)
        self._heading: tuple[str, list[tuple[str, str]]] | None = None
        self.retitle(title)
        self._awaits = awaits
        self._notice = Notice()
        self._loaded_at: datetime | None = None
        self._problem: LoadError | None = None
        self._ticking: Timer | None = None

    def compose(self) -> ComposeResult:
        yield self._notice

    def on_mount(self) -> None:
        # First in order, so that it stands above the content.
        if self.children and self.children[0] is not self._notice:
            self.move_child(self._notice, before=0)
        if self._awaits and self._loaded_at is None and self._problem is None:
            self.say((f"{self._awaits} …", Style.MUTED))

    def retitle(self, title: str, *beside: Piece) -> None:
        """Change the title, and what stands beside it. The title itself has no colour: it takes on the border's."""
        told = [
            (text, str(style))
            for text, style in pieces(
                [(f" {each} ", Style.MUTED) if isinstance(each, str) else each for each in beside]
            )
        ]
        if (title, told) == self._heading:
            return  # a new title draws the whole panel anew, whether it says anything new or not
        self._heading = (title, told)
        self.border_title = Content.assemble((f" {title} ", "bold"), *told)

    def say(self, *lines: Line) -> None:
        """Show these lines above (or in place of) the content; without lines, nothing."""
        self._notice.display = bool(lines)
        if lines:
            self._notice.update(content(*lines))

    def report(self, problem: LoadError | None) -> None:
        """How the feed is: None once it delivered."""
        self._problem = problem
        if problem is None:
            self._loaded_at = datetime.now(UTC)
            if self._ticking is not None:
                self._ticking.stop()
                self._ticking = None
            self.say()
            return
        self._tell()
        if self._ticking is None:
            self._ticking = self.set_interval(1.0, self._tell)

    def _tell(self) -> None:
        if (problem := self._problem) is None:
            return
        wait = problem.retry_in
        again = f"retry in {wait:.0f} s" if wait >= 0.5 else "trying again"
        stale = f"  ·  shown as of {figures.clock(self._loaded_at)}" if self._loaded_at else ""
        self.say((("▲ ", Style.WARNING), (problem.text, Style.PLAIN), (f"  ·  {again}{stale}", Style.MUTED)))
