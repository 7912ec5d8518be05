"""The base of every screen of the app."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import Screen
from textual.worker import Worker

from nomnom_control.environments import Environment
from nomnom_tui.app.commands import Command
from nomnom_tui.app.refresh import TIMEOUT, Feed, LoadError
from nomnom_tui.app.session import Session
from nomnom_tui.widgets.bars import KeyBar, Navigation, TopBar
from nomnom_tui.widgets.panel import Panel

if TYPE_CHECKING:
    from nomnom_tui.app.application import NomnomApp

T = TypeVar("T")

WIDE = 140
"""Width in columns from which a view has the class ``-wide``; below it has ``-narrow``."""
HIGH = 40
"""Height in lines from which a view has the class ``-high``; below it has ``-low``."""


class View(Screen[None]):
    """A screen with the app's bars around it, its feeds, and its commands.

    A subclass yields its widgets from :meth:`content` and subscribes to its data in :meth:`begin`. It is one of the
    numbered screens or a detail view pushed on top of one. Its feeds run only while it is visible.
    """

    CRUMB: ClassVar[str] = ""
    """Its name in the breadcrumbs; override :attr:`crumb` if it varies."""
    CHANGES: ClassVar[frozenset[str]] = frozenset()
    """Actions that change something: dimmed and disabled in a read-only session."""

    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (WIDE, "-wide")]  # noqa: RUF012  (Textual's own)
    VERTICAL_BREAKPOINTS = [(0, "-low"), (HIGH, "-high")]  # noqa: RUF012

    DEFAULT_CSS = """
    View { background: $background; }
    View > #content { height: 1fr; }
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("r", "refresh", "Refresh now", show=False, id="view.refresh"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._feeds: dict[str, Feed[Any]] = {}
        self._feed_workers: dict[str, Worker[None]] = {}

    @property
    def nomnom(self) -> NomnomApp:
        """The app."""
        return cast("NomnomApp", self.app)

    @property
    def session(self) -> Session:
        """The session: the selected environment and the connections to its pipeline."""
        return self.nomnom.session

    @property
    def environment(self) -> Environment:
        """The selected environment; raises ControlError if there is none (a feed then shows it)."""
        return self.nomnom.session.environment

    @property
    def crumb(self) -> str:
        """Its name in the breadcrumbs."""
        return self.CRUMB

    def compose(self) -> ComposeResult:
        """Yield the bars around the view's content."""
        yield TopBar()
        yield Navigation()
        with Vertical(id="content"):
            yield from self.content()
        yield KeyBar()

    def content(self) -> ComposeResult:
        """Yield the view's widgets."""
        raise NotImplementedError

    def begin(self) -> None:
        """Subscribe to the data; called once after the widgets are mounted."""

    def environment_changed(self) -> None:
        """Clear what is shown of the previous environment. The feeds reload on their own."""

    def commands(self) -> Iterable[Command]:
        """Return the view's commands, in addition to the actions of its keys."""
        return ()

    # Feeds

    def subscribe(
        self,
        name: str,
        interval: float,
        load: Callable[[], Awaitable[T]],
        deliver: Callable[[T], None],
        panel: Panel | Callable[[LoadError | None], None] | None = None,
        *,
        timeout: float = TIMEOUT,
    ) -> Feed[T]:
        """Call ``load`` every ``interval`` seconds while the view is visible and pass the result to ``deliver``.

        Errors are reported to the panel (or callable), which shows the reason and the next attempt. Returns the feed;
        its ``refresh`` loads at once and discards a load in progress: call it when a filter or a page changed.
        """
        report = panel.report if isinstance(panel, Panel) else panel
        feed = Feed(name, interval, load, deliver, report or _ignore, timeout=timeout)
        self._feeds[name] = feed
        if self.is_visible:
            self._start_feed(feed)
        return feed

    def start_feeds(self) -> None:
        """Start the feeds if the view is visible."""
        if self.is_visible:
            for feed in self._feeds.values():
                self._start_feed(feed)

    @property
    def is_visible(self) -> bool:
        """Whether the view is on the screen: on top, or covered only by dialogs."""
        for screen in reversed(self.app.screen_stack):
            if screen is self:
                return self.is_mounted
            if not screen.is_modal:
                return False
        return False

    def on_mount(self) -> None:
        """Subscribe to the data once the widgets are mounted."""
        self.begin()

    def on_screen_resume(self) -> None:
        """Resume loading."""
        self.start_feeds()

    def on_screen_suspend(self) -> None:
        """Stop loading, unless only a dialog covers the view."""
        if not self.is_visible:
            self._stop_feeds()

    def on_unmount(self) -> None:
        """Stop loading."""
        self._stop_feeds()

    def action_refresh(self) -> None:
        """Load everything again now."""
        for feed in self._feeds.values():
            feed.refresh()

    def restart_feeds(self) -> None:
        """Reload everything from the environment that was just selected."""
        self.environment_changed()
        self.action_refresh()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Disable and dim changes in a read-only session."""
        return None if action in self.CHANGES and self.session.readonly else True

    def _start_feed(self, feed: Feed[Any]) -> None:
        if not self.nomnom.connected:
            return
        worker = self._feed_workers.get(feed.name)
        if worker is None or worker.is_finished or worker.is_cancelled:
            self._feed_workers[feed.name] = self.run_worker(feed.run(), name=feed.name, group="feeds")

    def _stop_feeds(self) -> None:
        for worker in self._feed_workers.values():
            worker.cancel()
        self._feed_workers.clear()


def _ignore(_: LoadError | None) -> None:
    """For feeds whose errors another panel of the same view already shows."""
