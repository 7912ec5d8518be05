"""Consumers: live reports of each, pause and resume."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.widgets import Static

from nomnom.presentation import figures
from nomnom_tui.app.changes import Change
from nomnom_tui.app.commands import Command
from nomnom_tui.app.view import View
from nomnom_tui.text.rates import RateMeter
from nomnom_tui.text.styles import Line, Style, content
from nomnom_tui.widgets.dialogs import Field, FormDialog
from nomnom_tui.widgets.panel import Panel
from nomnom_tui.widgets.properties import PropertyTable
from nomnom_tui.widgets.table import Column, LiveTable

if TYPE_CHECKING:
    from nomnom.inspection.jetstream import ConsumerReport
    from nomnom_tui.widgets.plot import TimePlot

_KEPT = 600
_INTERVAL = 2.0
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_FOREVER = timedelta(days=365)
"""A longer pause counts as unlimited."""

Key = tuple[str, str]
Reading = tuple[datetime, int, int, int]
"""Time, unprocessed messages, outstanding acks, redeliveries."""


class ConsumersView(View):
    """One row per consumer of every stream, like ``nats consumer report``; below it the details of one."""

    CRUMB = "Consumers"
    CHANGES = frozenset({"pause"})
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("p", "pause", "Pause/resume", id="consumers.pause"),
        Binding("s", "streams", "Streams", id="consumers.streams"),
    ]
    DEFAULT_CSS = """
    ConsumersView #banner { height: auto; background: $warning; color: $background; text-style: bold; padding: 0 1; }
    ConsumersView #banner { display: none; }
    ConsumersView #consumers { height: auto; max-height: 40%; }
    ConsumersView #consumers LiveTable { height: auto; min-height: 2; max-height: 14; }
    ConsumersView #details { width: 1fr; }
    ConsumersView #plot-panel { width: 2fr; }
    ConsumersView #legend { height: 1; padding: 0 1; }
    ConsumersView.-narrow #plot-panel { display: none; }
    """

    def __init__(self) -> None:
        super().__init__()
        self._meter = RateMeter()
        self._rates: dict[Key, float | None] = {}
        self._detailed: ConsumerReport | None = None
        self._readings: dict[Key, deque[Reading]] = {}
        self._plot: TimePlot | None = None
        self._table: LiveTable[ConsumerReport] = LiveTable(
            self._columns(), key=key, id="table", empty="no consumers; run nomnom setup"
        )
        self._properties = PropertyTable(id="about")

    def content(self) -> ComposeResult:
        """Banner, consumers, the details of one and, if wide enough, a plot."""
        yield Static("", id="banner")
        yield Panel("Consumers", self._table, id="consumers", loading_text="loading consumers")
        with Horizontal(id="below"):
            yield Panel("Details", self._properties, id="details")
            yield Panel("Recent history", Static(id="legend"), id="plot-panel")

    def _columns(self) -> list[Column[ConsumerReport]]:
        return [
            Column("Consumer", _name, 10, share=1),
            Column("Stream", lambda each: each.stream_name, 11),
            Column("State", _state, 15),
            Column("Unprocessed", lambda each: figures.count(each.num_pending), 11, right=True),
            Column("Ack pending", lambda each: figures.count(each.num_ack_pending), 11, right=True),
            Column("Delivered", lambda each: figures.rate(self._rates.get(key(each))), 9, right=True, rank=1),
            Column("Redelivered", _redelivered, 11, right=True, rank=2),
            Column("Ack floor", lambda each: figures.count(each.ack_floor.stream_seq), 10, right=True, rank=3),
            Column("Waiting", lambda each: figures.count(each.num_waiting), 7, right=True, rank=4),
            Column("Ack wait", _ack_wait, 8, right=True, rank=5),
            Column("Ack policy", lambda each: str(each.config.get("ack_policy", "")), 10, rank=6),
            Column("Mode", lambda each: "pull" if each.pull else "push", 4, rank=6),
            Column("API", _level, 3, right=True, rank=8),
            Column("Cluster", _leader, 11, rank=7),
        ]

    def begin(self) -> None:
        """Load the reports every two seconds, which also updates the remaining time of a pause."""
        self._table.focus()
        self.subscribe("consumers", _INTERVAL, self._load, self._show, self.query_one("#consumers", Panel))
        self.run_worker(self._add_plot(), name="plot")

    def environment_changed(self) -> None:
        """Clear the consumers of the previous environment."""
        self._meter.clear()
        self._rates, self._readings = {}, {}
        self._table.show([])
        self._properties.show_properties([])
        self.query_one("#banner", Static).display = False

    async def _add_plot(self) -> None:
        await self.nomnom.import_later("nomnom_tui.widgets.plot")
        from nomnom_tui.widgets.plot import TimePlot

        self._plot = TimePlot(id="plot")
        self.query_one("#plot-panel", Panel).mount(self._plot)
        self.call_after_refresh(self._draw_plot)

    async def _load(self) -> tuple[list[ConsumerReport], ConsumerReport | None]:
        jetstream = (await self.session.pipeline()).jetstream
        found: list[ConsumerReport] = []
        for stream in await jetstream.streams():
            if stream.state.consumer_count:
                found += await jetstream.consumers(stream.name)
        row = self._table.current or next(iter(found), None)
        # Some properties (such as the server version) are only returned for a single consumer.
        known = row is not None and any(key(each) == key(row) for each in found)
        return found, await jetstream.consumer(row.stream_name, row.name) if row is not None and known else None

    def _show(self, found: tuple[list[ConsumerReport], ConsumerReport | None]) -> None:
        reports, self._detailed = found
        now = figures.present()
        for each in reports:
            self._rates[key(each)] = self._meter.read(key(each), each.delivered.consumer_seq, each.ts or now)
            readings = self._readings.setdefault(key(each), deque(maxlen=_KEPT))
            readings.append((now, each.num_pending, each.num_ack_pending, each.num_redelivered))
        self._table.show(reports)
        self._warn(reports)
        self._show_details()

    def _warn(self, reports: Iterable[ConsumerReport]) -> None:
        """Show a banner with the paused consumers, the remaining time, and the key to resume."""
        banner = self.query_one("#banner", Static)
        paused = [each for each in reports if each.paused]
        banner.display = bool(paused)
        if paused:
            banner.update(
                content(
                    *(
                        f"‖ {each.name} ({each.stream_name}) PAUSED {remaining(each)}. Press p to resume."
                        for each in paused
                    )
                )
            )

    @on(LiveTable.Highlighted, "#table")
    def _highlighted(self, event: LiveTable.Highlighted) -> None:
        self._show_details()
        if event.row is not None and (self._detailed is None or key(self._detailed) != key(event.row)):
            self._feeds["consumers"].refresh()

    def _show_details(self) -> None:
        from nomnom_control.session.jetstream.consumers import consumer_properties

        row = self._table.current
        detailed = (
            self._detailed
            if row is not None and self._detailed is not None and key(self._detailed) == key(row)
            else row
        )
        self._properties.show_properties([] if detailed is None else consumer_properties(detailed))
        name = "Details" if row is None else f"{row.stream_name} › {row.name}"
        self.query_one("#details", Panel).retitle(name)
        self._draw_plot()

    def _draw_plot(self) -> None:
        if self._plot is None or not self._plot.is_mounted or not self.has_class("-wide"):
            return
        from nomnom_tui.widgets.plot import Series

        row, now = self._table.current, figures.present()
        readings = [] if row is None else list(self._readings.get(key(row), ()))
        ago = [(now - at).total_seconds() for at, *_ in readings]
        self._plot.show(
            [
                Series(
                    "unprocessed", [(t, float(each[1])) for t, each in zip(ago, readings, strict=True)], Style.HUE_1
                ),
                Series(
                    "outstanding acks",
                    [(t, float(each[2])) for t, each in zip(ago, readings, strict=True)],
                    Style.HUE_4,
                    marker="·",
                ),
            ]
        )
        self.query_one("#legend", Static).update(content(self._plot.legend()))

    def action_streams(self) -> None:
        """Go to the streams."""
        self.nomnom.action_go("streams")

    # Pausing

    def action_pause(self) -> None:
        """Ask for how long to pause the consumer, or resume it."""
        row = self._table.current
        if row is None:
            return
        if row.paused:
            self._resume(row)
            return
        form = FormDialog(
            f"Pause {row.name} of {row.stream_name}",
            [Field("time", "Duration", "10m", "30s, 10m, 2h, 1d; empty: until resumed", _duration_problem)],
            lambda values: (
                ("The workers receive no messages; the API keeps accepting them.", Style.MUTED),
                [("$ ", Style.MUTED), (self._pause_command(row, parse_duration(values["time"])), Style.ACCENT)],
            ),
            "Pause",
        )
        self.nomnom.push_screen(
            form, lambda values: self._pause(row, parse_duration(values["time"])) if values else None
        )

    def _pause_command(self, row: ConsumerReport, seconds: float | None) -> str:
        limit = "" if seconds is None else f" --for {seconds:g}"
        return self.session.command(f"consumer pause {row.name} --stream {row.stream_name}{limit}")

    def _pause(self, row: ConsumerReport, seconds: float | None) -> None:
        async def pause() -> None:
            pipeline = await self.session.pipeline()
            # Relative to the server's clock, which decides; the local one may differ by minutes.
            now = (await pipeline.jetstream.consumer(row.stream_name, row.name)).ts or datetime.now(UTC)
            until = None if seconds is None else now + timedelta(seconds=seconds)
            await pipeline.jetstream.pause(row.stream_name, row.name, until)

        duration = "until resumed" if seconds is None else f"for {figures.duration(seconds)}"
        self.nomnom.perform(
            Change(
                f"Pause {row.name} of {row.stream_name} {duration}",
                self._pause_command(row, seconds),
                act=pause,
                success=f"{row.name} is paused {duration}",
            )
        )

    def _resume(self, row: ConsumerReport) -> None:
        async def resume() -> None:
            await (await self.session.pipeline()).jetstream.resume(row.stream_name, row.name)

        self.nomnom.perform(
            Change(
                f"Resume {row.name} of {row.stream_name}",
                self.session.command(f"consumer resume {row.name} --stream {row.stream_name}"),
                act=resume,
                success=f"{row.name} is resumed",
            )
        )

    def commands(self) -> Iterable[Command]:
        """The ``pause-for TIME`` command."""
        return (
            Command(
                "pause-for", "pause the consumer for a time", self._pause_typed, "TIME", lambda _: ["30s", "10m", "2h"]
            ),
        )

    def _pause_typed(self, text: str) -> None:
        row = self._table.current
        if (problem := _duration_problem(text)) is not None:
            self.nomnom.notify(problem, severity="warning")
        elif row is not None:
            self._pause(row, parse_duration(text))


def key(report: ConsumerReport) -> Key:
    """Return the identity of a consumer."""
    return report.stream_name, report.name


def remaining(report: ConsumerReport) -> str:
    """Describe the end of a pause and the remaining time."""
    seconds = report.pause_remaining / 1e9
    if seconds > _FOREVER.total_seconds():
        return "until resumed"
    return f"until {figures.clock(report.paused_until)} ({figures.duration(seconds)} left)"


def parse_duration(text: str) -> float | None:
    """Parse ``90s``, ``10m``, ``2h``, ``1d`` or plain seconds; None if empty. Raises ValueError."""
    text = text.strip()
    if not text:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd]?)", text)
    if found is None:
        raise ValueError(text)
    return float(found[1]) * _UNITS[found[2] or "s"]


def _duration_problem(text: str) -> str | None:
    try:
        seconds = parse_duration(text)
    except ValueError:
        return "expected a duration such as 30s, 10m, 2h or 1d"
    return (
        None if seconds is None or 1 <= seconds <= _FOREVER.total_seconds() else "expected a duration from 1s to 365d"
    )


def _name(report: ConsumerReport) -> Line:
    if report.paused:
        mark = ("‖ ", Style.WARNING)
    elif report.num_waiting or report.push_bound:
        mark = ("● ", Style.GOOD)
    else:
        mark = ("▲ ", Style.WARNING) if report.lag else ("○ ", Style.MUTED)
    return [mark, (report.name, Style.STRONG)]


def _state(report: ConsumerReport) -> Line:
    if report.paused:
        seconds = report.pause_remaining / 1e9
        left = "" if seconds > _FOREVER.total_seconds() else f" {figures.duration(seconds)}"
        return ("paused" + left, Style.WARNING)
    if report.num_waiting or report.push_bound:
        return "delivering" if report.lag else ("waiting", Style.MUTED)
    return ("no clients", Style.WARNING if report.lag else Style.MUTED)


def _redelivered(report: ConsumerReport) -> Line:
    return (figures.count(report.num_redelivered), Style.WARNING if report.num_redelivered else Style.PLAIN)


def _ack_wait(report: ConsumerReport) -> Line:
    from nomnom_control.session.jetstream.consumers import ack_wait

    return ack_wait(report)


def _leader(report: ConsumerReport) -> Line:
    from nomnom_control.session.jetstream.consumers import leader

    return leader(report) or (figures.NONE, Style.MUTED)


def _level(report: ConsumerReport) -> Line:
    from nomnom_control.session.jetstream.streams import api_level

    return api_level(report.config)
