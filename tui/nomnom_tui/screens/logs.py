"""Logs: the live log lines of all components."""

from __future__ import annotations

import asyncio
import logging
import re
from collections import deque
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import ClassVar, cast

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.widgets import Input, Static

from nomnom.errors import NomnomError
from nomnom.presentation import figures
from nomnom_control.environments import LogLine
from nomnom_tui.app.commands import Command
from nomnom_tui.app.refresh import LoadError
from nomnom_tui.app.view import View
from nomnom_tui.text.styles import Line, Style, content
from nomnom_tui.widgets.dialogs import Dialog
from nomnom_tui.widgets.log_pane import KEPT, LEVELS, LogFilter, LogPane, plain
from nomnom_tui.widgets.panel import Panel

_TAIL = 1000
_INSERT_INTERVAL = 0.1
"""Seconds between insertions; lines that arrive meanwhile are inserted together."""
_YIELD_EVERY = 200
"""Number of lines after which the reader yields to the event loop."""
_RETRY = 3.0

logger = logging.getLogger(__name__)


class LineDialog(Dialog[None]):
    """One log line with all of its fields."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("enter,q", "leave", "Close", show=False, id="dialog.close")]
    DEFAULT_CSS = """
    LineDialog > #box { width: 110; }
    """

    def __init__(self, line: LogLine) -> None:
        super().__init__()
        self.line = line

    def compose(self) -> ComposeResult:
        """The line and its fields."""
        line = self.line
        rows = {
            "time": figures.moment(line.at),
            "component": f"{line.component} ({line.replica})",
            "level": line.level,
            "text": line.text,
            **{name: str(value) for name, value in line.fields.items()},
        }
        width = max(len(name) for name in rows) + 2
        with Vertical(id="box") as box:
            box.border_title = "Log line"
            with VerticalScroll(id="body"):
                lines: list[Line] = [
                    [(name.ljust(width), Style.MUTED), (text, Style.PLAIN)]
                    for name, value in rows.items()
                    for name, text in _first_named(name, value)
                ]
                yield Static(content(*lines), id="text")


def _expanded(name: str) -> Path:
    return Path(name).expanduser()


def _first_named(name: str, value: str) -> Iterable[tuple[str, str]]:
    """Split a multi-line value such as a traceback; only its first line gets the name."""
    for at, line in enumerate(value.splitlines() or [""]):
        yield (name if at == 0 else "", line)


class LogsView(View):
    """The lines of all components; filter by level, component and pattern, find, follow, wrap, save."""

    CRUMB = "Logs"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "enter_pattern('filter')", "Filter", key_display="/", id="logs.filter"),
        Binding("l", "level", "Level", id="logs.level"),
        Binding("c", "component", "Component", id="logs.component"),
        Binding("s", "follow", "Follow", id="logs.follow"),
        Binding("w", "wrap", "Wrap", id="logs.wrap"),
        Binding("f", "enter_pattern('find')", "Find", id="logs.find"),
        Binding("n", "next(1)", "Next match", show=False, id="logs.next"),
        Binding("N", "next(-1)", "Previous match", show=False, id="logs.previous"),
        Binding("ctrl+s", "save", "Save", id="logs.save"),
        Binding("x", "clear", "Clear", show=False, id="logs.clear"),
        Binding("escape", "unfilter", "Clear search or filter, or go back", show=False, id="logs.unfilter"),
    ]
    DEFAULT_CSS = """
    LogsView #pattern-line { height: 1; display: none; background: $panel; padding: 0 1; }
    LogsView #pattern-line.-open { display: block; }
    LogsView #pattern-line Static { width: auto; color: $accent; }
    LogsView #pattern-line Input { height: 1; border: none; padding: 0; background: $panel; }
    LogsView #pattern-line Input.-invalid { color: $error; }
    """

    def __init__(self) -> None:
        super().__init__()
        self._pending: deque[LogLine] = deque(maxlen=KEPT)
        self._last: datetime | None = None
        self._purpose = "filter"
        self._pattern = ""

    def content(self) -> ComposeResult:
        """The lines and the input for a pattern."""
        yield Panel("Logs", LogPane(id="pane"), id="logs", loading_text="loading logs")
        with Horizontal(id="pattern-line"):
            yield Static("", id="pattern-label")
            yield Input(id="pattern")

    def begin(self) -> None:
        """Follow the logs, also while another screen is visible, so that there are no gaps."""
        self._follow_logs()
        self.set_interval(_INSERT_INTERVAL, self._insert)

    def environment_changed(self) -> None:
        """Clear the lines of the previous environment and follow the new one."""
        self._pane.clear()
        self._pending.clear()
        self._last = None
        self._follow_logs()

    @property
    def _pane(self) -> LogPane:
        return self.query_one(LogPane)

    # Following

    def _follow_logs(self) -> None:
        self.run_worker(self._read(), name="logs", group="logs", exclusive=True)

    async def _read(self) -> None:
        """Read forever; if reading ends or fails, show why and resume after the last line."""
        panel = self.query_one("#logs", Panel)
        while True:
            try:
                await self._read_once()
                reason = "the log stream ended"
            except (NomnomError, OSError) as error:
                reason = str(error)
            except Exception as error:
                logger.exception("logs")
                reason = f"unexpected {type(error).__name__}: {error} (type :log for the log file)"
            panel.report(LoadError(reason, datetime.now(UTC), monotonic() + _RETRY))
            await asyncio.sleep(_RETRY)

    async def _read_once(self) -> None:
        resume_after = self._last
        lines = self.environment.logs(follow=True, tail=_TAIL)
        async with aclosing(cast("AsyncGenerator[LogLine, None]", lines)) as reading:
            self.query_one("#logs", Panel).report(None)
            count = 0
            async for line in reading:
                if line.at is not None:
                    if resume_after is not None and line.at <= resume_after:
                        continue
                    self._last = line.at if self._last is None else max(self._last, line.at)
                self._pending.append(line)
                count += 1
                if count % _YIELD_EVERY == 0:
                    await asyncio.sleep(0)

    def _insert(self) -> None:
        if self._pending and self.is_visible:
            lines = list(self._pending)
            self._pending.clear()
            self._pane.append(lines)

    # Title

    @on(LogPane.Moved)
    def _update_title(self) -> None:
        pane = self._pane
        active = pane.filter
        parts = [f"{figures.count(len(pane.shown))} lines"]
        if len(pane.shown) != pane.total:
            parts[0] += f" of {figures.count(pane.total)}"
        if active.level != "debug":
            parts.append(f"{active.level} and above")
        if active.components:
            parts.append("only " + ", ".join(sorted(active.components)))
        if active.pattern is not None:
            parts.append(f"filter /{active.pattern.pattern}/")
        if pane.search is not None:
            parts.append(f"find /{pane.search.pattern}/ (n, N)")
        parts.append("following" if pane.follow else "‖ not following (G resumes)")
        if pane.wrap:
            parts.append("wrapped")
        self.query_one("#logs", Panel).retitle("Logs", "  ·  ".join(parts))

    # Keys

    def action_level(self) -> None:
        """Switch to the next minimum level: debug, info, warning, error."""
        active = self._pane.filter
        level = LEVELS[(LEVELS.index(active.level) + 1) % len(LEVELS)]
        self._pane.set_filter(replace(active, level=level))

    def action_component(self) -> None:
        """Switch to the next component, or from the last one to all."""
        pane = self._pane
        known = sorted(pane.components)
        current = next(iter(pane.filter.components), None)
        at = known.index(current) + 1 if current in known else 0
        self._only(known[at : at + 1])

    def _only(self, components: Iterable[str]) -> None:
        self._pane.set_filter(replace(self._pane.filter, components=frozenset(components)))

    def action_follow(self) -> None:
        """Start or stop following the newest line."""
        self._pane.set_follow(not self._pane.follow)

    def action_wrap(self) -> None:
        """Wrap long lines or truncate them."""
        self._pane.set_wrap(not self._pane.wrap)

    def action_clear(self) -> None:
        """Remove all lines."""
        self._pane.clear()

    def action_next(self, by: int) -> None:
        """Go to the next or previous match."""
        if not self._pane.find_next(by):
            self.nomnom.notify("no match; press f to search", severity="warning")

    async def action_unfilter(self) -> None:
        """Clear the search, else the filter, else go back."""
        pane = self._pane
        if pane.search is not None:
            pane.find(None)
            self._update_title()
        elif pane.filter != LogFilter():
            pane.set_filter(LogFilter())
        else:
            await self.nomnom.action_back()

    def action_enter_pattern(self, purpose: str) -> None:
        """Open the input for a pattern to filter by or to find."""
        self._purpose = purpose
        pane = self._pane
        pattern = pane.filter.pattern if purpose == "filter" else pane.search
        self.query_one("#pattern-label", Static).update(f"{purpose} /")
        self.query_one("#pattern-line").add_class("-open")
        line = self.query_one("#pattern", Input)
        line.value = pattern.pattern if pattern else ""
        line.focus()

    @on(Input.Changed, "#pattern")
    def _typed(self, event: Input.Changed) -> None:
        """Filter while typing."""
        if not self.query_one("#pattern-line").has_class("-open"):
            return
        valid, pattern = self._compile(event.value)
        if not valid:
            return
        if self._purpose == "filter":
            self._pane.set_filter(replace(self._pane.filter, pattern=pattern))
        else:
            self._pane.find(pattern)

    @on(Input.Submitted, "#pattern")
    def _submitted(self) -> None:
        self._close_line()
        if self._purpose == "find" and self._pane.search is not None:
            self.action_next(-1)

    def on_key(self, event: events.Key) -> None:
        """Close the pattern input on ``esc``."""
        if event.key == "escape" and self.query_one("#pattern", Input).has_focus:
            event.stop()
            self._close_line()

    def _close_line(self) -> None:
        self.query_one("#pattern-line").remove_class("-open")
        self._pane.focus()

    def _compile(self, text: str) -> tuple[bool, re.Pattern[str] | None]:
        line = self.query_one("#pattern", Input)
        try:
            # A lower-case pattern ignores case, like smartcase in less and vim.
            pattern = re.compile(text, re.IGNORECASE if text == text.lower() else 0) if text else None
        except re.error:
            line.add_class("-invalid")
            return False, None
        line.remove_class("-invalid")
        return True, pattern

    @on(LogPane.Chosen)
    def _chosen(self, event: LogPane.Chosen) -> None:
        self.nomnom.push_screen(LineDialog(event.line))

    def action_save(self) -> None:
        """Save the shown lines to a file."""
        name = f"nomnom-{self.environment.name}-{datetime.now(UTC):%Y%m%d-%H%M%S}.log"
        self.run_worker(self._save(Path.cwd() / name), name="save logs")

    async def _save(self, path: Path) -> None:
        lines = [
            f"{entry.line.at.isoformat() if entry.line.at else '-'} {plain(entry.line)}" for entry in self._pane.shown
        ]

        def write() -> None:
            path.write_text("\n".join([*lines, ""]), encoding="utf-8")

        try:
            await asyncio.to_thread(write)
        except OSError as error:
            self.nomnom.show_problem("Save logs", f"{path}: {error.strerror}; use :save FILE to choose another path")
            return
        self.nomnom.notify(f"saved {figures.count(len(lines))} lines to {path}", title="Logs", markup=False)

    def commands(self) -> Iterable[Command]:
        """Commands to filter and save."""
        return (
            Command("filter", "show only matching lines", self._filter_by, "REGEX"),
            Command("level", "show only this level and above", self._set_level, "LEVEL", lambda _: LEVELS),
            Command(
                "component",
                "show only these components",
                lambda text: self._only(text.split()),
                "NAME…",
                lambda _: sorted(self._pane.components),
            ),
            Command("save", "save the shown lines", self._save_to, "FILE"),
        )

    def _filter_by(self, text: str) -> None:
        valid, pattern = self._compile(text)
        if valid:
            self._pane.set_filter(replace(self._pane.filter, pattern=pattern))

    def _set_level(self, level: str) -> None:
        if level in LEVELS:
            self._pane.set_filter(replace(self._pane.filter, level=level))
        else:
            self.nomnom.notify(f"unknown level {level!r}; expected one of {', '.join(LEVELS)}", severity="warning")

    async def _save_to(self, name: str) -> None:
        if name:
            await self._save(_expanded(name))
        else:
            self.action_save()
