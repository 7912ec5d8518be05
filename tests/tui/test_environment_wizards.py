"""Making an environment, and what else can be done to one: choices checked while typing, the plan, the steps."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from textual.pilot import Pilot
from textual.widgets import Button, Input, Static

from nomnom_control.environments import Environment, EnvironmentAction, EnvironmentTemplate, Progress, StartOption
from nomnom_control.errors import ControlError
from nomnom_tui.app.application import NomnomApp
from nomnom_tui.app.operations import Outcome
from nomnom_tui.app.preferences import Preferences
from nomnom_tui.screens.environments import EnvironmentsView
from nomnom_tui.screens.operation import OperationView
from nomnom_tui.widgets.dialogs import AskDialog, ChoiceDialog, FormDialog
from tui.fakes import FakeEnvironment, FakeSession
from tui.test_shell import told, until


class Far(FakeEnvironment):
    """A release somewhere else, with actions of its own."""

    kind = "kube"

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name, self.selector = name, ("--env", name)
        self.done: list[tuple[str, Mapping[str, str]]] = []

    def plan(self, operation: str) -> Sequence[str]:
        return (f"{operation} {self.name}",)

    def actions(self) -> Sequence[EnvironmentAction]:
        def begin(name: str) -> Callable[[Mapping[str, str]], AsyncIterator[Progress]]:
            def work(values: Mapping[str, str]) -> AsyncIterator[Progress]:
                self.done.append((name, dict(values)))
                return self._steps(name, "chart", "api")

            return work

        def command(name: str) -> Callable[[Mapping[str, str]], str]:
            return lambda values: f"nomnom {name} {values.get('set', '')}".rstrip()

        option = StartOption(
            "set", "Values", "", "name=value", lambda text: None if "=" in text else "expected name=value"
        )
        return (
            EnvironmentAction("upgrade", "Upgrade it", begin("upgrade"), command("upgrade"), (option,), _plan),
            EnvironmentAction(
                "uninstall", "Uninstall it", begin("uninstall"), command("uninstall"), losses=("the pipeline",)
            ),
        )


def _plan(values: Mapping[str, str]) -> Sequence[str]:
    return (f"upgrade with {values['set']}",)


class Makings:
    """One blueprint; what it made and kept is seen."""

    def __init__(self) -> None:
        self.made: list[Far] = []
        self.kept: list[Mapping[str, str]] = []
        self.problem = ""

    async def templates(self) -> Sequence[EnvironmentTemplate]:
        if self.problem:
            raise ControlError(self.problem)

        def make(values: Mapping[str, str]) -> Environment:
            self.made.append(Far(values["name"]))
            return self.made[-1]

        name = StartOption("name", "Name", "", "a name", lambda text: None if text.islower() else "small letters only")
        return (EnvironmentTemplate("kube", "A release on a cluster", (name,), make, self.kept.append),)


@asynccontextmanager
async def opened(
    known: Sequence[Environment] = (), *, readonly: bool = False
) -> AsyncIterator[tuple[NomnomApp, Pilot[int], Makings]]:
    """The app on its first screen, with one environment of its own and those that are known."""
    makings = Makings()

    async def find() -> list[Environment]:
        return list(known)

    session = FakeSession(FakeEnvironment(), readonly=readonly)
    app = NomnomApp(session, Preferences(Path("tui.toml")), known=find, templates=makings.templates)
    async with app.run_test(size=(110, 36)) as pilot:
        await until(lambda: app.heartbeat.at)
        await pilot.press("1")
        await until(lambda: isinstance(app.screen, EnvironmentsView) and len(app.screen._table.rows) > len(known))
        await pilot.pause()
        yield app, pilot, makings


async def test_an_environment_is_made_from_its_choices() -> None:
    async with opened() as (app, pilot, makings):
        await pilot.press("n")
        await until(lambda: isinstance(app.screen, ChoiceDialog))
        await pilot.press("enter")
        await until(lambda: isinstance(app.screen, FormDialog))
        form = app.screen
        form.query_one(Input).value = "SHOP"
        await until(lambda: "small letters only" in str(form.query_one("#said-name", Static).content))
        assert form.query_one("#submit", Button).disabled
        form.query_one(Input).value = "shop"
        await until(lambda: "start shop" in str(form.query_one("#preview", Static).content))
        assert "nomnom up --detach --env shop" in str(form.query_one("#preview", Static).content)
        assert makings.kept == []
        form.query_one(Input).focus()
        await pilot.press("enter")
        await until(lambda: isinstance(app.screen, OperationView) and app.operations[-1].outcome is Outcome.DONE)
        assert makings.kept == [{"name": "shop"}]
        # What was made is what every screen now shows.
        await until(lambda: app.session.environment.name == "shop")
        assert app.session.environment is makings.made[-1]


async def test_nothing_is_made_where_the_person_leaves() -> None:
    async with opened() as (app, pilot, makings):
        for presses in (("n", "escape"), ("n", "enter", "escape")):
            for key in presses:
                await pilot.press(key)
                await pilot.pause(0.1)
            await until(lambda: isinstance(app.screen, EnvironmentsView))
        assert (makings.kept, app.operations) == ([], [])


async def test_why_nothing_can_be_made_is_told() -> None:
    async with opened() as (app, pilot, makings):
        makings.problem = "the kubeconfig cannot be read"
        await pilot.press("n")
        await until(lambda: "the kubeconfig cannot be read" in told(app))


async def test_another_action_shows_its_plan_and_its_command() -> None:
    far = Far("shop")
    async with opened([far]) as (app, pilot, _):
        await pilot.press("down", "o")
        await until(lambda: isinstance(app.screen, ChoiceDialog))
        await pilot.press("enter")
        await until(lambda: isinstance(app.screen, FormDialog))
        form = app.screen
        form.query_one(Input).value = "keda.maxReplicas=3"
        await until(lambda: "upgrade with keda.maxReplicas=3" in str(form.query_one("#preview", Static).content))
        assert "nomnom upgrade keda.maxReplicas=3" in str(form.query_one("#preview", Static).content)
        form.query_one(Input).focus()
        await pilot.press("enter")
        await until(lambda: far.done)
        assert far.done == [("upgrade", {"set": "keda.maxReplicas=3"})]


async def test_an_action_that_loses_something_asks_and_names_the_environment() -> None:
    far = Far("shop")
    async with opened([far]) as (app, pilot, _):
        await pilot.press("down", "o")
        await until(lambda: isinstance(app.screen, ChoiceDialog))
        await pilot.press("j", "enter")
        await until(lambda: isinstance(app.screen, AskDialog))
        assert "shop" in app.screen.change.title
        assert "the pipeline" in str(app.screen.query_one("#text", Static).content)
        await pilot.press("n")
        await until(lambda: isinstance(app.screen, EnvironmentsView))
        assert far.done == []
        await pilot.press("o")
        await until(lambda: isinstance(app.screen, ChoiceDialog))
        await pilot.press("j", "enter")
        await until(lambda: isinstance(app.screen, AskDialog))
        await pilot.press("y")
        await until(lambda: far.done == [("uninstall", {})])


async def test_a_read_only_session_makes_nothing() -> None:
    async with opened([Far("shop")], readonly=True) as (app, pilot, makings):
        for key in ("n", "o"):
            await pilot.press(key)
            await pilot.pause(0.1)
            assert isinstance(app.screen, EnvironmentsView)
        assert (makings.kept, app.operations) == ([], [])
