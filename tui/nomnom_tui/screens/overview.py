"""Overview: the pipeline as it flows, and what needs attention first."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.widgets import Static

from nomnom_control.environments import WORKER, Component, Health
from nomnom_tui.app.alerts import Alert, alerts
from nomnom_tui.app.heartbeat import Heartbeat
from nomnom_tui.app.view import View
from nomnom_tui.text import figures
from nomnom_tui.text.styles import MARKS, Line, Style, content
from nomnom_tui.widgets.panel import Panel
from nomnom_tui.widgets.pipeline_diagram import Current, Flow, Node, find
from nomnom_tui.widgets.table import Column, LiveTable

if TYPE_CHECKING:
    from nomnom_control.session.overview import Overview, Rates
    from nomnom_tui.widgets.plot import TimePlot

_EVERY = 1.0
_SPAN = 600.0


@dataclass(frozen=True, slots=True)
class Moment:
    """The figures of one moment."""

    at: datetime
    rates: Rates | None
    lag: int | None
    oldest: float | None
    dead: int | None

    @property
    def accepted(self) -> float | None:
        """Messages that came in, a second."""
        return self.rates.accepted if self.rates else None

    @property
    def processed(self) -> float | None:
        """Messages that were answered, a second."""
        return self.rates.processed if self.rates else None

    @property
    def errors(self) -> float | None:
        """Share of the answered that became dead letters."""
        return (self.rates.error_share or 0.0) if self.rates else None


class OverviewView(View):
    """The drawing, the concerns, and the figures of the last minutes."""

    CRUMB = "Overview"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("a", "attend", "Go to the first concern", show=False, id="overview.attend")
    ]
    DEFAULT_CSS = """
    OverviewView #flow { height: auto; }
    OverviewView #attention { height: 5; }
    OverviewView.-high #attention { height: 8; }
    OverviewView #minutes { height: 1fr; min-height: 6; }
    OverviewView.-high #minutes { height: 6; }
    OverviewView #lines { padding: 0 1; height: auto; }
    OverviewView #plots { height: 1fr; }
    OverviewView.-low #plots { display: none; }
    OverviewView.-narrow #backlog { display: none; }
    OverviewView .legend { height: 1; padding: 0 1; }
    """

    def __init__(self) -> None:
        super().__init__()
        self._alerts: LiveTable[Alert] = LiveTable(
            [
                Column("", _mark, 2),
                Column("", lambda each: each.text, 40, share=1),
                Column("", self._way, 18),
            ],
            key=lambda each: each.text,
            empty="✓ nothing needs attention",
            header=False,
            opens="Look into it",
        )
        self._moments: deque[Moment] = deque(maxlen=int(_SPAN / _EVERY))
        self._last: Overview | None = None
        self._plots: tuple[TimePlot, TimePlot] | None = None

    def content(self) -> ComposeResult:
        """Flow, attention, lines; with room the plots."""
        yield Panel("Flow", Flow(id="drawing"), id="flow", awaits="connecting")
        yield Panel("Needs attention", self._alerts, id="attention")
        yield Panel("Now, and the minutes before", Static(id="lines"), id="minutes")
        with Horizontal(id="plots"):
            yield Panel("Messages a second", Static(classes="legend"), id="throughput")
            yield Panel("Backlog", Static(classes="legend"), id="backlog")

    def begin(self) -> None:
        """The figures each second; health comes with the app's pulse."""
        self._alerts.focus()
        self.subscribe("overview", _EVERY, self._load, self._show, self.query_one("#flow", Panel))
        self.nomnom.heartbeat_signal.subscribe(self, self._beat, immediate=True)
        self._draw(self.nomnom.heartbeat)
        self.run_worker(self._add_plots(), name="plot")

    def environment_changed(self) -> None:
        """Nothing of the other environment stays."""
        self._moments.clear()
        self._last = None
        self._alerts.show([])
        self.query_one("#lines", Static).update("")

    async def _add_plots(self) -> None:
        await self.nomnom.import_later("nomnom_tui.widgets.plot")
        from nomnom_tui.widgets.plot import TimePlot

        self._plots = (TimePlot(), TimePlot())
        for name, plot in zip(("throughput", "backlog"), self._plots, strict=True):
            self.query_one(f"#{name}", Panel).mount(plot)

    async def _load(self) -> Overview:
        pipeline = await self.session.pipeline()
        return await pipeline.overview()

    def _show(self, overview: Overview) -> None:
        from nomnom_control.session.overview import rates

        before, self._last = self._last, overview
        flow = None if before is None else rates(before, overview)
        self._moments.append(
            Moment(overview.at, flow, overview.lag, overview.oldest, overview.dead_letters),
        )
        self._draw(self.nomnom.heartbeat)

    def _beat(self, heartbeat: Heartbeat) -> None:
        if self.is_attached and self.seen:
            self._draw(heartbeat)

    # Drawing

    def _draw(self, heartbeat: Heartbeat) -> None:
        overview = self._last
        self._alerts.show(alerts(heartbeat, overview))
        self._title(heartbeat)
        if overview is None:
            return
        latest = self._moments[-1] if self._moments else None
        self.query_one(Flow).show(_current(heartbeat, overview, latest.rates if latest else None))
        self._draw_lines()
        self._draw_plots()

    def _title(self, heartbeat: Heartbeat) -> None:
        beside: list[tuple[str, Style]] = []
        for each in heartbeat.components:
            mark, style = MARKS[each.health]
            beside += [(f" {mark} ", style), (f"{each.name} ", Style.MUTED)]
        self.query_one("#flow", Panel).retitle("Flow", *beside)

    def _draw_lines(self) -> None:
        width = max(10, self.query_one("#lines").size.width - 27)
        lines = (
            ("accepted", "accepted", figures.rate, Style.HUE_1),
            ("processed", "processed", figures.rate, Style.HUE_3),
            ("lag", "lag", figures.count, Style.HUE_4),
            ("oldest waits", "oldest", figures.duration, Style.HUE_2),
            ("errors", "errors", _percent, Style.HUE_5),
        )
        self.query_one("#lines", Static).update(
            content(
                *(
                    self._line(title, [getattr(each, name) for each in self._moments], render, style, width)
                    for title, name, render, style in lines
                )
            )
        )

    @staticmethod
    def _line(name: str, values: list[float | None], render: Callable[..., str], style: Style, width: int) -> Line:
        now = values[-1] if values else None
        return [
            (f"{name:<13}", Style.MUTED),
            ((figures.NONE if now is None else render(now)).rjust(10), Style.STRONG),
            ("  ", Style.PLAIN),
            (figures.sparkline([each or 0.0 for each in values], width), style),
        ]

    def _draw_plots(self) -> None:
        if self._plots is None or not self.has_class("-high"):
            return
        from nomnom_tui.widgets.plot import Series

        throughput, backlog = self._plots
        moments = list(self._moments)
        throughput.show(
            [
                Series("accepted", _points(moments, "accepted"), Style.HUE_1),
                Series(
                    "processed",
                    _points(moments, "processed"),
                    Style.HUE_3,
                    marker="•",
                ),
            ]
        )
        backlog.show(
            [
                Series("lag", _points(moments, "lag"), Style.HUE_4),
                Series("dead letters", _points(moments, "dead"), Style.HUE_5, marker="•", right=True),
            ]
        )
        for plot in self._plots:
            if plot.parent is not None:
                plot.parent.query_one(".legend", Static).update(plot.legend_content())

    # Ways

    def _way(self, alert: Alert) -> Line:
        place = next((each for each in self.nomnom.places if each.name == alert.place), None)
        return (
            "" if place is None else [("→ ", Style.FAINT), (place.key, Style.ACCENT), (f" {place.title}", Style.MUTED)]
        )

    @on(LiveTable.Chosen)
    def action_attend(self) -> None:
        """Go where the concern under the cursor leads."""
        alert = self._alerts.current
        if alert is not None and any(each.name == alert.place for each in self.nomnom.places):
            self.nomnom.action_go(alert.place)


