"""The building blocks of screens: feeds, tables, the log pane, commands, figures, settings."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from textual.app import App, ComposeResult

from nomnom.presentation import figures
from nomnom_control.environments import LogLine
from nomnom_control.errors import ControlError
from nomnom_tui.app.application import NomnomApp
from nomnom_tui.app.commands import Command, completions, find
from nomnom_tui.app.preferences import read_preferences
from nomnom_tui.app.refresh import Feed, LoadError
from nomnom_tui.app.session import Session
from nomnom_tui.text.sparkline import sparkline
from nomnom_tui.text.theme import THEMES, variables_for
from nomnom_tui.widgets import log_pane
from nomnom_tui.widgets.log_pane import LogFilter, LogPane
from nomnom_tui.widgets.table import Column, LiveTable


class Source:
    """A data source that counts its loads and how many run at the same time."""

    def __init__(self) -> None:
        self.loads = self.running = self.max_running = 0
        self.delivered: list[int] = []
        self.problems: list[LoadError | None] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.error: Exception | None = None

    async def load(self) -> int:
        self.loads += 1
        number = self.loads
        self.running += 1
        self.max_running = max(self.max_running, self.running)
        try:
            await self.gate.wait()
            await asyncio.sleep(0)
            if self.error:
                raise self.error
            return number
        finally:
            self.running -= 1

    def feed(self, interval: float = 0.01, timeout: float = 5.0) -> Feed[int]:
        return Feed("numbers", interval, self.load, self.delivered.append, self.problems.append, timeout=timeout)


async def until(condition: object, limit: float = 5.0) -> None:
    """Wait until the condition is true."""
    assert callable(condition)
    async with asyncio.timeout(limit):
        while not condition():
            await asyncio.sleep(0.005)


@contextmanager
def running(feed: Feed[int]) -> Iterator[asyncio.Task[None]]:
    task = asyncio.create_task(feed.run())
    try:
        yield task
    finally:
        task.cancel()


async def test_loads_of_a_feed_never_overlap() -> None:
    source = Source()
    feed = source.feed()
    with running(feed):
        for _ in range(20):
            feed.refresh()
            await asyncio.sleep(0.002)
        await until(lambda: len(source.delivered) >= 5)
    assert source.max_running == 1


async def test_refresh_discards_the_load_in_progress() -> None:
    source = Source()
    source.gate.clear()
    feed = source.feed(interval=60)
    with running(feed):
        await until(lambda: source.loads == 1)
        feed.refresh()
        await until(lambda: source.loads == 2)
        source.gate.set()
        await until(lambda: bool(source.delivered))
    assert source.delivered == [2]


async def test_load_error_is_reported_until_a_load_succeeds() -> None:
    source = Source()
    source.error = ControlError("NATS at nats://127.0.0.1:1 is unavailable: refused")
    feed = source.feed(interval=0.01)
    with running(feed):
        await until(lambda: bool(source.problems))
        problem = source.problems[0]
        assert problem is not None
        assert "NATS at nats://127.0.0.1:1 is unavailable" in problem.text
        assert 0 < problem.retry_in <= 1
        source.error = None
        feed.refresh()
        await until(lambda: bool(source.delivered))
    assert source.problems[-1] is None
    assert feed.problem is None


async def test_retry_delay_grows_up_to_a_limit() -> None:
    source = Source()
    source.error = OSError("refused")
    feed = source.feed(interval=1.0)
    waits: list[float] = []
    with running(feed):
        for at in range(8):
            await until(lambda at=at: len(source.problems) > at)
            problem = feed.problem
            assert problem is not None
            waits.append(round(problem.retry_in, 1))
            feed._requested.set()
    assert waits == sorted(waits)
    assert waits[-1] <= 15


async def test_load_times_out() -> None:
    source = Source()
    source.gate.clear()
    with running(source.feed(timeout=0.05)):
        await until(lambda: bool(source.problems))
    problem = source.problems[0]
    assert problem is not None
    assert "no response within 0.05 s" in problem.text
    assert source.running == 0


async def test_unexpected_error_is_reported_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    source = Source()
    source.error = KeyError("surprise")
    with running(source.feed()):
        await until(lambda: bool(source.problems))
    problem = source.problems[0]
    assert problem is not None
    assert "KeyError" in problem.text
    assert "feed numbers" in caplog.text


async def test_cancelling_a_feed_cancels_its_load() -> None:
    source = Source()
    source.gate.clear()
    with running(source.feed()) as task:
        await until(lambda: source.running == 1)
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: source.running == 0)


@pytest.mark.parametrize("error", [None, OSError("connection lost")])
async def test_feed_stops_if_a_load_swallows_its_cancellation(error: OSError | None) -> None:
    source = Source()
    started = asyncio.Event()

    async def swallow() -> int:
        started.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            if error is not None:
                raise error from None
        return 1

    source.load = swallow
    with running(source.feed()) as task:
        await started.wait()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 5)
    assert (source.delivered, source.problems) == ([], [])


class Host(App[None]):
    """An app with one widget and our themes."""

    def __init__(self, widget: LiveTable[tuple[int, str]] | LogPane) -> None:
        super().__init__()
        for theme in THEMES:
            self.register_theme(theme)
        self.theme = THEMES[0].name
        self.widget = widget

    def get_theme_variable_defaults(self) -> dict[str, str]:
        return variables_for(self.current_theme)

    def compose(self) -> ComposeResult:
        yield self.widget


def numbers(*values: int, text: str = "text") -> list[tuple[int, str]]:
    return [(value, f"{text} {value}") for value in values]


def table() -> LiveTable[tuple[int, str]]:
    return LiveTable(
        [
            Column("Number", lambda row: str(row[0]), 8, right=True),
            Column("Text", lambda row: row[1], 10, share=1),
            Column("Rare", lambda row: "rare", 40, rank=1),
        ],
        key=lambda row: row[0],
        empty="no numbers",
        markable=True,
    )


def drawn(widget: LiveTable[tuple[int, str]] | LogPane, lines: int) -> list[str]:
    return [widget.render_line(y).text.rstrip() for y in range(lines)]


async def test_cursor_stays_on_its_row() -> None:
    async with Host(table()).run_test(size=(60, 12)) as pilot:
        shown = pilot.app.query_one(LiveTable)
        shown.focus()
        shown.show(numbers(*range(100)))
        await pilot.press("G")
        assert shown.current == (99, "text 99")
        await pilot.press("g", "j", "j", "j")
        assert shown.current == (3, "text 3")
        shown.show(numbers(-2, -1, *range(50), text="new"))
        assert shown.current == (3, "new 3")
        assert shown.cursor == 5
        shown.show(numbers(0, 1, 2, 4, 5))
        assert shown.current == (5, "text 5"), "if its row is gone it stays at its index, or on the last row"
        shown.show([])
        assert shown.current is None
        assert "no numbers" in drawn(shown, 3)[1]


async def test_scroll_position_is_kept() -> None:
    async with Host(table()).run_test(size=(60, 12)) as pilot:
        shown = pilot.app.query_one(LiveTable)
        shown.focus()
        shown.show(numbers(*range(1000)))
        await pilot.press(*["pagedown"] * 5)
        await pilot.pause()
        before, top = shown.current, drawn(shown, 12)[1:]
        shown.show(numbers(*range(-20, 1000)))
        await pilot.pause()
        assert shown.current == before
        assert drawn(shown, 12)[1:] == top


async def test_low_rank_columns_are_hidden_if_narrow() -> None:
    async with Host(table()).run_test(size=(120, 6)) as pilot:
        shown = pilot.app.query_one(LiveTable)
        shown.show(numbers(1))
        await pilot.pause()
        assert "Rare" in drawn(shown, 1)[0]
        await pilot.resize_terminal(40, 6)
        await pilot.pause()
        assert "Rare" not in drawn(shown, 1)[0]
        assert all(len(line) <= 40 for line in drawn(shown, 3))


async def test_marks_are_kept_by_key() -> None:
    async with Host(table()).run_test(size=(60, 12)) as pilot:
        shown = pilot.app.query_one(LiveTable)
        shown.focus()
        shown.show(numbers(1, 2, 3))
        await pilot.press("space", "space")
        assert shown.marked == {1, 2}
        shown.show(numbers(0, 1, 2, 3))
        assert [line.startswith("✓") for line in drawn(shown, 5)[1:]] == [False, True, True, False]
        shown.clear_marks()
        assert shown.marked == set()


async def test_control_characters_are_replaced() -> None:
    async with Host(table()).run_test(size=(60, 5)) as pilot:
        shown = pilot.app.query_one(LiveTable)
        shown.show([(1, "\x1b[31mred\x07\n\t|")])
        await pilot.pause()
        text = "".join(drawn(shown, 5))
        assert text.isprintable()
        assert "red" in text


@given(st.text(max_size=40), st.integers(0, 30), st.booleans())
def test_cell_has_exactly_its_width(text: str, room: int, right: bool) -> None:
    from rich.cells import cell_len
    from rich.style import Style as RichStyle

    from nomnom_tui.text.styles import Style
    from nomnom_tui.widgets.table import _fit

    class Plain:
        def __getitem__(self, _: Style) -> RichStyle:
            return RichStyle()

    segments = _fit([(text, Style.PLAIN)], room, right, RichStyle(), Plain())  # pyright: ignore[reportArgumentType]
    assert sum(cell_len(segment.text) for segment in segments) == room


def line(text: str, component: str = "api", level: str = "info", at: int = 0, **fields: object) -> LogLine:
    moment = datetime(2024, 1, 1, tzinfo=UTC) + timedelta(seconds=at)
    return LogLine(component, f"{component}-1", moment, level, text, fields)


async def test_log_lines_are_filtered_and_found() -> None:
    async with Host(LogPane()).run_test(size=(80, 10)) as pilot:
        pane = pilot.app.query_one(LogPane)
        pane.append([line("one"), line("two", "worker", "error"), line("three", level="debug"), line("four", "worker")])
        pane.set_filter(LogFilter(level="info"))
        assert [entry.line.text for entry in pane.shown] == ["one", "two", "four"]
        pane.set_filter(LogFilter(components=frozenset({"worker"}), pattern=re.compile("o")))
        assert [entry.line.text for entry in pane.shown] == ["two", "four"]
        pane.append([line("other", "worker"), line("nothing", "api")])
        assert [entry.line.text for entry in pane.shown] == ["two", "four", "other"]
        pane.set_filter(LogFilter())
        assert len(pane.shown) == pane.total == 6
        pane.find(re.compile("f.ur"))
        assert pane.find_next(-1)
        assert pane.shown[pane._cursor].line.text == "four"
        pane.find(re.compile("absent"))
        assert not pane.find_next(1)


async def test_number_of_log_lines_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_pane, "KEPT", 100)
    monkeypatch.setattr(log_pane, "_SLACK", 10)
    async with Host(LogPane()).run_test(size=(80, 10)) as pilot:
        pane = pilot.app.query_one(LogPane)
        pane.set_filter(LogFilter(pattern=re.compile("[05]$")))
        for at in range(50):
            pane.append([line(f"text {10 * at + each}") for each in range(10)])
        assert pane.total <= 110
        assert [entry.line.text for entry in pane.shown][-1] == "text 495"
        assert pane.shown[0].serial >= 390
        pane.set_wrap(True)
        pane.append([line("text " + "long " * 60 + "0") for _ in range(60)])
        assert pane.total <= 110
        assert pane._tops[-1] == pane.virtual_size.height


async def test_moving_up_stops_following_and_the_end_resumes_it() -> None:
    async with Host(LogPane()).run_test(size=(80, 10)) as pilot:
        pane = pilot.app.query_one(LogPane)
        pane.focus()
        pane.append([line(f"text {at}") for at in range(50)])
        await pilot.pause()
        assert "text 49" in drawn(pane, 10)[-1]
        await pilot.press("up", "up")
        assert not pane.follow
        top = drawn(pane, 10)
        pane.append([line("later")])
        await pilot.pause()
        assert drawn(pane, 10) == top
        await pilot.press("G")
        assert pane.follow
        await pilot.pause()
        assert "later" in drawn(pane, 10)[-1]


async def test_wrapped_line_is_complete() -> None:
    async with Host(LogPane()).run_test(size=(40, 12)) as pilot:
        pane = pilot.app.query_one(LogPane)
        text = "x" * 90 + "end"
        pane.append([line(text)])
        await pilot.pause()
        assert not any("end" in each for each in drawn(pane, 12))
        pane.set_wrap(True)
        await pilot.pause()
        assert "".join(drawn(pane, 12)).endswith("end")


def commands() -> list[Command]:
    return [
        Command("overview", "the pipeline", lambda _: None),
        Command("scale", "scale by hand", lambda _: None, "N", lambda _: ["auto", "all"]),
        Command("quit", "leave", lambda _: None, aliases=("q", "exit")),
    ]


def test_commands_are_completed_and_found() -> None:
    assert [each.text for each in completions("", commands())] == ["overview", "quit", "scale "]
    assert [each.text for each in completions("sc", commands())] == ["scale "]
    assert [each.text for each in completions("scale al", commands())] == ["scale all"]
    assert completions("nonsense", commands()) == []
    known = commands()
    assert find("q", known) is known[2]
    assert find("ov", known) is known[0]
    assert find("nonsense", known) is None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "–"), (0.0004, "0.4ms"), (0.25, "250ms"), (1, "1s"), (3.14, "3.1s"), (59.4, "59.4s"), (60, "1m"),
     (61, "1m 1s"), (3600, "1h"), (3725, "1h 2m"), (90000, "1d 1h"), (86400 * 400, "400d")],
)  # fmt: skip
def test_durations(seconds: float | None, text: str) -> None:
    assert figures.duration(seconds) == text


@given(st.floats(min_value=0, max_value=1e15, allow_nan=False))
def test_short_counts_are_short(number: float) -> None:
    assert len(figures.short_count(number)) <= 5


@given(st.lists(st.floats(min_value=0, max_value=1e9, allow_nan=False), max_size=50), st.integers(1, 40))
def test_a_sparkline_has_exactly_its_width(values: list[float], width: int) -> None:
    assert len(sparkline(values, width)) == width


def test_settings_file_is_read_and_its_errors_reported(tmp_path: Path) -> None:
    path = tmp_path / "tui.toml"
    assert read_preferences(path).problem is None
    path.write_text('theme = "light"\n[keys]\n"app.help" = "f2"\n')
    read = read_preferences(path)
    assert (read.theme, read.keys, read.problem) == ("light", {"app.help": "f2"}, None)
    path.write_text('[keys]\n"app.help" = 3\n"app.quit" = "ctrl+x"\n')
    read = read_preferences(path)
    assert read.keys == {"app.quit": "ctrl+x"}
    assert "app.help" in str(read.problem)
    path.write_text("theme = ")
    assert "cannot read" in str(read_preferences(path).problem)
    path.write_text('colour = "red"')
    assert "unknown setting colour" in str(read_preferences(path).problem)


async def test_app_works_without_an_environment(tmp_path: Path) -> None:
    app = NomnomApp(Session(), read_preferences(tmp_path / "none.toml"))
    async with app.run_test(size=(100, 24)) as pilot:
        await until(lambda: app.heartbeat.problem is not None)
        await pilot.press("8")
        await pilot.pause()
        await pilot.press("6", "2", "1", "escape")
        await pilot.pause()
        assert "no environment selected" in str(app.heartbeat.problem)


@pytest.mark.parametrize("instance", ["w", "worker-12345678901"])
@pytest.mark.parametrize("text", ["plain", "ü漢字", "escape \x1b and tab\t"])
def test_log_line_width_equals_drawn_width(instance: str, text: str) -> None:
    for at in (datetime.now(UTC), None):
        line = LogLine("worker", instance, at, "error", text, {"count": 1, "name": "ß漢"})
        assert log_pane._width(line) == sum(cell_len(each) for each, _ in LogPane()._pieces(line))
