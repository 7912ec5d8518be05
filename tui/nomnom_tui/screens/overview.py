"""Overview: the state of the pipeline, and its alerts."""

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

from nomnom.presentation import figures
from nomnom_control.environments import WORKER, Component, Health
from nomnom_tui.app.alerts import Alert, alerts
from nomnom_tui.app.heartbeat import Heartbeat
from nomnom_tui.app.view import View
from nomnom_tui.text.sparkline import sparkline
from nomnom_tui.text.styles import MARKS, Line, Style, content
from nomnom_tui.widgets.panel import Panel
from nomnom_tui.widgets.pipeline_diagram import DiagramState, Node, PipelineDiagram, find_component
from nomnom_tui.widgets.table import Column, LiveTable

if TYPE_CHECKING:
    from nomnom_control.session.overview import Overview, Rates
    from nomnom_tui.widgets.plot import TimePlot

_INTERVAL = 1.0
_SPAN = 600.0


@dataclass(frozen=True, slots=True)
class OverviewSample:
    """The figures at one point in time."""

    at: datetime
    rates: Rates | None
    lag: int | None
    oldest: float | None
    dead: int | None

    @property
    def accepted(self) -> float | None:
        """Messages accepted per second."""
        return self.rates.accepted if self.rates else None

    @property
    def processed(self) -> float | None:
        """Messages processed per second."""
        return self.rates.processed if self.rates else None

    @property
    def errors(self) -> float | None:
        """Share of the processed messages that became dead letters."""
        return (self.rates.error_share or 0.0) if self.rates else None


