"""Logs: what all components write, as it is written."""

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
from nomnom_control.environments import LogLine
from nomnom_tui.app.commands import Command
from nomnom_tui.app.refresh import LoadError
from nomnom_tui.app.view import View
from nomnom_tui.text import figures
from nomnom_tui.text.styles import Line, Style, content
from nomnom_tui.widgets.dialogs import Dialog
from nomnom_tui.widgets.log_pane import KEPT, LEVELS, LogFilter, LogPane, plain
from nomnom_tui.widgets.panel import Panel

_TAIL = 1000
_DRAWS = 0.1
"""Seconds between two insertions: what arrives meanwhile is inserted at once."""
_BREATH = 200
"""Lines after which the loop gets its turn, however fast they come."""
_RETRY = 3.0

logger = logging.getLogger(__name__)


class LineDialog(Dialog[None]):
    """One log line with all of its fields."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("enter,q", "leave", "Leave", show=False, id="dialog.close")]
    DEFAULT_CSS = """
    LineDialog > #box { width: 110; }
    """

    def __init__(self, line: LogLine) -> None:
        super().__init__()
        self.line = line

    def compose(self) -> ComposeResult:
        """Everything that is known of the line."""
        line = self.line
        rows = {
            "at": figures.moment(line.at),
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
    """A value of several lines (a traceback): the name stands before the first."""
    for at, line in enumerate(value.splitlines() or [""]):
        yield (name if at == 0 else "", line)


class LogsView(View):
    """All components' lines; filter by level, component and pattern; find; follow; wrap; save."""

    CRUMB = "Logs"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "ask('filter')", "Filter", key_display="/", id="logs.filter"),
        Binding("l", "level", "Level", id="logs.level"),
        Binding("c", "component", "Component", id="logs.component"),
        Binding("s", "follow", "Follow", id="logs.follow"),
        Binding("w", "wrap", "Wrap", id="logs.wrap"),
        Binding("f", "ask('find')", "Find", id="logs.find"),
        Binding("n", "next(1)", "Next match", show=False, id="logs.next"),
        Binding("N", "next(-1)", "Previous match", show=False, id="logs.previous"),
        Binding("ctrl+s", "save", "Save", id="logs.save"),
        Binding("x", "clear", "Clear", show=False, id="logs.clear"),
        Binding("escape", "unfilter", "Forget filter and search, then back", show=False, id="logs.unfilter"),
    ]
    DEFAULT_CSS = """
    LogsView #asking { height: 1; display: none; background: $panel; padding: 0 1; }
    LogsView #asking.-open { display: block; }
    LogsView #asking Static { width: auto; color: $accent; }
    LogsView #asking Input { height: 1; border: none; padding: 0; background: $panel; }
    LogsView #asking Input.-invalid { color: $error; }
    """

    def __init__(self) -> None:
        super().__init__()
        self._pending: deque[LogLine] = deque(maxlen=KEPT)
        self._last: datetime | None = None
        self._asking = "filter"
        self._pattern = ""

    def content(self) -> ComposeResult:
        """The lines, and the line to type a pattern into."""
        yield Panel("Logs", LogPane(id="pane"), id="logs", awaits="reading the logs")
        with Horizontal(id="asking"):
            yield Static("", id="asked")
            yield Input(id="pattern")

    def begin(self) -> None:
        """Follow from now on, also while another screen is looked at: what is read here has no gaps."""
        self._follow_logs()
        self.set_interval(_DRAWS, self._insert)

    def environment_changed(self) -> None:
        """The other environment's lines."""
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
        """Read for ever; when reading ends or fails, say why and begin again where it was."""
        panel = self.query_one("#logs", Panel)
        while True:
            try:
                await self._read_once()
                reason = "the logs ended"
            except (NomnomError, OSError) as error:
                reason = str(error)
            except Exception as error:
                logger.exception("logs")
                reason = f"unexpected {type(error).__name__}: {error} (see the log: :log)"
            panel.report(LoadError(reason, datetime.now(UTC), monotonic() + _RETRY))
            await asyncio.sleep(_RETRY)

    async def _read_once(self) -> None:
        seen_until = self._last
        lines = self.environment.logs(follow=True, tail=_TAIL)
        async with aclosing(cast("AsyncGenerator[LogLine, None]", lines)) as reading:
            self.query_one("#logs", Panel).report(None)
            count = 0
            async for line in reading:
                if line.at is not None:
                    if seen_until is not None and line.at <= seen_until:
                        continue
                    self._last = line.at if self._last is None else max(self._last, line.at)
                self._pending.append(line)
                count += 1
                if count % _BREATH == 0:
                    await asyncio.sleep(0)

    def _insert(self) -> None:
        if self._pending and self.seen:
            lines = list(self._pending)
            self._pending.clear()
            self._pane.append(lines)

    # Title

    @on(LogPane.Moved)
    def _tell(self) -> None:
        pane = self._pane
        chosen = pane.filter
        parts = [f"{figures.count(len(pane.shown))} lines"]
        if len(pane.shown) != pane.total:
            parts[0] += f" of {figures.count(pane.total)}"
        if chosen.level != "debug":
            parts.append(f"{chosen.level} and above")
        if chosen.components:
            parts.append("only " + ", ".join(sorted(chosen.components)))
        if chosen.pattern is not None:
            parts.append(f"filter /{chosen.pattern.pattern}/")
        if pane.search is not None:
            parts.append(f"find /{pane.search.pattern}/ (n, N)")
        parts.append("following" if pane.follow else "‖ not following (G follows)")
        if pane.wrap:
            parts.append("wrapped")
        self.query_one("#logs", Panel).retitle("Logs", "  ·  ".join(parts))

    # Keys

    def action_level(self) -> None:
        """The next level: debug, info, warning, error."""
        chosen = self._pane.filter
        level = LEVELS[(LEVELS.index(chosen.level) + 1) % len(LEVELS)]
        self._pane.set_filter(replace(chosen, level=level))

    def action_component(self) -> None:
        """One component after another, then all."""
        pane = self._pane
        known = sorted(pane.components)
        present = next(iter(pane.filter.components), None)
        at = known.index(present) + 1 if present in known else 0
        self._only(known[at : at + 1])

    def _only(self, components: Iterable[str]) -> None:
        self._pane.set_filter(replace(self._pane.filter, components=frozenset(components)))

    def action_follow(self) -> None:
        """Keep the newest line in sight, or stay."""
        self._pane.set_follow(not self._pane.follow)

    def action_wrap(self) -> None:
        """Wrap long lines, or cut them."""
        self._pane.set_wrap(not self._pane.wrap)

    def action_clear(self) -> None:
        """Forget the lines so far."""
        self._pane.clear()

    def action_next(self, by: int) -> None:
        """The next or previous match."""
        if not self._pane.find_next(by):
            self.nomnom.notify("nothing matches: f asks what to find", severity="warning")

    async def action_unfilter(self) -> None:
        """Forget search and filter; where there is none, go back."""
        pane = self._pane
        if pane.search is not None:
            pane.find(None)
            self._tell()
        elif pane.filter != LogFilter():
            pane.set_filter(LogFilter())
        else:
            await self.nomnom.action_back()

    def action_ask(self, what: str) -> None:
        """Ask for a pattern to filter by or to find."""
        self._asking = what
        pane = self._pane
        present = pane.filter.pattern if what == "filter" else pane.search
        self.query_one("#asked", Static).update(f"{what} /")
        self.query_one("#asking").add_class("-open")
        line = self.query_one("#pattern", Input)
        line.value = present.pattern if present else ""
        line.focus()

    @on(Input.Changed, "#pattern")
    def _typed(self, event: Input.Changed) -> None:
        """Filter while typing."""
        if not self.query_one("#asking").has_class("-open"):
            return
        valid, pattern = self._compile(event.value)
        if not valid:
            return
        if self._asking == "filter":
            self._pane.set_filter(replace(self._pane.filter, pattern=pattern))
        else:
            self._pane.find(pattern)

    @on(Input.Submitted, "#pattern")
    def _submitted(self) -> None:
        self._close_line()
        if self._asking == "find" and self._pane.search is not None:
            self.action_next(-1)

    def on_key(self, event: events.Key) -> None:
        """``esc`` in the pattern's line closes it."""
        if event.key == "escape" and self.query_one("#pattern", Input).has_focus:
            event.stop()
            self._close_line()

    def _close_line(self) -> None:
        self.query_one("#asking").remove_class("-open")
        self._pane.focus()

    def _compile(self, text: str) -> tuple[bool, re.Pattern[str] | None]:
        line = self.query_one("#pattern", Input)
        try:
            # Small letters find both, as in less and vim's smartcase.
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
        """Save the lines that are shown to a file."""
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
            self.nomnom.tell_problem("Save the logs", f"{path}: {error.strerror}; :save FILE chooses another place")
            return
        self.nomnom.notify(f"{figures.count(len(lines))} lines in {path}", title="Saved", markup=False)

    def commands(self) -> Iterable[Command]:
        """Patterns, components, levels and places to save by name."""
        return (
            Command("filter", "show only lines that match", self._filter_by, "REGEX"),
            Command("level", "show only this level and above", self._set_level, "LEVEL", lambda _: LEVELS),
            Command(
                "component",
                "show only these components",
                lambda text: self._only(text.split()),
                "NAME…",
                lambda _: sorted(self._pane.components),
            ),
            Command("save", "save the lines that are shown", self._save_to, "FILE"),
        )

    def _filter_by(self, text: str) -> None:
        valid, pattern = self._compile(text)
        if valid:
            self._pane.set_filter(replace(self._pane.filter, pattern=pattern))

    def _set_level(self, level: str) -> None:
        if level in LEVELS:
            self._pane.set_filter(replace(self._pane.filter, level=level))
        else:
            self.nomnom.notify(f"a level is one of {', '.join(LEVELS)}", severity="warning")

    async def _save_to(self, name: str) -> None:
        if name:
            await self._save(_expanded(name))
        else:
            self.action_save()
