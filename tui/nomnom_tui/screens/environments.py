"""Environments: where pipelines run; start, stop, choose, destroy."""

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
from nomnom_control.environments import Component, Endpoints, Environment, Health, StartOption
from nomnom_tui.app.changes import Change
from nomnom_tui.app.heartbeat import Heartbeat
from nomnom_tui.app.view import View
from nomnom_tui.text import figures
from nomnom_tui.text.styles import MARKS, Line, Style, content
from nomnom_tui.widgets.dialogs import ChoiceDialog, Field, FormDialog
from nomnom_tui.widgets.panel import Panel
from nomnom_tui.widgets.table import Column, LiveTable

_EVERY = 3.0
_PATIENCE = 5.0


@dataclass(frozen=True, slots=True)
class Seen:
    """An environment as last looked at: its components and endpoints, or why they are not known."""

    environment: Environment
    components: tuple[Component, ...] = ()
    endpoints: Endpoints | None = field(default=None, repr=False)
    problem: str = ""

    @property
    def health(self) -> Health | None:
        """How it is as a whole."""
        return Heartbeat(self.components).health

    @property
    def versions(self) -> str:
        """The components' versions in short."""
        return "  ".join(f"{each.name} {each.version}" for each in self.components if each.version)


class EnvironmentsView(View):
    """All known environments; below the table, what is known of the one under the cursor."""

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
    EnvironmentsView #told { padding: 0 1; height: auto; }
    """

    def __init__(self) -> None:
        super().__init__()
        self._table: LiveTable[Seen] = LiveTable(
            [
                Column("Name", self._named, 16, share=1),
                Column("Kind", lambda each: (each.environment.kind, Style.MUTED), 6),
                Column("State", _state, 11),
                Column("Where", lambda each: (each.environment.location, Style.MUTED), 20, share=2, rank=1),
                Column("Versions", lambda each: (each.versions, Style.MUTED), 34, share=1, rank=2),
            ],
            key=lambda each: (each.environment.kind, each.environment.name),
            empty="no environment is known",
            opens="Use it",
        )
        self._offered = False

    def content(self) -> ComposeResult:
        """The table, and the details."""
        yield Panel("Environments", self._table, id="environments", awaits="looking for environments")
        with VerticalScroll(id="details", can_focus=False):
            yield Panel("Details", Static(id="told"), id="details-panel")

    def begin(self) -> None:
        """Look at all of them every few seconds."""
        self._table.focus()
        self.subscribe("environments", _EVERY, self._load, self._show, self.query_one("#environments", Panel))

    def _named(self, seen: Seen) -> Line:
        used = self.session.chosen and seen.environment is self.session.environment
        return [("▸ " if used else "  ", Style.ACCENT), (seen.environment.name, Style.STRONG if used else Style.PLAIN)]

    async def _load(self) -> list[Seen]:
        known = await self.nomnom.known_environments()
        return list(await asyncio.gather(*(_look(each) for each in known)))

    def _show(self, seen: list[Seen]) -> None:
        self._table.show(seen)
        self._tell()

    @on(LiveTable.Highlighted)
    def _tell(self) -> None:
        seen = self._table.current
        panel = self.query_one("#details-panel", Panel)
        if seen is None:
            panel.retitle("Details")
            self.query_one("#told", Static).update("")
            return
        panel.retitle(seen.environment.name, seen.environment.location)
        self.query_one("#told", Static).update(content(*_details(seen)))

    # Changes

    @property
    def _current(self) -> Environment | None:
        return None if self._table.current is None else self._table.current.environment

    @on(LiveTable.Chosen)
    async def _use(self) -> None:
        """Use the environment under the cursor: every other screen then shows it."""
        environment = self._current
        if environment is None:
            return
        if not self.session.chosen or environment is not self.session.environment:
            await self.nomnom.choose(environment)
        seen = self._table.current
        if seen is not None and seen.health is Health.STOPPED:
            self.action_start()
        else:
            self.nomnom.action_go("overview")

    def action_start(self) -> None:
        """Start the environment under the cursor: choices, checked while typing, and the plan; then go."""
        if (environment := self._current) is not None:
            self.offer(environment)

    def offer(self, environment: Environment) -> None:
        """Offer to start an environment."""

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
                    self.nomnom.tell_problem(change.title, error)
            if await self.nomnom.carry_out(change):
                await self.nomnom.choose(chosen)

        self.nomnom.run_worker(start(), name=change.title, group="changes")

    def action_make(self) -> None:
        """Make a new environment: of which kind, with what choices, and the plan; then go."""
        self.nomnom.run_worker(self._make(), name="new environment", group="dialogs")

    async def _make(self) -> None:
        try:
            found = {each.name: each for each in await self.nomnom.templates()}
        except (NomnomError, OSError) as error:
            self.nomnom.tell_problem("New environment", error)
            return
        if not found:
            self.notify("no other environment can be made from here", markup=False)
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
        """What else can be done to the environment under the cursor."""
        if (environment := self._current) is not None:
            self.nomnom.run_worker(self._more(environment), name="more", group="dialogs")

    async def _more(self, environment: Environment) -> None:
        found = {each.name: each for each in environment.actions()}
        if not found:
            self.notify(f"{environment.name} has nothing more", markup=False)
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

            form = FormDialog(title, _fields(action.options), preview, "Go")
            chosen = await self.nomnom.push_screen_wait(form)
            if chosen is None:
                return
            values = chosen
        # What has a form was shown with its plan already.
        plan = () if action.options else tuple(action.plan(values))
        self.nomnom.perform(
            Change(
                title,
                action.command(values),
                begin=lambda: action.begin(values),
                plan=plan,
                loses=action.losses,
            )
        )

    def action_stop(self) -> None:
        """Stop it; data stay."""
        if (environment := self._current) is None:
            return
        self.nomnom.perform(
            Change(
                f"Stop {environment.name}",
                environment.command("stop"),
                begin=environment.stop,
                plan=tuple(environment.plan("stop")) or ("everything is stopped in order; data stay",),
            )
        )

    def action_destroy(self) -> None:
        """Stop it and remove its data, after its name was typed."""
        if (environment := self._current) is None:
            return
        self.nomnom.perform(
            Change(
                f"Destroy {environment.name}",
                environment.command("destroy"),
                begin=environment.destroy,
                loses=tuple(environment.losses()),
                plan=tuple(environment.plan("destroy")),
                typed=environment.name,
            )
        )


async def _look(environment: Environment) -> Seen:
    """One environment's state; that it cannot be had is a state too."""
    try:
        async with asyncio.timeout(_PATIENCE):
            seen = Seen(environment, tuple(await environment.components()))
            if seen.health in (None, Health.STOPPED):
                return seen
            return Seen(environment, seen.components, await environment.endpoints())
    except TimeoutError:
        return Seen(environment, problem=f"no answer within {_PATIENCE:g} s")
    except NomnomError as error:
        return Seen(environment, problem=str(error))


