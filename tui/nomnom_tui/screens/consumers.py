"""Consumers: all that JetStream says of each, live; pausing one, and letting it go on."""

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

from nomnom_tui.app.changes import Change
from nomnom_tui.app.commands import Command
from nomnom_tui.app.view import View
from nomnom_tui.text import figures
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
_EVERY = 2.0
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_FOREVER = timedelta(days=365)
"""A pause longer than this was meant to have no end."""

Key = tuple[str, str]
Reading = tuple[datetime, int, int, int]
"""When, unprocessed, outstanding acks, redelivered."""


class ConsumersView(View):
    """A line for each consumer of each stream, as ``nats consumer report`` has it; everything about one below."""

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
    ConsumersView #facts { width: 1fr; }
    ConsumersView #plot-panel { width: 2fr; }
    ConsumersView #legend { height: 1; padding: 0 1; }
    ConsumersView.-narrow #plot-panel { display: none; }
    """

    def __init__(self) -> None:
        super().__init__()
        self._meter = RateMeter()
        self._rates: dict[Key, float | None] = {}
        self._whole: ConsumerReport | None = None
        self._readings: dict[Key, deque[Reading]] = {}
        self._plot: TimePlot | None = None
        self._table: LiveTable[ConsumerReport] = LiveTable(
            self._columns(), key=key, id="table", empty="no consumer: nomnom setup makes the workers'"
        )
        self._properties = PropertyTable(id="about")

    def content(self) -> ComposeResult:
        """Banner, consumers, what is known of one, and with room its last minutes."""
        yield Static("", id="banner")
        yield Panel("Consumers", self._table, id="consumers", awaits="asking JetStream")
        with Horizontal(id="below"):
            yield Panel("About it", self._properties, id="facts")
            yield Panel("Last minutes", Static(id="legend"), id="plot-panel")

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
        """Reports every two seconds; the remaining time of a pause is counted down with them."""
        self._table.focus()
        self.subscribe("consumers", _EVERY, self._load, self._show, self.query_one("#consumers", Panel))
        self.run_worker(self._add_plot(), name="plot")

    def environment_changed(self) -> None:
        """Nothing of the other environment's consumers stays."""
        self._meter.clear()
        self._rates, self._readings = {}, {}
        self._table.show([])
        self._properties.tell([])
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
        # nats-server tells some of a consumer (its host's version, for one) only to who asks for this consumer.
        known = row is not None and any(key(each) == key(row) for each in found)
        return found, await jetstream.consumer(row.stream_name, row.name) if row is not None and known else None

    def _show(self, found: tuple[list[ConsumerReport], ConsumerReport | None]) -> None:
        reports, self._whole = found
        now = figures.present()
        for each in reports:
            self._rates[key(each)] = self._meter.read(key(each), each.delivered.consumer_seq, each.ts or now)
            readings = self._readings.setdefault(key(each), deque(maxlen=_KEPT))
            readings.append((now, each.num_pending, each.num_ack_pending, each.num_redelivered))
        self._table.show(reports)
        self._warn(reports)
        self._tell()

    def _warn(self, reports: Iterable[ConsumerReport]) -> None:
        """A pause is loud: who, how long still, and the key that ends it."""
        banner = self.query_one("#banner", Static)
        paused = [each for each in reports if each.paused]
        banner.display = bool(paused)
        if paused:
            banner.update(
                content(
                    *(
                        f"‖ {each.name} OF {each.stream_name} IS PAUSED {remaining(each)}: nothing is delivered; "
                        "p resumes it"
                        for each in paused
                    )
                )
            )

    @on(LiveTable.Highlighted, "#table")
    def _other(self, event: LiveTable.Highlighted) -> None:
        self._tell()
        if event.row is not None and (self._whole is None or key(self._whole) != key(event.row)):
            self._feeds["consumers"].refresh()

    def _tell(self) -> None:
        from nomnom_control.session.jetstream.consumers import consumer_properties

        row = self._table.current
        whole = self._whole if row is not None and self._whole is not None and key(self._whole) == key(row) else row
        self._properties.tell([] if whole is None else consumer_properties(whole))
        name = "About it" if row is None else f"{row.stream_name} › {row.name}"
        self.query_one("#facts", Panel).retitle(name)
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
        """To the streams."""
        self.nomnom.action_go("streams")

    # Pausing

    def action_pause(self) -> None:
        """Pause the consumer for a time that is asked for, or let it go on."""
        row = self._table.current
        if row is None:
            return
        if row.paused:
            self._resume(row)
            return
        form = FormDialog(
            f"Pause {row.name} of {row.stream_name}",
            [Field("time", "For", "10m", "30s, 10m, 2h, 1d; empty: until it is resumed", _time)],
            lambda values: (
                ("Nothing is delivered to the workers; messages go on coming in.", Style.MUTED),
                [("$ ", Style.MUTED), (self._pause_command(row, parse_time(values["time"])), Style.ACCENT)],
            ),
            "Pause",
        )
        self.nomnom.push_screen(form, lambda values: self._pause(row, parse_time(values["time"])) if values else None)

    def _pause_command(self, row: ConsumerReport, seconds: float | None) -> str:
        limit = "" if seconds is None else f" --for {seconds:g}"
        return self.session.command(f"consumer pause {row.name} --stream {row.stream_name}{limit}")

    def _pause(self, row: ConsumerReport, seconds: float | None) -> None:
        async def pause() -> None:
            pipeline = await self.session.pipeline()
            # From the server's clock on, which counts: ours may be minutes off.
            now = (await pipeline.jetstream.consumer(row.stream_name, row.name)).ts or datetime.now(UTC)
            until = None if seconds is None else now + timedelta(seconds=seconds)
            await pipeline.jetstream.pause(row.stream_name, row.name, until)

        told = "until it is resumed" if seconds is None else f"for {figures.duration(seconds)}"
        self.nomnom.perform(
            Change(
                f"Pause {row.name} of {row.stream_name} {told}",
                self._pause_command(row, seconds),
                act=pause,
                told=f"{row.name} is paused {told}",
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
                told=f"{row.name} delivers again",
            )
        )

    def commands(self) -> Iterable[Command]:
        """``pause-for TIME``, typed."""
        return (Command("pause-for", "pause the consumer", self._pause_typed, "TIME", lambda _: ["30s", "10m", "2h"]),)

    def _pause_typed(self, text: str) -> None:
        row = self._table.current
        if (problem := _time(text)) is not None:
            self.nomnom.notify(problem, severity="warning")
        elif row is not None:
            self._pause(row, parse_time(text))


def key(report: ConsumerReport) -> Key:
    """What tells a consumer from all others."""
    return report.stream_name, report.name


def remaining(report: ConsumerReport) -> str:
    """How long a pause still lasts, and until when."""
    seconds = report.pause_remaining / 1e9
    if seconds > _FOREVER.total_seconds():
        return "until it is resumed"
    return f"for another {figures.duration(seconds)} (until {figures.clock(report.paused_until)})"


def parse_time(text: str) -> float | None:
    """``90s``, ``10m``, ``2h``, ``1d`` in seconds; a plain number is seconds, nothing is None."""
    text = text.strip()
    if not text:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd]?)", text)
    if found is None:
        raise ValueError(text)
    return float(found[1]) * _UNITS[found[2] or "s"]


def _time(text: str) -> str | None:
    try:
        seconds = parse_time(text)
    except ValueError:
        return "a number and s, m, h or d: 30s, 10m, 2h"
    return None if seconds is None or 1 <= seconds <= _FOREVER.total_seconds() else "from 1s to 365d"


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
    return ("nobody pulls", Style.WARNING if report.lag else Style.MUTED)


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
