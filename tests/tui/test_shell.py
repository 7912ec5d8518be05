"""The app around the screens: navigation, keys, command line, changes and confirmations, operations, logs."""

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
from nomnom_tui.app.operations import OperationState
from nomnom_tui.app.preferences import Preferences, read_preferences
from nomnom_tui.app.view import View
from nomnom_tui.screens.history import HistoryView
from nomnom_tui.screens.logs import LogsView
from nomnom_tui.screens.operation import OperationView
from nomnom_tui.screens.workers import WorkersView
from nomnom_tui.widgets.dialogs import ConfirmDialog, FormDialog
from nomnom_tui.widgets.help import HelpDialog
from nomnom_tui.widgets.log_pane import LogPane
from nomnom_tui.widgets.prompt import Prompt
from tui.fakes import FakeEnvironment, FakeSession


async def until(condition: Callable[[], object], limit: float = 8.0) -> None:
    """Wait until the condition is true."""
    async with asyncio.timeout(limit):
        while not condition():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def opened(
    environment: FakeEnvironment | None = None, *, readonly: bool = False, preferences: Preferences | None = None
) -> AsyncIterator[tuple[NomnomApp, Pilot[int], FakeEnvironment]]:
    """Open the app on a fake environment, with the first heartbeat."""
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


def notifications(app: NomnomApp) -> str:
    """Return the text of all notifications."""
    return "\n".join(f"{each.title} {each.message}" for each in app._notifications)


# Navigation


async def test_go_to_screens_by_key_and_back() -> None:
    async with opened() as (app, pilot, _):
        await pilot.press("6", "8", "1")
        assert app.breadcrumbs == ["local", "Environments"]
        await pilot.press("escape")
        assert app.breadcrumbs == ["local", "Logs"]
        await pilot.press("escape", "escape", "escape", "escape")
        assert app.breadcrumbs == ["local", "Overview"]


async def test_every_route_opens_by_key_and_by_name() -> None:
    async with opened() as (app, pilot, _):
        for route in app.routes:
            await pilot.press(route.key)
            assert app.current_mode == route.name
        for route in app.routes:
            app.run_command(route.name)
            await until(lambda route=route: app.current_mode == route.name)
            assert isinstance(app.screen, View)


async def test_detail_view_is_kept_while_another_screen_is_visible() -> None:
    async with opened() as (app, pilot, _):
        await go(app, pilot, "6")
        await pilot.press("H")
        assert app.breadcrumbs == ["local", "Workers", "worker history"]
        await pilot.press("8", "6")
        assert isinstance(app.screen, HistoryView)
        await pilot.press("escape")
        assert isinstance(app.screen, WorkersView)


async def test_hidden_screens_do_not_load() -> None:
    async with opened() as (app, pilot, environment):
        await go(app, pilot, "6")
        await pilot.press("1")
        await pilot.pause()
        environment.requests.clear()
        await asyncio.sleep(2.5)
        assert "history" not in environment.requests
        # The heartbeat loads every two seconds; the workers screen would every second.
        assert environment.requests.count("scaling") <= 2


async def test_help_lists_every_key_of_the_screen() -> None:
    async with opened() as (app, pilot, _):
        for route in app.routes:
            await pilot.press(route.key)
            view = app.screen
            assert isinstance(view, View)
            expected = {each.description for each in type(view).BINDINGS}  # pyright: ignore[reportAttributeAccessIssue]
            await pilot.press("question_mark")
            dialog = app.screen
            assert isinstance(dialog, HelpDialog)
            text = str(dialog.query_one(Static).content)
            assert all(each in text for each in expected), expected
            assert "view.refresh" in text
            await pilot.press("escape")


async def test_settings_file_rebinds_keys(tmp_path: Path) -> None:
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


async def test_invalid_settings_file_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "tui.toml"
    path.write_text('theme = "nonsense"\n')
    async with opened(preferences=read_preferences(path)) as (app, _, __):
        assert "unknown theme 'nonsense'" in notifications(app)


# The command line and the palette


async def test_command_line_completes_and_runs() -> None:
    async with opened() as (app, pilot, environment):
        await go(app, pilot, "6")
        await pilot.press("colon")
        assert isinstance(app.screen, Prompt)
        await pilot.press("s", "c", "a", "tab")
        assert app.screen.query_one(Input).value == "scale "
        await pilot.press("5", "enter")
        await until(lambda: "scale worker 5" in environment.requests)
        await until(lambda: "$ nomnom scale 5" in notifications(app))


