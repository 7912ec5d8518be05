"""Creating an environment, and its other actions: validated options, the plan, the steps."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from textual.pilot import Pilot
from textual.widgets import Button, Input, Static

from nomnom_control.environments import Environment, EnvironmentAction, EnvironmentTemplate, Progress, StartOption
from nomnom_control.errors import ControlError
from nomnom_tui.app.application import NomnomApp
from nomnom_tui.app.operations import OperationState
from nomnom_tui.app.preferences import Preferences
from nomnom_tui.screens.environments import EnvironmentsView
from nomnom_tui.screens.operation import OperationView
from nomnom_tui.widgets.dialogs import ChoiceDialog, ConfirmDialog, FormDialog
from tui.fakes import FakeEnvironment, FakeSession
from tui.test_shell import notifications, until


class RemoteEnvironment(FakeEnvironment):
    """A release on another cluster, with its own actions."""

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


class FakeTemplates:
    """One environment template that records what it created and saved."""

    def __init__(self) -> None:
        self.created: list[RemoteEnvironment] = []
        self.saved: list[Mapping[str, str]] = []
        self.problem = ""

    async def templates(self) -> Sequence[EnvironmentTemplate]:
        if self.problem:
            raise ControlError(self.problem)

        def make(values: Mapping[str, str]) -> Environment:
            self.created.append(RemoteEnvironment(values["name"]))
            return self.created[-1]

        name = StartOption("name", "Name", "", "a name", lambda text: None if text.islower() else "lower case only")
        return (EnvironmentTemplate("kube", "A release on a cluster", (name,), make, self.saved.append),)


@asynccontextmanager
async def opened(
    known: Sequence[Environment] = (), *, readonly: bool = False
) -> AsyncIterator[tuple[NomnomApp, Pilot[int], FakeTemplates]]:
    """Open the app on the environments screen, with one selected environment and the known ones."""
    templates = FakeTemplates()

    async def find() -> list[Environment]:
        return list(known)

    session = FakeSession(FakeEnvironment(), readonly=readonly)
    app = NomnomApp(session, Preferences(Path("tui.toml")), known=find, templates=templates.templates)
    async with app.run_test(size=(110, 36)) as pilot:
        await until(lambda: app.heartbeat.at)
        await pilot.press("1")
        await until(lambda: isinstance(app.screen, EnvironmentsView) and len(app.screen._table.rows) > len(known))
        await pilot.pause()
        yield app, pilot, templates


async def test_create_an_environment() -> None:
    async with opened() as (app, pilot, templates):
        await pilot.press("n")
        await until(lambda: isinstance(app.screen, ChoiceDialog))
        await pilot.press("enter")
        await until(lambda: isinstance(app.screen, FormDialog))
        form = app.screen
        form.query_one(Input).value = "SHOP"
        await until(lambda: "lower case only" in str(form.query_one("#hint-name", Static).content))
        assert form.query_one("#submit", Button).disabled
        form.query_one(Input).value = "shop"
        await until(lambda: "start shop" in str(form.query_one("#preview", Static).content))
        assert "nomnom up --detach --env shop" in str(form.query_one("#preview", Static).content)
        assert templates.saved == []
        form.query_one(Input).focus()
        await pilot.press("enter")
        await until(lambda: isinstance(app.screen, OperationView) and app.operations[-1].state is OperationState.DONE)
        assert templates.saved == [{"name": "shop"}]
        # The created environment is selected.
        await until(lambda: app.session.environment.name == "shop")
        assert app.session.environment is templates.created[-1]


async def test_cancelling_the_form_creates_nothing() -> None:
    async with opened() as (app, pilot, templates):
        for presses in (("n", "escape"), ("n", "enter", "escape")):
            for key in presses:
                await pilot.press(key)
                await pilot.pause(0.1)
            await until(lambda: isinstance(app.screen, EnvironmentsView))
        assert (templates.saved, app.operations) == ([], [])


async def test_template_error_is_shown() -> None:
    async with opened() as (app, pilot, templates):
        templates.problem = "the kubeconfig cannot be read"
        await pilot.press("n")
        await until(lambda: "the kubeconfig cannot be read" in notifications(app))


async def test_action_form_shows_plan_and_command() -> None:
    remote = RemoteEnvironment("shop")
    async with opened([remote]) as (app, pilot, _):
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
        await until(lambda: remote.done)
        assert remote.done == [("upgrade", {"set": "keda.maxReplicas=3"})]


async def test_destructive_action_asks_for_confirmation() -> None:
    remote = RemoteEnvironment("shop")
    async with opened([remote]) as (app, pilot, _):
        await pilot.press("down", "o")
        await until(lambda: isinstance(app.screen, ChoiceDialog))
        await pilot.press("j", "enter")
        await until(lambda: isinstance(app.screen, ConfirmDialog))
        assert "shop" in app.screen.change.title
        assert "the pipeline" in str(app.screen.query_one("#text", Static).content)
        await pilot.press("n")
        await until(lambda: isinstance(app.screen, EnvironmentsView))
        assert remote.done == []
        await pilot.press("o")
        await until(lambda: isinstance(app.screen, ChoiceDialog))
        await pilot.press("j", "enter")
        await until(lambda: isinstance(app.screen, ConfirmDialog))
        await pilot.press("y")
        await until(lambda: remote.done == [("uninstall", {})])


async def test_read_only_session_creates_nothing() -> None:
    async with opened([RemoteEnvironment("shop")], readonly=True) as (app, pilot, templates):
        for key in ("n", "o"):
            await pilot.press(key)
            await pilot.pause(0.1)
            assert isinstance(app.screen, EnvironmentsView)
        assert (templates.saved, app.operations) == ([], [])