def _fields(options: Sequence[StartOption]) -> list[Field]:
    return [Field(each.name, each.label, each.value, each.hint, each.check) for each in options]


def _preview(steps: Sequence[str], command: str) -> list[Line]:
    lines: list[Line] = [("What will happen:", Style.MUTED)] if steps else []
    lines += [[(f"  {at}. ", Style.MUTED), (step, Style.PLAIN)] for at, step in enumerate(steps, start=1)]
    return [*lines, "", [("$ ", Style.MUTED), (command, Style.ACCENT)]]


def _state(seen: Seen) -> Line:
    if seen.problem:
        return [("▲ ", Style.WARNING), ("no answer", Style.PLAIN)]
    if seen.health is None:
        return (figures.NONE, Style.MUTED)
    mark, style = MARKS[seen.health]
    return [(f"{mark} ", style), (seen.health.value, Style.PLAIN)]


def _details(seen: Seen) -> list[Line]:
    if seen.problem:
        return [[("▲ ", Style.WARNING), (seen.problem, Style.PLAIN)]]
    lines: list[Line] = []
    endpoints = seen.endpoints
    if endpoints is not None:
        from nomnom.settings import without_secrets

        places = {
            "api": endpoints.api,
            "NATS": without_secrets(endpoints.nats),
            "NATS monitor": endpoints.nats_monitor,
            "PostgreSQL": without_secrets(endpoints.database),
            "dashboard": endpoints.dashboard or "",
        }
        lines += [[(name.ljust(15), Style.MUTED), (place, Style.PLAIN)] for name, place in places.items() if place]
        lines.append("")
    for each in seen.components:
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
    if seen.health is Health.STOPPED:
        lines += ["", [("Nothing runs here. ", Style.PLAIN), ("s", Style.ACCENT), (" starts it.", Style.PLAIN)]]
    return lines