async def test_unknown_command_is_reported() -> None:
    async with opened() as (app, pilot, _):
        await pilot.press("colon", *"fly", "enter")
        await until(lambda: "unknown command 'fly'" in notifications(app))


async def test_palette_offers_only_available_commands() -> None:
    async with opened() as (app, pilot, _):
        commands = {each.title for each in app.get_system_commands(app.screen)}
        assert {"overview", "workers", "help", "quit"} <= commands
        assert "restart" not in commands
        await go(app, pilot, "6")
        assert "restart" in {each.title for each in app.get_system_commands(app.screen)}
    async with opened(readonly=True) as (app, pilot, _):
        await go(app, pilot, "6")
        commands = {each.title for each in app.get_system_commands(app.screen)}
        assert "restart" not in commands
        assert "history" in commands


# Changes


async def test_manual_scaling() -> None:
    async with opened() as (app, pilot, environment):
        await go(app, pilot, "6")
        await pilot.press("plus")
        await until(lambda: "scale worker 4" in environment.requests)
        await pilot.press("s")
        assert isinstance(app.screen, FormDialog)
        app.screen.query_one(Input).value = "x"
        await pilot.press("enter")
        assert isinstance(app.screen, FormDialog), "an invalid value is not accepted"
        app.screen.query_one(Input).value = "2"
        await pilot.press("enter")
        await until(lambda: "scale worker 2" in environment.requests)
        await until(lambda: app.screen.query_one("#banner").display)
        await pilot.press("p")
        await until(lambda: "resume" in environment.requests)


async def test_edit_the_autoscaling_policy() -> None:
    async with opened() as (app, pilot, environment):
        await go(app, pilot, "6")
        await pilot.press("e")
        app.screen.query_one("#field-maximum", Input).value = "12"
        app.screen.query_one("#field-threshold", Input).value = "50"
        await pilot.pause()
        preview = str(app.screen.query_one("#preview", Static).content)
        assert "At the current stream lag of 1,234: 12 workers" in preview
        assert "nomnom scale --min 0 --max 12 --threshold 50 --cooldown 30" in preview
        await pilot.press("enter")
        await until(lambda: environment.policy == ScalingPolicy(0, 12, 50, 30.0, 1))


async def test_read_only_session_changes_nothing() -> None:
    async with opened(readonly=True) as (app, pilot, environment):
        await go(app, pilot, "6")
        await pilot.press("plus", "minus", "s", "p", "e", "R", "u")
        await go(app, pilot, "1")
        await pilot.press("s", "S", "D")
        await pilot.pause()
        assert app.screen_stack == [app.screen]
        app.perform(Change("Scale", "nomnom scale 1", act=lambda: environment.scale(WORKER, 1)))
        await until(lambda: "--readonly" in notifications(app))
        assert not {each.split()[0] for each in environment.requests} & {
            "scale", "pause", "resume", "set_scaling_policy", "restart", "rollback", "start", "stop", "destroy",
        }  # fmt: skip


async def test_destroy_requires_typing_the_name() -> None:
    async with opened() as (app, pilot, environment):
        await go(app, pilot, "1")
        await until(lambda: app.screen.query_one("#summary", Static).content)
        await pilot.press("D")
        assert isinstance(app.screen, ConfirmDialog)
        assert "everything in local" in str(app.screen.query_one("#text", Static).content)
        await pilot.press("y", "e", "s", "enter")
        assert isinstance(app.screen, ConfirmDialog)
        app.screen.query_one(Input).value = "local"
        await pilot.press("enter")
        await until(lambda: "destroy" in environment.requests)


async def test_declined_change_is_not_made() -> None:
    async with opened() as (app, pilot, environment):
        await go(app, pilot, "6")
        for answer in ("n", "escape", "enter"):
            await pilot.press("R")
            assert isinstance(app.screen, ConfirmDialog)
            await pilot.press(answer)
            await pilot.pause()
            assert isinstance(app.screen, WorkersView)
        assert f"restart {WORKER}" not in environment.requests


async def test_failed_change_is_reported() -> None:
    class Failing(FakeEnvironment):
        async def scale(self, component: str, replicas: int) -> None:
            raise ControlError(
                f"cannot scale {component} to {replicas}: the pipeline is not running; start it with nomnom up"
            )

    async with opened(Failing()) as (app, pilot, _):
        await go(app, pilot, "6")
        await pilot.press("plus")
        await until(lambda: "start it with nomnom up" in notifications(app))


