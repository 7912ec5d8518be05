"""Environments: where pipelines run; start, stop, select, destroy."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.widgets import Static

from nomnom.errors import NomnomError
from nomnom.presentation import figures
from nomnom_control.environments import Component, Endpoints, Environment, Health, StartOption
from nomnom_tui.app.changes import Change
from nomnom_tui.app.heartbeat import Heartbeat
from nomnom_tui.app.view import View
from nomnom_tui.text.styles import MARKS, Line, Style, content
from nomnom_tui.widgets.dialogs import ChoiceDialog, Field, FormDialog
from nomnom_tui.widgets.panel import Panel
from nomnom_tui.widgets.table import Column, LiveTable

_INTERVAL = 3.0
_TIMEOUT = 5.0


@dataclass(frozen=True, slots=True)
class EnvironmentStatus:
    """The last known state of an environment: its components and endpoints, or why they are unknown."""

    environment: Environment
    components: tuple[Component, ...] = ()
    endpoints: Endpoints | None = field(default=None, repr=False)
    problem: str = ""

    @property
    def health(self) -> Health | None:
        """The overall health."""
        return Heartbeat(self.components).health

    @property
    def versions(self) -> str:
        """The versions of the components, on one line."""
        return "  ".join(f"{each.name} {each.version}" for each in self.components if each.version)


class EnvironmentsView(View):
    """All known environments, and below the table the details of the one under the cursor."""

    CRUMB = "Environments"
    CHANGES = frozenset({"start", "stop", "destroy", "make", "more"})
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("s", "start", "Start", id="environments.start"),
        Binding("S", "stop", "Stop", id="environments.stop"),
        Binding("n", "make", "New", id="environments.new"),
        Binding("o", "more", "More", id="environments.more"),
        Binding("D", "destroy", "Destroy", id="environments.destroy"),
    ]
    DEFAULT_CSS = """
    EnvironmentsView #environments { height: 1fr; min-height: 5; }
    EnvironmentsView #details { height: 3fr; }
    EnvironmentsView #summary { padding: 0 1; height: auto; }
    """

    def __init__(self) -> None:
        super().__init__()
        self._table: LiveTable[EnvironmentStatus] = LiveTable(
            [
                Column("Name", self._name_cell, 16, share=1),
                Column("Kind", lambda each: (each.environment.kind, Style.MUTED), 6),
                Column("State", _state, 11),
                Column("Location", lambda each: (each.environment.location, Style.MUTED), 20, share=2, rank=1),
                Column("Versions", lambda each: (each.versions, Style.MUTED), 34, share=1, rank=2),
            ],
            key=lambda each: (each.environment.kind, each.environment.name),
            empty="no environments",
            enter_label="Select",
        )

    def content(self) -> ComposeResult:
        """The table and the details."""
        yield Panel("Environments", self._table, id="environments", loading_text="loading environments")
        with VerticalScroll(id="details", can_focus=False):
            yield Panel("Details", Static(id="summary"), id="details-panel")

    def begin(self) -> None:
        """Check all environments every few seconds."""
        self._table.focus()
        self.subscribe("environments", _INTERVAL, self._load, self._show, self.query_one("#environments", Panel))

    def _name_cell(self, status: EnvironmentStatus) -> Line:
        selected = self.session.chosen and status.environment is self.session.environment
        style = Style.STRONG if selected else Style.PLAIN
        return [("▸ " if selected else "  ", Style.ACCENT), (status.environment.name, style)]

    async def _load(self) -> list[EnvironmentStatus]:
        known = await self.nomnom.known_environments()
        return list(await asyncio.gather(*(_check(each) for each in known)))

    def _show(self, statuses: list[EnvironmentStatus]) -> None:
        self._table.show(statuses)
        self._show_details()

    @on(LiveTable.Highlighted)
    def _show_details(self) -> None:
        status = self._table.current
        panel = self.query_one("#details-panel", Panel)
        if status is None:
            panel.retitle("Details")
            self.query_one("#summary", Static).update("")
            return
        panel.retitle(status.environment.name, status.environment.location)
        self.query_one("#summary", Static).update(content(*_details(status)))

    # Changes

    @property
    def _current(self) -> Environment | None:
        return None if self._table.current is None else self._table.current.environment

    @on(LiveTable.Chosen)
    async def _use(self) -> None:
        """Select the environment under the cursor: all other screens then show it."""
        environment = self._current
        if environment is None:
            return
        if not self.session.chosen or environment is not self.session.environment:
            await self.nomnom.choose(environment)
        status = self._table.current
        if status is not None and status.health is Health.STOPPED:
            self.action_start()
        else:
            self.nomnom.action_go("overview")

    def action_start(self) -> None:
        """Open the start form of the environment under the cursor."""
        if (environment := self._current) is not None:
            self.offer(environment)

    def offer(self, environment: Environment) -> None:
        """Open the start form of an environment: validated options and the plan."""

        def preview(values: Mapping[str, str]) -> Sequence[Line]:
            chosen = environment.with_options(values)
            return _preview(chosen.plan("start"), chosen.command("start"))

        form = FormDialog(f"Start {environment.name}", _fields(environment.start_options()), preview, "Start")
        self.nomnom.push_screen(
            form, lambda values: None if values is None else self._start(environment.with_options(values))
        )

    def _start(self, chosen: Environment, keep: Callable[[], None] | None = None) -> None:
        change = Change(f"Start {chosen.name}", chosen.command("start"), begin=chosen.start)

        async def start() -> None:
            if keep is not None and not self.session.readonly:
                try:
                    await asyncio.to_thread(keep)
                except (NomnomError, OSError) as error:
                    self.nomnom.show_problem(change.title, error)
            if await self.nomnom.carry_out(change):
                await self.nomnom.choose(chosen)

        self.nomnom.run_worker(start(), name=change.title, group="changes")

    def action_make(self) -> None:
        """Create an environment: choose its kind, enter its options, check the plan, start it."""
        self.nomnom.run_worker(self._make(), name="new environment", group="dialogs")

    async def _make(self) -> None:
        try:
            found = {each.name: each for each in await self.nomnom.templates()}
        except (NomnomError, OSError) as error:
            self.nomnom.show_problem("New environment", error)
            return
        if not found:
            self.notify("no environments can be created here", markup=False)
            return
        dialog = ChoiceDialog("New environment", [(each.name, each.title) for each in found.values()])
        name = await self.nomnom.push_screen_wait(dialog)
        if name is None:
            return
        template = found[name]

        def preview(values: Mapping[str, str]) -> Sequence[Line]:
            chosen = template.make(values)
            return _preview(chosen.plan("start"), chosen.command("start"))

        form = FormDialog(f"New: {template.name}", _fields(template.options), preview, "Start")
        values = await self.nomnom.push_screen_wait(form)
        if values is not None:
            self._start(template.make(values), lambda: template.keep(values))

    def action_more(self) -> None:
        """Show the other actions for the environment under the cursor."""
        if (environment := self._current) is not None:
            self.nomnom.run_worker(self._more(environment), name="more", group="dialogs")

    async def _more(self, environment: Environment) -> None:
        found = {each.name: each for each in environment.actions()}
        if not found:
            self.notify(f"no other actions for {environment.name}", markup=False)
            return
        dialog = ChoiceDialog(environment.name, [(each.name, each.title) for each in found.values()])
        name = await self.nomnom.push_screen_wait(dialog)
        if name is None:
            return
        action, values = found[name], dict[str, str]()
        title = f"{action.title}: {environment.name}"
        if action.options:

            def preview(values: Mapping[str, str]) -> Sequence[Line]:
                return _preview(action.plan(values), action.command(values))

            form = FormDialog(title, _fields(action.options), preview, "Run")
            chosen = await self.nomnom.push_screen_wait(form)
            if chosen is None:
                return
            values = chosen
        # A form has already shown the plan.
        plan = () if action.options else tuple(action.plan(values))
        self.nomnom.perform(
            Change(
                title,
                action.command(values),
                begin=lambda: action.begin(values),
                plan=plan,
                losses=action.losses,
            )
        )

    def action_stop(self) -> None:
        """Stop it; data is kept."""
        if (environment := self._current) is None:
            return
        self.nomnom.perform(
            Change(
                f"Stop {environment.name}",
                environment.command("stop"),
                begin=environment.stop,
                plan=tuple(environment.plan("stop")) or ("stop all components in order; data is kept",),
            )
        )

    def action_destroy(self) -> None:
        """Stop it and delete its data, after its name was typed as confirmation."""
        if (environment := self._current) is None:
            return
        self.nomnom.perform(
            Change(
                f"Destroy {environment.name}",
                environment.command("destroy"),
                begin=environment.destroy,
                losses=tuple(environment.losses()),
                plan=tuple(environment.plan("destroy")),
                confirm_text=environment.name,
            )
        )


async def _check(environment: Environment) -> EnvironmentStatus:
    """Return the state of one environment, or why it cannot be read."""
    try:
        async with asyncio.timeout(_TIMEOUT):
            status = EnvironmentStatus(environment, tuple(await environment.components()))
            if status.health in (None, Health.STOPPED):
                return status
            return EnvironmentStatus(environment, status.components, await environment.endpoints())
    except TimeoutError:
        return EnvironmentStatus(environment, problem=f"no response within {_TIMEOUT:g} s")
    except NomnomError as error:
        return EnvironmentStatus(environment, problem=str(error))


def _fields(options: Sequence[StartOption]) -> list[Field]:
    return [Field(each.name, each.label, each.value, each.hint, each.check) for each in options]


def _preview(steps: Sequence[str], command: str) -> list[Line]:
    lines: list[Line] = [("What will happen:", Style.MUTED)] if steps else []
    lines += [[(f"  {at}. ", Style.MUTED), (step, Style.PLAIN)] for at, step in enumerate(steps, start=1)]
    return [*lines, "", [("$ ", Style.MUTED), (command, Style.ACCENT)]]


def _state(status: EnvironmentStatus) -> Line:
    if status.problem:
        return [("▲ ", Style.WARNING), ("unknown", Style.PLAIN)]
    if status.health is None:
        return (figures.NONE, Style.MUTED)
    mark, style = MARKS[status.health]
    return [(f"{mark} ", style), (status.health.value, Style.PLAIN)]


def _details(status: EnvironmentStatus) -> list[Line]:
    if status.problem:
        return [[("▲ ", Style.WARNING), (status.problem, Style.PLAIN)]]
    lines: list[Line] = []
    endpoints = status.endpoints
    if endpoints is not None:
        from nomnom.settings import without_secrets

        addresses = {
            "API": endpoints.api,
            "NATS": without_secrets(endpoints.nats),
            "NATS monitor": endpoints.nats_monitor,
            "PostgreSQL": without_secrets(endpoints.database),
            "dashboard": endpoints.dashboard or "",
        }
        lines += [
            [(name.ljust(15), Style.MUTED), (address, Style.PLAIN)] for name, address in addresses.items() if address
        ]
        lines.append("")
    for each in status.components:
        mark, style = MARKS[each.health]
        lines.append(
            [
                (f"{mark} ", style),
                (each.name.ljust(13), Style.PLAIN),
                (f"{each.ready}/{each.desired}".ljust(7), Style.PLAIN),
                (each.health.value.ljust(10), Style.MUTED),
                (f"{each.version:<9} {each.detail}", Style.MUTED),
            ]
        )
    if status.health is Health.STOPPED:
        lines += [
            "",
            [("Nothing is running. Press ", Style.PLAIN), ("s", Style.ACCENT), (" to start it.", Style.PLAIN)],
        ]
    return lines