class OverviewView(View):
    """The pipeline diagram, the alerts, and the figures of the last minutes."""

    CRUMB = "Overview"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("a", "attend", "Open the selected alert", show=False, id="overview.attend")
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
                Column("", self._link, 18),
            ],
            key=lambda each: each.text,
            empty="✓ nothing needs attention",
            header=False,
            enter_label="Open",
        )
        self._samples: deque[OverviewSample] = deque(maxlen=int(_SPAN / _INTERVAL))
        self._last: Overview | None = None
        self._plots: tuple[TimePlot, TimePlot] | None = None

    def content(self) -> ComposeResult:
        """The diagram, the alerts, the figures and, if there is room, the plots."""
        yield Panel("Pipeline", PipelineDiagram(id="drawing"), id="flow", loading_text="connecting")
        yield Panel("Needs attention", self._alerts, id="attention")
        yield Panel("Current and recent values", Static(id="lines"), id="minutes")
        with Horizontal(id="plots"):
            yield Panel("Messages per second", Static(classes="legend"), id="throughput")
            yield Panel("Backlog", Static(classes="legend"), id="backlog")

    def begin(self) -> None:
        """Load the figures every second; the health comes with the heartbeat."""
        self._alerts.focus()
        self.subscribe("overview", _INTERVAL, self._load, self._show, self.query_one("#flow", Panel))
        self.nomnom.heartbeat_signal.subscribe(self, self._heartbeat_changed, immediate=True)
        self._draw(self.nomnom.heartbeat)
        self.run_worker(self._add_plots(), name="plot")

    def environment_changed(self) -> None:
        """Clear the data of the previous environment."""
        self._samples.clear()
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
        return await pipeline.overview(self._last)

    def _show(self, overview: Overview) -> None:
        from nomnom_control.session.overview import rates

        previous, self._last = self._last, overview
        current_rates = None if previous is None else rates(previous, overview)
        self._samples.append(
            OverviewSample(overview.at, current_rates, overview.lag, overview.oldest, overview.dead_letters),
        )
        self._draw(self.nomnom.heartbeat)

    def _heartbeat_changed(self, heartbeat: Heartbeat) -> None:
        if self.is_attached and self.is_visible:
            self._draw(heartbeat)

    # Drawing

    def _draw(self, heartbeat: Heartbeat) -> None:
        overview = self._last
        self._alerts.show(alerts(heartbeat, overview))
        self._title(heartbeat)
        if overview is None:
            return
        latest = self._samples[-1] if self._samples else None
        self.query_one(PipelineDiagram).show(_diagram_state(heartbeat, overview, latest.rates if latest else None))
        self._draw_lines()
        self._draw_plots()

    def _title(self, heartbeat: Heartbeat) -> None:
        beside: list[tuple[str, Style]] = []
        for each in heartbeat.components:
            mark, style = MARKS[each.health]
            beside += [(f" {mark} ", style), (f"{each.name} ", Style.MUTED)]
        self.query_one("#flow", Panel).retitle("Pipeline", *beside)

    def _draw_lines(self) -> None:
        width = max(10, self.query_one("#lines").size.width - 27)
        lines = (
            ("accepted", "accepted", figures.rate, Style.HUE_1),
            ("processed", "processed", figures.rate, Style.HUE_3),
            ("lag", "lag", figures.count, Style.HUE_4),
            ("oldest age", "oldest", figures.duration, Style.HUE_2),
            ("error rate", "errors", _percent, Style.HUE_5),
        )
        self.query_one("#lines", Static).update(
            content(
                *(
                    self._line(title, [getattr(each, name) for each in self._samples], render, style, width)
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
            (sparkline([each or 0.0 for each in values], width), style),
        ]

    def _draw_plots(self) -> None:
        if self._plots is None or not self.has_class("-high"):
            return
        from nomnom_tui.widgets.plot import Series

        throughput, backlog = self._plots
        samples = list(self._samples)
        throughput.show(
            [
                Series("accepted", _points(samples, "accepted"), Style.HUE_1),
                Series(
                    "processed",
                    _points(samples, "processed"),
                    Style.HUE_3,
                    marker="•",
                ),
            ]
        )
        backlog.show(
            [
                Series("lag", _points(samples, "lag"), Style.HUE_4),
                Series("dead letters", _points(samples, "dead"), Style.HUE_5, marker="•", right=True),
            ]
        )
        for plot in self._plots:
            if plot.parent is not None:
                plot.parent.query_one(".legend", Static).update(plot.legend_content())

    # Alerts

    def _link(self, alert: Alert) -> Line:
        route = next((each for each in self.nomnom.routes if each.name == alert.route), None)
        return (
            "" if route is None else [("→ ", Style.FAINT), (route.key, Style.ACCENT), (f" {route.title}", Style.MUTED)]
        )

    @on(LiveTable.Chosen)
    def action_attend(self) -> None:
        """Go to the screen of the alert under the cursor."""
        alert = self._alerts.current
        if alert is not None:
            self.nomnom.action_go(alert.route)


def _mark(alert: Alert) -> Line:
    mark, style = MARKS[alert.severity]
    return (mark, style)


def _percent(share: float) -> str:
    return f"{share:.1%}"


def _points(samples: Sequence[OverviewSample], name: str) -> list[tuple[float, float]]:
    if not samples:
        return []
    now = samples[-1].at
    pairs = (((now - each.at).total_seconds(), getattr(each, name)) for each in samples)
    return [(ago, float(found)) for ago, found in pairs if found is not None]


def _diagram_state(heartbeat: Heartbeat, overview: Overview, rates: Rates | None) -> DiagramState:
    components = {each.name: each for each in heartbeat.components}
    worker, scaling = components.get(WORKER), heartbeat.scaling
    accepted, processed = (rates.accepted, rates.processed) if rates else (None, None)
    stream, consumer = overview.stream, overview.consumer
    in_flight = consumer.num_ack_pending if consumer else 0
    dead = overview.dead_letters
    failing = f"   {figures.rate(rates.failed)}" if rates and rates.failed else ""
    return DiagramState(
        (
            Node("API", components.get("api"), (_short(components.get("api")),)),
            Node(
                stream.name if stream else "stream",
                find_component(components, "nats"),
                (
                    (f"{figures.count(stream.state.messages)} in stream" if stream else figures.NONE, Style.PLAIN),
                    (f"oldest {figures.duration(overview.oldest)}" if overview.oldest else "", Style.MUTED),
                ),
            ),
            Node(
                f"workers {scaling.ready}/{scaling.desired}" if scaling else "workers",
                worker,
                (
                    (f"{figures.count(in_flight)} in flight", Style.PLAIN),
                    ("‖ paused" if scaling and scaling.paused else "", Style.WARNING),
                ),
            ),
            Node(
                "PostgreSQL",
                find_component(components, "postgres", "postgresql"),
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
        (f"{figures.short_count(failed.messages)} retrying" if failed and failed.messages else "", Style.WARNING),
    )