async def test_roll_back_to_a_revision() -> None:
    async with opened() as (app, pilot, environment):
        await go(app, pilot, "6")
        await pilot.press("H")
        view = app.screen
        assert isinstance(view, HistoryView)
        await until(lambda: view._table.rows)
        await pilot.press("j")
        await pilot.pause()
        assert "BATCH_SIZE=200" in str(view.query_one("#comparison", Static).content)
        await pilot.press("enter", "y")
        await until(lambda: f"rollback {WORKER} 2" in environment.requests)


# Operations


async def test_operation_shows_its_steps() -> None:
    async with opened() as (app, pilot, _):
        await go(app, pilot, "6")
        await pilot.press("R", "y")
        await until(lambda: isinstance(app.screen, OperationView))
        await until(lambda: app.operations and app.operations[-1].state is OperationState.DONE)
        operation = app.operations[-1]
        assert [each.name for each in operation.steps] == ["worker-1", "worker-2"]
        assert all(each.state is Step.DONE for each in operation.steps)
        assert list(operation.steps[0].output) == ["output of worker-1"]
        await pilot.press("escape")
        assert isinstance(app.screen, WorkersView)
        await pilot.press("ctrl+o")
        assert isinstance(app.screen, OperationView)


class Slow(FakeEnvironment):
    """Its restart blocks in the second step the first time, fails there the second time, then succeeds."""

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


async def test_operation_is_cancelled_and_retried() -> None:
    environment = Slow()
    async with opened(environment) as (app, pilot, _):
        await go(app, pilot, "6")
        await pilot.press("R", "y")
        await until(lambda: app.operations and app.operations[-1].current_step == "second")
        operation = app.operations[-1]
        await pilot.press("escape")
        assert isinstance(app.screen, WorkersView)
        assert operation.running, "leaving the screen does not stop it"
        await pilot.press("q")
        assert isinstance(app.screen, ConfirmDialog), "quitting while an operation is running asks first"
        await pilot.press("n", "ctrl+o", "c")
        await until(lambda: operation.state is OperationState.CANCELLED)
        assert environment.closed == 1
        await pilot.press("t")
        await until(lambda: operation.state is OperationState.FAILED)
        assert "worker-2 did not become ready" in operation.problem
        await pilot.press("t")
        await until(lambda: operation.state is OperationState.DONE)
        assert [each.state for each in operation.steps] == [Step.SKIPPED, Step.DONE]


# Unavailable environments


async def test_unavailable_environment_is_shown_and_recovers() -> None:
    environment = FakeEnvironment()
    async with opened(environment) as (app, pilot, _):
        await go(app, pilot, "6")
        environment.broken = "cannot reach the supervisor of /data/nomnom: connection refused"
        await until(lambda: app.heartbeat.problem)
        notice = app.screen.query_one("#scaling Notice", Static)
        await until(lambda: notice.display)
        assert "cannot reach the supervisor of /data/nomnom" in str(notice.content)
        assert "retry in" in str(notice.content) or "retrying" in str(notice.content)
        assert "showing data from" in str(notice.content)
        await pilot.press("2", "8", "1", "6")
        environment.broken = None
        await pilot.press("r")
        await until(lambda: not notice.display)


async def test_start_form_opens_if_nothing_is_running() -> None:
    environment = FakeEnvironment(stopped=True)
    async with opened(environment) as (app, pilot, _):
        await until(lambda: isinstance(app.screen, FormDialog))
        await pilot.press("enter")
        await until(lambda: "start" in environment.requests)
        await until(lambda: app.operations and app.operations[-1].state is OperationState.DONE)


# Logs


async def test_logs_are_filtered_and_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
        await until(lambda: "3 lines" in notifications(app))
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
        assert view.query_one("#pattern", Input).has_class("-invalid"), "an incomplete pattern is marked as invalid"


def _lines_saved(folder: Path) -> list[str]:
    return next(folder.glob("*.log")).read_text().splitlines()


async def test_log_reader_resumes_after_an_error() -> None:
    class Breaking(FakeEnvironment):
        times = 0

        async def logs(self, components=(), *, follow=False, tail=100):
            self.times += 1
            for line in self.lines[: 6 * self.times]:
                yield line
            raise ControlError("cannot read the log directory")

    async with opened(Breaking()) as (app, pilot, _):
        await pilot.press("8")
        view = app.screen
        pane = view.query_one(LogPane)
        await until(lambda: pane.total == 6)
        await until(lambda: "cannot read the log directory" in str(view.query_one("Notice", Static).content))
        await until(lambda: pane.total == 12)
        assert len({entry.line.at for entry in pane.shown}) == 12, "a line appears twice"
