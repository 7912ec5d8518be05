"""A titled part of a view that shows the state of its data: loading, current, or failed with the next attempt."""

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
    """One or two lines above, or instead of, the content."""

    DEFAULT_CSS = """
    Notice { height: auto; padding: 0 1; color: $muted; display: none; }
    """


class Panel(Vertical):
    """A titled part of a view. The title and the text next to it can change."""

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

    def __init__(self, title: str, *children: Widget, id: str | None = None, loading_text: str = "") -> None:
        super().__init__(*children, id=id)
        self._heading: tuple[str, list[tuple[str, str]]] | None = None
        self.retitle(title)
        self._loading_text = loading_text
        self._notice = Notice()
        self._loaded_at: datetime | None = None
        self._problem: LoadError | None = None
        self._ticking: Timer | None = None

    def compose(self) -> ComposeResult:
        yield self._notice

    def on_mount(self) -> None:
        # The notice comes first, above the content.
        if self.children and self.children[0] is not self._notice:
            self.move_child(self._notice, before=0)
        if self._loading_text and self._loaded_at is None and self._problem is None:
            self.show_notice((f"{self._loading_text} …", Style.MUTED))

    def retitle(self, title: str, *beside: Piece) -> None:
        """Change the title and the text next to it. The title has no style of its own: it takes the border's colour."""
        extra = [
            (text, str(style))
            for text, style in pieces(
                [(f" {each} ", Style.MUTED) if isinstance(each, str) else each for each in beside]
            )
        ]
        if (title, extra) == self._heading:
            return  # assigning the title redraws the whole panel even if it is the same
        self._heading = (title, extra)
        self.border_title = Content.assemble((f" {title} ", "bold"), *extra)

    def show_notice(self, *lines: Line) -> None:
        """Show these lines above or instead of the content; no lines hides the notice."""
        self._notice.display = bool(lines)
        if lines:
            self._notice.update(content(*lines))

    def report(self, problem: LoadError | None) -> None:
        """Show the feed's problem, or None once it delivered."""
        self._problem = problem
        if problem is None:
            self._loaded_at = datetime.now(UTC)
            if self._ticking is not None:
                self._ticking.stop()
                self._ticking = None
            self.show_notice()
            return
        self._update_notice()
        if self._ticking is None:
            self._ticking = self.set_interval(1.0, self._update_notice)

    def _update_notice(self) -> None:
        if (problem := self._problem) is None:
            return
        wait = problem.retry_in
        retry = f"retry in {wait:.0f} s" if wait >= 0.5 else "retrying"
        stale = f"  ·  showing data from {figures.clock(self._loaded_at)}" if self._loaded_at else ""
        self.show_notice((("▲ ", Style.WARNING), (problem.text, Style.PLAIN), (f"  ·  {retry}{stale}", Style.MUTED)))
