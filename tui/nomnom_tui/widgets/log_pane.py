"""The pane of log lines: bounded, filtered, optionally wrapped, and fast at thousands of lines per second.

Textual's RichLog renders each line when it is written, so another filter or width means rendering all of them again.
This pane keeps the lines and renders only those on the screen.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import ClassVar

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style as RichStyle
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from nomnom.presentation import figures
from nomnom.presentation.terminal import printable
from nomnom_control.environments import LogLine
from nomnom_tui.text.styles import HUES, Palette, Style

KEPT = 20_000
"""Lines kept; the oldest are dropped first."""
_SLACK = 2_000
_CLOCK = 12
"""Width in columns of the time of day with milliseconds."""

LEVELS = ("debug", "info", "warning", "error")
_RANKS = {
    "trace": 0,
    "debug": 0,
    "info": 1,
    "notice": 1,
    "warning": 2,
    "warn": 2,
    "error": 3,
    "fatal": 3,
    "critical": 3,
}
_MARKS = {
    0: ("· ", Style.MUTED, Style.MUTED),
    1: ("  ", Style.MUTED, Style.PLAIN),
    2: ("▲ ", Style.WARNING, Style.PLAIN),
    3: ("✕ ", Style.BAD, Style.PLAIN),
}


@dataclass(frozen=True, slots=True)
class Entry:
    """A line, its number in order of arrival, and its unwrapped width in columns."""

    serial: int
    line: LogLine
    width: int


@dataclass(frozen=True, slots=True)
class LogFilter:
    """Which lines are shown: from this level up, of these components (all if empty), matching the pattern."""

    level: str = "debug"
    components: frozenset[str] = frozenset()
    pattern: re.Pattern[str] | None = None

    def matches(self, line: LogLine) -> bool:
        """Whether the filter matches the line."""
        if rank(line.level) < _RANKS[self.level]:
            return False
        if self.components and line.component not in self.components:
            return False
        return self.pattern is None or self.pattern.search(plain(line)) is not None


def rank(level: str) -> int:
    """Return the severity of a level: 0 debug, 1 info, 2 warning, 3 error."""
    return _RANKS.get(level.lower(), 1)


def plain(line: LogLine) -> str:
    """Return the line as text, as filters match it and as it is saved."""
    fields = "".join(f" {name}={value}" for name, value in line.fields.items())
    return f"{line.replica} {line.level} {line.text}{fields}"


class LogPane(ScrollView, can_focus=True):
    """Log lines, newest last. Following keeps the newest visible; moving up stops it, moving to the end resumes it."""

    DEFAULT_CSS = """
    LogPane { height: 1fr; background: $background; scrollbar-size-vertical: 1; overflow-x: hidden; }
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "cursor(-1)", "Up", show=False, id="table.up"),
        Binding("down,j", "cursor(1)", "Down", show=False, id="table.down"),
        Binding("pageup,ctrl+b", "page(-1.0)", "Page up", show=False, id="table.page_up"),
        Binding("pagedown,ctrl+f", "page(1.0)", "Page down", show=False, id="table.page_down"),
        Binding("ctrl+u", "page(-0.5)", "Half page up", show=False, id="table.half_up"),
        Binding("ctrl+d", "page(0.5)", "Half page down", show=False, id="table.half_down"),
        Binding("home,g", "edge(0)", "Oldest line", show=False, id="table.first"),
        Binding("end,G", "edge(-1)", "Newest line and follow", show=False, id="table.last"),
        Binding("enter", "choose", "Full line", show=False, id="table.open"),
    ]

    class Chosen(Message):
        """A line was chosen with enter."""

        def __init__(self, line: LogLine) -> None:
            self.line = line
            super().__init__()

    class Moved(Message):
        """The shown lines changed, or following was started or stopped."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.enter_label = "Full line"
        self.follow = True
        self.wrap = False
        self.filter = LogFilter()
        self.search: re.Pattern[str] | None = None
        self._entries: list[Entry] = []
        self._shown: list[Entry] = []
        self._next = 0
        self._cursor = 0
        self._tops: list[int] = []
        """If wrapped: for each shown entry, the index of the screen line after its last one."""
        self._hues: dict[str, Style] = {}
        self._palette: Palette | None = None

    # Lines

    @property
    def total(self) -> int:
        """The number of lines kept."""
        return len(self._entries)

    @property
    def shown(self) -> Sequence[Entry]:
        """The kept lines that match the filter."""
        return self._shown

    @property
    def components(self) -> list[str]:
        """The components of the lines received so far."""
        return list(self._hues)

    def append(self, lines: Sequence[LogLine]) -> None:
        """Append lines."""
        fresh = [Entry(serial, line, _width(line)) for serial, line in enumerate(lines, start=self._next)]
        self._next += len(fresh)
        for line in lines:
            if line.component not in self._hues:
                self._hues[line.component] = HUES[len(self._hues) % len(HUES)]
        self._entries += fresh
        matching = [entry for entry in fresh if self.filter.matches(entry.line)]
        self._shown += matching
        if self.wrap:
            start = self._tops[-1] if self._tops else 0
            self._tops += list(accumulate(self._heights(matching), initial=start))[1:]
        if len(self._entries) > KEPT + _SLACK:
            self._trim()
        self._arranged()

    def clear(self) -> None:
        """Remove all lines."""
        self._entries, self._shown, self._tops, self._cursor = [], [], [], 0
        self._arranged()

    def set_filter(self, chosen: LogFilter) -> None:
        """Show only lines that match; the cursor stays as close to its line as possible."""
        current = self._shown[self._cursor].serial if self._shown else 0
        self.filter = chosen
        self._shown = [entry for entry in self._entries if chosen.matches(entry.line)]
        self._cursor = max(0, min(bisect_left(self._shown, current, key=_serial), len(self._shown) - 1))
        self._rewrap()
        self._arranged()

    def set_wrap(self, wrap: bool) -> None:
        """Wrap long lines or truncate them."""
        self.wrap = wrap
        self._rewrap()
        self._arranged()
        self._reveal()

    def set_follow(self, follow: bool) -> None:
        """Keep the newest line visible, or stop following."""
        self.follow = follow
        self._arranged()

    def find(self, pattern: re.Pattern[str] | None) -> None:
        """Highlight matches of the pattern."""
        self.search = pattern
        self.refresh()

    def find_next(self, by: int) -> bool:
        """Go to the next (1) or previous (-1) match of the search; false if there is none."""
        if self.search is None or not self._shown:
            return False
        count = len(self._shown)
        for step in range(1, count + 1):
            at = (self._cursor + by * step) % count
            if self.search.search(plain(self._shown[at].line)):
                self.follow = False
                self._move(at)
                return True
        return False

    def _trim(self) -> None:
        self._entries = self._entries[-KEPT:]
        gone = bisect_left(self._shown, self._entries[0].serial, key=_serial)
        if not gone:
            return
        lines = self._tops[gone - 1] if self.wrap else gone
        self._shown = self._shown[gone:]
        self._tops = [top - lines for top in self._tops[gone:]]
        self._cursor = max(0, self._cursor - gone)
        if not self.follow:
            # Keep the visible lines in place.
            self.scroll_to(y=max(0, round(self.scroll_y) - lines), animate=False, force=True)

    def _rewrap(self) -> None:
        self._tops = list(accumulate(self._heights(self._shown))) if self.wrap else []

    def _arranged(self) -> None:
        height = self._tops[-1] if self._tops else (0 if self.wrap else len(self._shown))
        size = Size(0, height)
        if self.show_vertical_scrollbar and height > self.container_size.height:
            # Only the scrollbar's proportion changes. Assigning the size would make Textual lay out the whole screen
            # each time lines arrive, which takes longer than drawing it.
            # Textual types a reactive by the type of its value.
            self.set_reactive(LogPane.virtual_size, size)  # pyright: ignore[reportArgumentType]
            self._scroll_update(size)
        else:
            self.virtual_size = size
        if self.follow and self._shown:
            self._cursor = len(self._shown) - 1
            self.scroll_to(y=max(0, height - self.scrollable_content_region.height), animate=False, force=True)
        self.refresh()
        self.post_message(self.Moved())

    # Keys

    def action_cursor(self, by: int) -> None:
        """Move by this many lines."""
        self._go(self._cursor + by)

    def action_page(self, pages: float) -> None:
        """Move by this many pages."""
        self._go(self._cursor + round(pages * max(1, self.scrollable_content_region.height - 1)))

    def action_edge(self, edge: int) -> None:
        """Move to the oldest (0) or newest (-1) line."""
        self._go(0 if edge == 0 else len(self._shown) - 1)

    def action_choose(self) -> None:
        """Open the full line with its fields."""
        if self._shown:
            self.post_message(self.Chosen(self._shown[self._cursor].line))

    def on_click(self, event: events.Click) -> None:
        """Move the cursor to the clicked line."""
        at = self._entry_at(round(self.scroll_y) + event.y)
        if at is not None:
            self._go(at)

    def on_mouse_scroll_up(self) -> None:
        """Stop following when the user scrolls up."""
        self.follow = False
        self.post_message(self.Moved())

    def _go(self, to: int) -> None:
        to = max(0, min(to, len(self._shown) - 1))
        self.follow = to == len(self._shown) - 1
        self._move(to)

    def _move(self, to: int) -> None:
        self._cursor = to
        self._reveal()
        self.refresh()
        self.post_message(self.Moved())

    def _reveal(self) -> None:
        if not self._shown:
            return
        first, after = self._lines_of(self._cursor)
        top, height = round(self.scroll_y), self.scrollable_content_region.height
        if first < top:
            self.scroll_to(y=first, animate=False, force=True)
        elif after > top + height:
            self.scroll_to(y=after - height, animate=False, force=True)

    def _lines_of(self, at: int) -> tuple[int, int]:
        if not self.wrap:
            return at, at + 1
        return (self._tops[at - 1] if at else 0), self._tops[at]

    def _entry_at(self, y: int) -> int | None:
        at = bisect_right(self._tops, y) if self.wrap else y
        return at if 0 <= at < len(self._shown) else None

    # Drawing

    def on_mount(self) -> None:
        """Reload the colours when the theme changes."""
        self.app.theme_changed_signal.subscribe(self, self._reload_colours)

    def _reload_colours(self, _: object) -> None:
        self._palette = None
        self.refresh()

    def on_resize(self) -> None:
        """Rewrap to the new width."""
        self._rewrap()
        self._arranged()

    def _pieces(self, line: LogLine) -> list[tuple[str, Style]]:
        mark, style, text_style = _MARKS[rank(line.level)]
        pieces = [
            (f" {figures.clock(line.at, fractions=True):<{_CLOCK}} ", Style.MUTED),
            (_instance(line), self._hues.get(line.component, Style.PLAIN)),
            (mark, style),
            (printable(line.text), text_style),
        ]
        return pieces + [(printable(f"  {name}={value}"), Style.MUTED) for name, value in line.fields.items()]

    def _heights(self, entries: Sequence[Entry]) -> list[int]:
        width = max(20, self.scrollable_content_region.width)
        return [max(1, -(-entry.width // width)) for entry in entries]

    def render_line(self, y: int) -> Strip:
        """Render one line of the screen."""
        if self._palette is None:
            self._palette = Palette(self.app)
        width = self.scrollable_content_region.width
        base = self.rich_style
        absolute = round(self.scroll_y) + y
        at = self._entry_at(absolute)
        if at is None:
            return Strip.blank(width, base)
        if at == self._cursor and not self.follow:
            name = "cursor" if self.has_focus else "cursor-inactive"
            base += RichStyle(bgcolor=self.app.theme_variables[name])
        strip = Strip(self._segments(self._shown[at].line, base))
        if self.wrap:
            start = (absolute - self._lines_of(at)[0]) * width
            return strip.crop(start, start + width).adjust_cell_length(width, base)
        if strip.cell_length > width:
            return Strip([*strip.crop(0, width - 1), Segment("…", base + self._palette[Style.MUTED])])
        return strip.adjust_cell_length(width, base)

    def _segments(self, line: LogLine, base: RichStyle) -> list[Segment]:
        assert self._palette is not None
        segments: list[Segment] = []
        for text, meaning in self._pieces(line):
            style = base + self._palette[meaning]
            if self.search is None:
                segments.append(Segment(text, style))
                continue
            at = 0
            for match in self.search.finditer(text):
                if match.end() > match.start():
                    segments.append(Segment(text[at : match.start()], style))
                    segments.append(Segment(match[0], base + self._palette[Style.MATCH]))
                    at = match.end()
            segments.append(Segment(text[at:], style))
        return segments


def _instance(line: LogLine) -> str:
    return f"{line.replica:<11} "[:14]


def _width(line: LogLine) -> int:
    """Return the width of a line. Wrapping needs it for every line kept, and building the pieces would be slow."""
    total = _CLOCK + 4 + cell_len(_instance(line))
    for text in (line.text, *(f"  {name}={value}" for name, value in line.fields.items())):
        total += len(text) if text.isascii() else cell_len(printable(text))
    return total


def _serial(entry: Entry) -> int:
    return entry.serial
