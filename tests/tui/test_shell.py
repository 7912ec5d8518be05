"""The shell around the screens: ways, keys, the command line, changes, what is refused and asked, operations."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from textual.pilot import Pilot
from textual.widgets import Input, Static

from nomnom.scaling import ScalingPolicy
from nomnom_control.environments import WORKER, Progress, Step
from nomnom_control.errors import ControlError
from nomnom_tui.app.application import NomnomApp
from nomnom_tui.app.changes import Change
from nomnom_tui.app.operations import Outcome
from nomnom_tui.app.preferences import Preferences, read_preferences
from nomnom_tui.app.view import View
from nomnom_tui.screens.history import HistoryView
from nomnom_tui.screens.logs import LogsView
from nomnom_tui.screens.operation import OperationView
from nomnom_tui.screens.workers import WorkersView
from nomnom_tui.widgets.dialogs import AskDialog, FormDialog
from nomnom_tui.widgets.help import HelpDialog
from nomnom_tui.widgets.log_pane import LogPane
from nomnom_tui.widgets.prompt import Prompt
from tui.fakes import FakeEnvironment, FakeSession


async def until(condition: Callable[[], object], limit: float = 8.0) -> None:
    """Wait until it is so."""
    async with asyncio.timeout(limit):
        while not condition():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def opened(
    environment: FakeEnvironment | None = None, *, readonly: bool = False, preferences: Preferences | None = None
) -> AsyncIterator[tuple[NomnomApp, Pilot[int], FakeEnvironment]]:
    """The app, with its first answers there."""
    environment = environment or FakeEnvironment()
    session = FakeSession(environment, readonly=readonly)
    app = NomnomApp(session, preferences or Preferences(Path("tui.toml")))
    async with app.run_test(size=(100, 30)) as pilot:
        await until(lambda: app.heartbeat.at)
        await pilot.pause()
        yield app, pilot, environment


async def go(app: NomnomApp, pilot: Pilot[int], key: str) -> None:
    """Go to a screen and wait until it has its data."""
    await pilot.press(key)
    screen = app.screen
    if isinstance(screen, WorkersView):
        await until(lambda: screen._scaling)
    await pilot.pause()


def told(app: NomnomApp) -> str:
    """What the notifications say."""
    return "\n".join(f"{each.title} {each.message}" for each in app._notifications)


# Ways


async def test_screens_by_key_and_back() -> None:
    async with opened() as (app, pilot, _):
        await pilot.press("6", "8", "1")
        assert app.breadcrumbs == ["local", "Environments"]
        await pilot.press("escape")
        assert app.breadcrumbs == ["local", "Logs"]
        await pilot.press("escape", "escape", "escape", "escape")
        assert app.breadcrumbs == ["local", "Overview"]


async def test_every_place_opens_by_its_key_and_by_its_name() -> None:
    async with opened() as (app, pilot, _):
        for place in app.places:
            await pilot.press(place.key)
            assert app.current_mode == place.name
        for place in app.places:
            app.run_command(place.name)
            await until(lambda place=place: app.current_mode == place.name)
            assert isinstance(app.screen, View)


async def test_a_detail_is_kept_while_another_screen_is_seen() -> None:
    async with opened() as (app, pilot, _):
        await go(app, pilot, "6")
        await pilot.press("H")
        assert app.breadcrumbs == ["local", "Workers", "worker history"]
        await pilot.press("8", "6")
        assert isinstance(app.screen, HistoryView)
        await pilot.press("escape")
        assert isinstance(app.screen, WorkersView)


async def test_hidden_screens_do_not_ask() -> None:
    async with opened() as (app, pilot, environment):
        await go(app, pilot, "6")
        await pilot.press("1")
        await pilot.pause()
        environment.asked.clear()
        await asyncio.sleep(2.5)
        assert "history" not in environment.asked
        # The pulse asks every two seconds; the workers' screen would have each second.
        assert environment.asked.count("scaling") <= 2


async def test_help_lists_every_key_of_the_screen() -> None:
    async with opened() as (app, pilot, _):
        for place in app.places:
            await pilot.press(place.key)
            view = app.screen
            assert isinstance(view, View)
            wanted = {each.description for each in type(view).BINDINGS}  # pyright: ignore[reportAttributeAccessIssue]
            await pilot.press("question_mark")
            dialog = app.screen
            assert isinstance(dialog, HelpDialog)
            text = str(dialog.query_one(Static).content)
            assert all(each in text for each in wanted), wanted
            assert "view.refresh" in text
            await pilot.press("escape")


async def test_keys_are_rebound_by_the_settings(tmp_path: Path) -> None:
    path = tmp_path / "tui.toml"
    path.write_text('theme = "light"\n[keys]\n"go.logs" = "f8"\n"workers.history" = "z"\n')
    async with opened(preferences=read_preferences(path)) as (app, pilot, _):
        assert not app.current_theme.dark
        await pilot.press("8")
        assert app.current_mode == "overview"
        await pilot.press("f8")
        assert app.current_mode == "logs"
        await go(app, pilot, "6")
        await pilot.press("z")
        assert isinstance(app.screen, HistoryView)


async def test_a_fault_in_the_settings_is_told(tmp_path: Path) -> None:
    path = tmp_path / "tui.toml"
    path.write_text('theme = "nonsense"\n')
    async with opened(preferences=read_preferences(path)) as (app, _, __):
        assert "there is no theme 'nonsense'" in told(app)


# The command line and the palette


async def test_the_command_line_completes_and_runs() -> None:
    async with opened() as (app, pilot, environment):
        await go(app, pilot, "6")
        await pilot.press("colon")
        assert isinstance(app.screen, Prompt)
        await pilot.press("s", "c", "a", "tab")
        assert app.screen.query_one(Input).value == "scale "
        await pilot.press("5", "enter")
        await until(lambda: "scale worker 5" in environment.asked)
        await until(lambda: "$ nomnom scale 5" in told(app))


async def test_an_unknown_command_is_told() -> None:
    async with opened() as (app, pilot, _):
        await pilot.press("colon", *"fly", "enter")
        await until(lambda: "there is no command 'fly'" in told(app))


async def test_only_what_applies_is_offered() -> None:
    async with opened() as (app, pilot, _):
        offered = {each.title for each in app.get_system_commands(app.screen)}
        assert {"overview", "workers", "help", "quit"} <= offered
        assert "restart" not in offered
        await go(app, pilot, "6")
        assert "restart" in {each.title for each in app.get_system_commands(app.screen)}
    async with opened(readonly=True) as (app, pilot, _):
        await go(app, pilot, "6")
        offered = {each.title for each in app.get_system_commands(app.screen)}
        assert "restart" not in offered
        assert "history" in offered


# Changes


async def test_scaling_by_hand() -> None:
    async with opened() as (app, pilot, environment):
        await go(app, pilot, "6")
        await pilot.press("plus")
        await until(lambda: "scale worker 4" in environment.asked)
        await pilot.press("s")
        assert isinstance(app.screen, FormDialog)
        app.screen.query_one(Input).value = "x"
        await pilot.press("enter")
        assert isinstance(app.screen, FormDialog), "a wrong value goes nowhere"
        app.screen.query_one(Input).value = "2"
        await pilot.press("enter")
        await until(lambda: "scale worker 2" in environment.asked)
        await until(lambda: app.screen.query_one("#banner").display)
        await pilot.press("p")
        await until(lambda: "resume" in environment.asked)


async def test_the_policy_is_edited_and_checked() -> None:
    async with opened() as (app, pilot, environment):
        await go(app, pilot, "6")
        await pilot.press("e")
        app.screen.query_one("#field-maximum", Input).value = "12"
        app.screen.query_one("#field-threshold", Input).value = "50"
        await pilot.pause()
        preview = str(app.screen.query_one("#preview", Static).content)
        assert "it wants 12 workers" in preview
        assert "nomnom scale --min 0 --max 12 --threshold 50 --cooldown 30" in preview
        await pilot.press("enter")
        await until(lambda: environment.policy == ScalingPolicy(0, 12, 50, 30.0, 1))


async def test_a_read_only_session_changes_nothing() -> None:
    async with opened(readonly=True) as (app, pilot, environment):
        await go(app, pilot, "6")
        await pilot.press("plus", "minus", "s", "p", "e", "R", "u")
        await go(app, pilot, "1")
        await pilot.press("s", "S", "D")
        await pilot.pause()
        assert app.screen_stack == [app.screen]
        app.perform(Change("Scale", "nomnom scale 1", act=lambda: environment.scale(WORKER, 1)))
        await until(lambda: "--readonly" in told(app))
        assert not {each.split()[0] for each in environment.asked} & {
            "scale", "pause", "resume", "set_scaling_policy", "restart", "rollback", "start", "stop", "destroy",
        }  # fmt: skip


async def test_destroying_asks_for_the_name() -> None:
    async with opened() as (app, pilot, environment):
        await go(app, pilot, "1")
        await until(lambda: app.screen.query_one("#told", Static).content)
        await pilot.press("D")
        assert isinstance(app.screen, AskDialog)
        assert "everything in local" in str(app.screen.query_one("#text", Static).content)
        await pilot.press("y", "e", "s", "enter")
        assert isinstance(app.screen, AskDialog)
        app.screen.query_one(Input).value = "local"
        await pilot.press("enter")
        await until(lambda: "destroy" in environment.asked)


async def test_no_is_no() -> None:
    async with opened() as (app, pilot, environment):
        await go(app, pilot, "6")
        for answer in ("n", "escape", "enter"):
            await pilot.press("R")
            assert isinstance(app.screen, AskDialog)
            await pilot.press(answer)
            await pilot.pause()
            assert isinstance(app.screen, WorkersView)
        assert f"restart {WORKER}" not in environment.asked


async def test_a_change_that_fails_is_told() -> None:
    class Failing(FakeEnvironment):
        async def scale(self, component: str, replicas: int) -> None:
            raise ControlError(f"{component} cannot be scaled to {replicas}: nothing runs; nomnom up starts it")

    async with opened(Failing()) as (app, pilot, _):
        await go(app, pilot, "6")
        await pilot.press("plus")
        await until(lambda: "nomnom up starts it" in told(app))


async def test_rolling_back_to_a_revision() -> None:
    async with opened() as (app, pilot, environment):
        await go(app, pilot, "6")
        await pilot.press("H")
        view = app.screen
        assert isinstance(view, HistoryView)
        await until(lambda: view._table.rows)
        await pilot.press("j")
        await pilot.pause()
        assert "BATCH_SIZE=200" in str(view.query_one("#told", Static).content)
        await pilot.press("enter", "y")
        await until(lambda: f"rollback {WORKER} 2" in environment.asked)


# Operations


async def test_an_operation_shows_its_steps() -> None:
    async with opened() as (app, pilot, _):
        await go(app, pilot, "6")
        await pilot.press("R", "y")
        await until(lambda: isinstance(app.screen, OperationView))
        await until(lambda: app.operations and app.operations[-1].outcome is Outcome.DONE)
        operation = app.operations[-1]
        assert [each.name for each in operation.steps] == ["worker-1", "worker-2"]
        assert all(each.state is Step.DONE for each in operation.steps)
        assert list(operation.steps[0].output) == ["worker-1 says something"]
        await pilot.press("escape")
        assert isinstance(app.screen, WorkersView)
        await pilot.press("ctrl+o")
        assert isinstance(app.screen, OperationView)


class Slow(FakeEnvironment):
    """Its restart stands still in the second step the first time, fails there the second, and ends the third."""

    runs = 0
    closed = 0

    async def _restart(self) -> AsyncIterator[Progress]:
        self.runs += 1
        run = self.runs
        try:
            yield Progress("first", Step.STARTED)
            yield Progress("first", Step.DONE if run == 1 else Step.SKIPPED, "", 0.1)
            yield Progress("second", Step.STARTED)
            if run == 1:
                await asyncio.Event().wait()
            if run == 2:
                raise ControlError("worker-2 did not become ready: exit code 1")
            yield Progress("second", Step.DONE, "", 0.1)
        finally:
            self.closed += 1

    def restart(self, component: str) -> AsyncIterator[Progress]:
        return self._restart()


async def test_an_operation_is_left_cancelled_and_tried_again() -> None:
    environment = Slow()
    async with opened(environment) as (app, pilot, _):
        await go(app, pilot, "6")
        await pilot.press("R", "y")
        await until(lambda: app.operations and app.operations[-1].now == "second")
        operation = app.operations[-1]
        await pilot.press("escape")
        assert isinstance(app.screen, WorkersView)
        assert operation.running, "leaving its screen does not end it"
        await pilot.press("q")
        assert isinstance(app.screen, AskDialog), "quitting would end it: that is asked"
        await pilot.press("n", "ctrl+o", "c")
        await until(lambda: operation.outcome is Outcome.CANCELLED)
        assert environment.closed == 1
        await pilot.press("t")
        await until(lambda: operation.outcome is Outcome.FAILED)
        assert "worker-2 did not become ready" in operation.problem
        await pilot.press("t")
        await until(lambda: operation.outcome is Outcome.DONE)
        assert [each.state for each in operation.steps] == [Step.SKIPPED, Step.DONE]


# A dead environment


async def test_an_environment_that_does_not_answer_is_a_state() -> None:
    environment = FakeEnvironment()
    async with opened(environment) as (app, pilot, _):
        await go(app, pilot, "6")
        environment.broken = "the supervisor of /data/nomnom does not answer: Connection refused"
        await until(lambda: app.heartbeat.problem)
        notice = app.screen.query_one("#scaling Notice", Static)
        await until(lambda: notice.display)
        assert "the supervisor of /data/nomnom does not answer" in str(notice.content)
        assert "retry in" in str(notice.content) or "trying again" in str(notice.content)
        assert "shown as of" in str(notice.content)
        await pilot.press("2", "8", "1", "6")
        environment.broken = None
        await pilot.press("r")
        await until(lambda: not notice.display)


async def test_a_start_is_offered_where_nothing_runs() -> None:
    environment = FakeEnvironment(stopped=True)
    async with opened(environment) as (app, pilot, _):
        await until(lambda: isinstance(app.screen, FormDialog))
        await pilot.press("enter")
        await until(lambda: "start" in environment.asked)
        await until(lambda: app.operations and app.operations[-1].outcome is Outcome.DONE)


# Logs


async def test_logs_are_filtered_by_keys_and_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    async with opened() as (app, pilot, _):
        await pilot.press("8")
        view = app.screen
        assert isinstance(view, LogsView)
        pane = view.query_one(LogPane)
        await until(lambda: pane.total == 18)
        await pilot.press("l", "l")
        assert {entry.line.level for entry in pane.shown} == {"warning", "error"}
        await pilot.press("slash", *"dead", "enter")
        assert [entry.line.level for entry in pane.shown] == ["error"] * 3
        await pilot.press("ctrl+s")
        await until(lambda: "3 lines" in told(app))
        saved = _lines_saved(tmp_path)
        assert len(saved) == 3
        assert all("message is a dead letter" in each for each in saved)
        await pilot.press("escape")
        await until(lambda: len(pane.shown) == 18)
        await pilot.press("c")
        assert {entry.line.component for entry in pane.shown} == {"api"}
        await pilot.press("escape", "f", *"batch", "enter", "w", "n", "N", "s")
        assert pane.wrap
        await pilot.press("slash", "[")
        assert view.query_one("#pattern", Input).has_class("-invalid"), "half a pattern is no error"


def _lines_saved(folder: Path) -> list[str]:
    return next(folder.glob("*.log")).read_text().splitlines()


async def test_a_crash_in_the_logs_is_followed_through() -> None:
    class Breaking(FakeEnvironment):
        times = 0

        async def logs(self, components=(), *, follow=False, tail=100):
            self.times += 1
            for line in self.lines[: 6 * self.times]:
                yield line
            raise ControlError("the log folder is away")

    async with opened(Breaking()) as (app, pilot, _):
        await pilot.press("8")
        view = app.screen
        pane = view.query_one(LogPane)
        await until(lambda: pane.total == 6)
        await until(lambda: "the log folder is away" in str(view.query_one("Notice", Static).content))
        await until(lambda: pane.total == 12)
        assert len({entry.line.at for entry in pane.shown}) == 12, "no line twice"
