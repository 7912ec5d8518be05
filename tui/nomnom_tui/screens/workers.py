"""Workers: how they scale with the backlog, and why."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.widgets import Static

from nomnom.presentation import figures
from nomnom.presentation.terms import Term
from nomnom.scaling import ScalingError, ScalingPolicy
from nomnom_control.environments import WORKER, Component, Health, Replica, Revision, Scaling
from nomnom_tui.app.changes import Change
from nomnom_tui.app.commands import Command
from nomnom_tui.app.heartbeat import Heartbeat, Sample
from nomnom_tui.app.view import View
from nomnom_tui.screens.history import HistoryView, revision_columns
from nomnom_tui.text.styles import MARKS, Line, Style, content
from nomnom_tui.widgets.dialogs import Field, FormDialog
from nomnom_tui.widgets.panel import Panel
from nomnom_tui.widgets.table import Column, LiveTable

if TYPE_CHECKING:
    from nomnom_control.session.worker_rates import WorkerMeter, WorkerRates
    from nomnom_tui.widgets.plot import TimePlot

_SPAN = 600.0


class WorkersView(View):
    """Lag, desired, actual and ready in one plot; the autoscaling policy and its last decision; each worker."""

    CRUMB = "Workers"
    CHANGES = frozenset({"scale", "step", "policy", "pause", "restart", "rollback"})
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("s", "scale", "Scale", id="workers.scale"),
        Binding("plus,equals_sign", "step(1)", "One more", key_display="+", show=False, id="workers.more"),
        Binding("minus", "step(-1)", "One fewer", key_display="-", show=False, id="workers.less"),
        Binding("p", "pause", "Pause/resume", id="workers.pause"),
        Binding("e", "policy", "Edit policy", id="workers.policy"),
        Binding("R", "restart", "Restart", id="workers.restart"),
        Binding("H", "history", "History", id="workers.history"),
        Binding("u", "rollback", "Roll back", show=False, id="workers.rollback"),
    ]
    DEFAULT_CSS = """
    WorkersView #banner { height: 1; background: $warning; color: $background; text-style: bold; padding: 0 1; }
    WorkersView #banner { display: none; }
    WorkersView #scaling { height: auto; }
    WorkersView #figures { padding: 0 1; height: auto; }
    WorkersView #plot-panel { height: 3fr; }
    WorkersView #legend { height: 1; padding: 0 1; }
    WorkersView #below { height: 2fr; min-height: 5; }
    WorkersView.-high #below { height: 14; }
    WorkersView #workers { width: 3fr; }
    WorkersView #revisions { width: 2fr; }
    WorkersView.-narrow #revisions { display: none; }
    """

    def __init__(self) -> None:
        super().__init__()
        self._replicas: LiveTable[Replica] = LiveTable(
            self._columns(), key=lambda each: each.name, id="replicas", empty="no workers running"
        )
        self._revisions: LiveTable[Revision] = LiveTable(
            revision_columns(), key=lambda each: each.number, id="recent", empty="no revisions yet"
        )
        self._scaling: Scaling | None = None
        self._plot: TimePlot | None = None
        self._rates: Mapping[str, WorkerRates] = {}
        self._meter: WorkerMeter | None = None

    def content(self) -> ComposeResult:
        """Banner, figures, plot, workers and, if wide enough, the revisions."""
        yield Static("", id="banner")
        yield Panel("Scaling", Static(id="figures"), id="scaling", loading_text="loading scaling")
        yield Panel("Recent history", Static(id="legend"), id="plot-panel")
        with Horizontal(id="below"):
            yield Panel(
                "Workers",
                self._replicas,
                id="workers",
            )
            yield Panel(
                "Revisions",
                self._revisions,
                id="revisions",
            )

    def _columns(self) -> list[Column[Replica]]:
        return [
            Column("Worker", _name, 16, share=1),
            Column("Uptime", lambda each: figures.age(each.started_at), 7, right=True),
            Column("Rate", lambda each: self._rate(each, "rate"), 9, right=True),
            Column("Batch", lambda each: self._rate(each, "batch"), 6, right=True),
            Column("Errors", lambda each: self._rate(each, "errors"), 7, right=True),
            Column("Restarts", lambda each: figures.count(each.restarts), 8, right=True, rank=1),
            Column("State", lambda each: (each.detail or each.state, Style.MUTED), 10, share=2, rank=2),
        ]

    def _rate(self, replica: Replica, what: str) -> Line:
        found = self._rates.get(replica.name)
        if found is None:
            return (figures.NONE, Style.MUTED)
        match what:
            case "rate":
                return figures.rate(found.rate)
            case "batch":
                return figures.short_count(found.batch)
            case _:
                return (figures.count(found.errors), Style.BAD if found.errors else Style.PLAIN)

    def begin(self) -> None:
        """Load the scaling every second, the workers' metrics every two, and the revisions every ten."""
        self._replicas.focus()
        self.subscribe("scaling", 1.0, self._load, self._show, self._panel("scaling"))
        self.subscribe("rates", 2.0, self._load_rates, self._show_rates)
        self.subscribe(
            "revisions",
            10.0,
            lambda: self.environment.history(WORKER),
            self._revisions.show,
            self._panel("revisions"),
        )
        self.nomnom.heartbeat_signal.subscribe(self, self._heartbeat_changed, immediate=True)
        self._heartbeat_changed(self.nomnom.heartbeat)
        self.run_worker(self._add_plot(), name="plot")

    def environment_changed(self) -> None:
        """Clear the workers of the previous environment."""
        self._scaling, self._rates, self._meter = None, {}, None
        self._replicas.show([])
        self.query_one("#figures", Static).update("")

    def _panel(self, name: str) -> Panel:
        return self.query_one(f"#{name}", Panel)

    async def _add_plot(self) -> None:
        await self.nomnom.import_later("nomnom_tui.widgets.plot")
        from nomnom_tui.widgets.plot import TimePlot

        self._plot = TimePlot(id="plot")
        self._panel("plot-panel").mount(self._plot)
        self.call_after_refresh(self._draw_plot)

    # Display

    def _heartbeat_changed(self, heartbeat: Heartbeat) -> None:
        worker = next((each for each in heartbeat.components if each.name == WORKER), None)
        if worker is not None and self.is_attached:
            self._show_component(worker)

    def _show_component(self, worker: Component) -> None:
        mark, style = MARKS[worker.health]
        self._replicas.show(worker.replicas)
        state = f"{worker.health.value}  {worker.detail}".strip()
        self._panel("workers").retitle("Workers", (f" {mark} ", style), (f"{state} ", Style.MUTED))

    def _show(self, scaling: Scaling) -> None:
        self._scaling = scaling
        policy = scaling.policy
        banner = self.query_one("#banner", Static)
        banner.display = scaling.paused
        if scaling.paused:
            banner.update(
                f"‖ AUTOSCALING PAUSED: pinned at {figures.counted(scaling.desired, 'worker')}. Press p to resume."
            )
        ready = Style.GOOD if scaling.ready >= scaling.desired else Style.WARNING
        self.query_one("#figures", Static).update(
            content(
                [
                    (f"{Term.STREAM_LAG} ", Style.MUTED),
                    (figures.count(scaling.lag), Style.STRONG),
                    ("    desired ", Style.MUTED),
                    (figures.count(scaling.desired), Style.STRONG),
                    ("    actual ", Style.MUTED),
                    (figures.count(scaling.actual), Style.STRONG),
                    ("    ready ", Style.MUTED),
                    (figures.count(scaling.ready), ready),
                    ("    ", Style.PLAIN),
                    (
                        "manual override" if scaling.paused else "automatic",
                        Style.WARNING if scaling.paused else Style.ACCENT,
                    ),
                ],
                [
                    ("policy    ", Style.MUTED),
                    (f"⌈lag / {figures.count(policy.threshold)}⌉", Style.PLAIN),
                    (" between ", Style.MUTED),
                    (f"{policy.minimum} and {policy.maximum}", Style.PLAIN),
                    (", cooldown ", Style.MUTED),
                    (figures.duration(policy.cooldown), Style.PLAIN),
                    (", polled every ", Style.MUTED),
                    (figures.duration(policy.polling), Style.PLAIN),
                ],
                [
                    ("decision  ", Style.MUTED),
                    (f"{figures.clock(scaling.decided_at)} ", Style.MUTED),
                    (scaling.decision or "none yet", Style.PLAIN),
                ],
            )
        )
        self._draw_plot()

    def _draw_plot(self) -> None:
        if self._plot is None or not self._plot.is_mounted:
            return
        from nomnom_tui.widgets.plot import Series

        samples = list(self.nomnom.history)
        now = figures.present()
        self._plot.show(
            [
                Series("lag", _points(samples, now, "lag"), Style.HUE_1),
                Series("desired", _points(samples, now, "desired"), Style.HUE_4, marker="·", right=True),
                Series("actual", _points(samples, now, "actual"), Style.HUE_2, marker="─", right=True),
                Series("ready", _points(samples, now, "ready"), Style.HUE_3, marker="━", right=True),
            ]
        )
        self.query_one("#legend", Static).update(content(self._plot.legend()))

    async def _load(self) -> Scaling:
        return await self.environment.scaling()

    async def _load_rates(self) -> Mapping[str, WorkerRates]:
        if self._meter is None:
            from nomnom_control.session.worker_rates import WorkerMeter

            self._meter = WorkerMeter(self.environment)
        return await self._meter.read()

    def _show_rates(self, rates: Mapping[str, WorkerRates]) -> None:
        self._rates = rates
        self._replicas.refresh()

    # Changes

    def _loaded(self) -> Scaling | None:
        if self._scaling is None:
            self.nomnom.notify("the scaling state is not loaded yet", severity="warning")
        return self._scaling

    def _scale_to(self, number: int) -> None:
        self.nomnom.perform(
            Change(
                f"Scale workers to {number}",
                self.session.command(f"scale {number}"),
                act=lambda: self.environment.scale(WORKER, number),
                success=f"Workers scaled to {number}; autoscaling is paused",
            )
        )

    def action_step(self, by: int) -> None:
        """Scale up or down by one worker."""
        if (scaling := self._loaded()) is not None:
            self._scale_to(max(0, min(self.environment.worker_limit, scaling.desired + by)))

    def action_scale(self) -> None:
        """Ask for a number of workers and scale to it."""
        if (scaling := self._loaded()) is None:
            return
        most = self.environment.worker_limit
        form = FormDialog(
            "Scale manually",
            [Field("workers", "Workers", str(scaling.desired), f"currently {scaling.desired}", _whole(0, most))],
            lambda values: (
                [
                    ("Pauses autoscaling at ", Style.MUTED),
                    (figures.counted(int(values["workers"]), "worker"), Style.STRONG),
                    ("; press p to resume", Style.MUTED),
                ],
                [("$ ", Style.MUTED), (self.session.command(f"scale {values['workers']}"), Style.ACCENT)],
            ),
            "Scale",
        )
        self.nomnom.push_screen(form, lambda values: self._scale_to(int(values["workers"])) if values else None)

    def action_pause(self) -> None:
        """Pause autoscaling at the current number of workers, or resume it."""
        if (scaling := self._loaded()) is None:
            return
        if scaling.paused:
            change = Change(
                "Resume autoscaling",
                self.session.command("scale --auto"),
                act=self.environment.resume_autoscaling,
                success="Autoscaling resumed",
            )
        else:
            change = Change(
                f"Pause autoscaling at {scaling.desired}",
                self.session.command(f"scale {scaling.desired}"),
                act=self.environment.pause_autoscaling,
            )
        self.nomnom.perform(change)

    def action_policy(self) -> None:
        """Edit the autoscaling policy."""
        if (scaling := self._loaded()) is None:
            return
        policy, most = scaling.policy, self.environment.worker_limit

        def command(values: Mapping[str, str]) -> str:
            return self.session.command(
                f"scale --min {values['minimum']} --max {values['maximum']} --threshold {values['threshold']} "
                f"--cooldown {values['cooldown']}"
            )

        def preview(values: Mapping[str, str]) -> tuple[Line, ...]:
            changed = _policy(values, policy)
            lag = scaling.lag
            desired = None if lag is None else changed.desired(lag)
            return (
                [
                    (f"At the current {Term.STREAM_LAG} of ", Style.MUTED),
                    (figures.count(lag), Style.PLAIN),
                    (": ", Style.MUTED),
                    (figures.count(desired), Style.STRONG),
                    (" worker" if desired == 1 else " workers", Style.MUTED),
                ],
                [("$ ", Style.MUTED), (command(values), Style.ACCENT)],
            )

        form = FormDialog(
            "Autoscaling policy",
            [
                Field("minimum", "Minimum", str(policy.minimum), "0 allows scale to zero", _whole(0, most)),
                Field("maximum", "Maximum", str(policy.maximum), "at least 1", _whole(1, most)),
                Field("threshold", "Threshold", str(policy.threshold), "target lag per worker", _whole(1, 10**9)),
                Field(
                    "cooldown",
                    "Cooldown",
                    f"{policy.cooldown:g}",
                    "seconds without lag before scaling to zero",
                    _whole(0, 10**6),
                ),
            ],
            preview,
            "Change",
        )

        def submit(values: dict[str, str] | None) -> None:
            if values is None:
                return
            changed = _policy(values, policy)
            try:
                changed.check(most)
            except ScalingError as error:
                self.nomnom.show_problem("Autoscaling policy", f"{error}; nothing was changed")
                return
            self.nomnom.perform(
                Change(
                    "Change the autoscaling policy",
                    command(values),
                    act=lambda: self.environment.set_scaling_policy(changed),
                    success="Autoscaling policy changed",
                )
            )

        self.nomnom.push_screen(form, submit)

    def action_restart(self) -> None:
        """Restart all workers, one at a time."""
        self.nomnom.perform(
            Change(
                "Restart workers",
                self.session.command(f"restart {WORKER}"),
                begin=lambda: self.environment.restart(WORKER),
                plan=("each worker finishes its batch, stops, and is replaced before the next one stops",),
            )
        )

    def action_history(self) -> None:
        """Show the workers' revisions."""
        self.nomnom.push_screen(HistoryView(WORKER))

    def action_rollback(self) -> None:
        """Roll back to the previous revision."""
        self.nomnom.perform(
            Change(
                "Roll workers back to the previous revision",
                self.session.command(f"rollback {WORKER}"),
                begin=lambda: self.environment.rollback(WORKER),
                plan=("roll out the settings of the previous revision, one worker at a time",),
            )
        )

    @on(LiveTable.Chosen, "#recent")
    def _revision_chosen(self) -> None:
        self.action_history()

    def commands(self) -> Iterable[Command]:
        """The ``scale N`` command."""
        return (
            Command("scale", "set the number of workers, or auto", self._scale_typed, "N|auto", lambda _: ["auto"]),
        )

    def _scale_typed(self, text: str) -> None:
        if text == "auto":
            if self._scaling is not None and self._scaling.paused:
                self.action_pause()
            return
        if (problem := _whole(0, self.environment.worker_limit)(text)) is not None:
            self.nomnom.notify(problem, severity="warning")
        else:
            self._scale_to(int(text))


def _name(replica: Replica) -> Line:
    health = Health.HEALTHY if replica.ready else Health.STARTING
    mark, style = MARKS[Health.FAILED if replica.state == Health.FAILED else health]
    return [(f"{mark} ", style), (replica.name, Style.PLAIN)]


def _points(samples: Iterable[Sample], now: datetime, what: str) -> list[tuple[float, float]]:
    pairs = (((now - each.at).total_seconds(), getattr(each, what)) for each in samples)
    return [(ago, float(value)) for ago, value in pairs if value is not None and 0 <= ago <= _SPAN]


def _policy(values: Mapping[str, str], policy: ScalingPolicy) -> ScalingPolicy:
    return replace(
        policy,
        minimum=int(values["minimum"]),
        maximum=int(values["maximum"]),
        threshold=int(values["threshold"]),
        cooldown=float(values["cooldown"]),
    )


def _whole(least: int, most: int) -> Callable[[str], str | None]:
    def check(text: str) -> str | None:
        if text.isascii() and text.isdigit() and least <= int(text) <= most:
            return None
        return f"expected a whole number from {least} to {most:,}"

    return check