def _mark(alert: Alert) -> Line:
    mark, style = MARKS[alert.grade]
    return (mark, style)


def _percent(share: float) -> str:
    return f"{share:.1%}"


def _points(moments: Sequence[Moment], name: str) -> list[tuple[float, float]]:
    if not moments:
        return []
    now = moments[-1].at
    pairs = (((now - each.at).total_seconds(), getattr(each, name)) for each in moments)
    return [(ago, float(found)) for ago, found in pairs if found is not None]


def _current(heartbeat: Heartbeat, overview: Overview, rates: Rates | None) -> Current:
    components = {each.name: each for each in heartbeat.components}
    worker, scaling = components.get(WORKER), heartbeat.scaling
    accepted, processed = (rates.accepted, rates.processed) if rates else (None, None)
    stream, consumer = overview.stream, overview.consumer
    held = consumer.num_ack_pending if consumer else 0
    dead = overview.dead_letters
    failing = f"   {figures.rate(rates.failed)}" if rates and rates.failed else ""
    return Current(
        (
            Node("api", components.get("api"), (_short(components.get("api")),)),
            Node(
                stream.name if stream else "stream",
                find(components, "nats"),
                (
                    (f"{figures.count(stream.state.messages)} waiting" if stream else figures.NONE, Style.PLAIN),
                    (f"oldest {figures.duration(overview.oldest)}" if overview.oldest else "", Style.MUTED),
                ),
            ),
            Node(
                f"workers {scaling.ready}/{scaling.desired}" if scaling else "workers",
                worker,
                (
                    (f"{figures.count(held)} in hand", Style.PLAIN),
                    ("‖ paused" if scaling and scaling.paused else "", Style.WARNING),
                ),
            ),
            Node(
                "PostgreSQL",
                find(components, "postgres", "postgresql"),
                _written(overview),
            ),
        ),
        (figures.rate(accepted), figures.rate(processed), figures.rate(processed)),
        (bool(accepted), bool(processed), bool(processed)),
        (
            ("DLQ ", Style.STRONG),
            (figures.count(dead), Style.BAD if dead else Style.MUTED),
            (failing, Style.BAD),
        ),
    )


def _short(component: Component | None) -> tuple[str, Style]:
    if component is None:
        return ("", Style.MUTED)
    if component.health is Health.HEALTHY:
        return (f"{component.ready} ready", Style.MUTED)
    return (component.health.value, Style.WARNING)


def _written(overview: Overview) -> tuple[tuple[str, Style], ...]:
    from nomnom.envelope import Status

    completed = overview.count(Status.COMPLETED)
    failed = overview.count(Status.FAILED)
    return (
        (f"{figures.short_count(completed.messages if completed else None)} complete", Style.PLAIN),
        (f"{figures.short_count(failed.messages)} to retry" if failed and failed.messages else "", Style.WARNING),
    )
