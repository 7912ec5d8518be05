"""Every action on a real local pipeline: started, watched, scaled, restarted, rolled back, stopped, destroyed."""

from __future__ import annotations

import asyncio
import os
import signal
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import psutil
import pytest
from textual.pilot import Pilot
from textual.widgets import Input

from conftest import ORDER
from nomnom_control.environments import WORKER, Environment, Health
from nomnom_control.environments.local.environment import LocalEnvironment
from nomnom_tui.app.application import NomnomApp
from nomnom_tui.app.operations import Outcome
from nomnom_tui.app.preferences import Preferences
from nomnom_tui.app.session import Session
from nomnom_tui.screens.environments import EnvironmentsView
from nomnom_tui.screens.history import HistoryView
from nomnom_tui.screens.overview import OverviewView
from nomnom_tui.screens.workers import WorkersView
from nomnom_tui.widgets.dialogs import AskDialog, FormDialog
from nomnom_tui.widgets.log_pane import LogPane
from tui.test_shell import told, until

PATIENCE = 30.0


@asynccontextmanager
async def opened(environment: Environment) -> AsyncIterator[tuple[NomnomApp, Pilot[int]]]:
    """The app on this environment."""
    app = NomnomApp(Session(), Preferences(Path("tui.toml")), choose=lambda: environment)
    async with app.run_test(size=(120, 40)) as pilot:
        await until(lambda: app.heartbeat.at, PATIENCE)
        yield app, pilot


@asynccontextmanager
async def started(folder: Path) -> AsyncIterator[LocalEnvironment]:
    """An instance with one worker at least, destroyed at the end."""
    environment = LocalEnvironment(folder, {"minimum": "1"})
    async for _ in environment.start():
        pass
    yield environment
    async for _ in environment.destroy():
        pass


async def finished(app: NomnomApp) -> None:
    """Wait for the last operation's success."""
    await until(lambda: app.operations and not app.operations[-1].running, PATIENCE)
    last = app.operations[-1]
    assert last.outcome is Outcome.DONE, f"{last.title}: {last.problem}"


async def workers(app: NomnomApp, pilot: Pilot[int]) -> WorkersView:
    """The workers' screen with its first answer."""
    await pilot.press("6")
    view = app.screen
    assert isinstance(view, WorkersView)
    await until(lambda: view._scaling, PATIENCE)
    return view


@pytest.fixture(scope="module")
async def local(server_folder: Path) -> AsyncIterator[LocalEnvironment]:
    """An instance of this module's own, started from the app's offer as a person would."""
    folder = server_folder / f"app-{uuid.uuid4().hex[:8]}"
    environment = LocalEnvironment(folder)
    async with opened(environment) as (app, pilot):
        await until(lambda: isinstance(app.screen, FormDialog), PATIENCE)
        await pilot.pause()
        app.screen.query_one("#field-schema", Input).value = "no-such-schema"
        await pilot.press("enter")
        assert isinstance(app.screen, FormDialog), "a schema that there is not goes nowhere"
        app.screen.query_one("#field-schema", Input).value = "tpch"
        await pilot.press("enter")
        await until(lambda: app.operations, PATIENCE)
        await finished(app)
        await until(lambda: app.heartbeat.health is Health.HEALTHY, PATIENCE)
    yield environment
    if folder.exists():
        async for _ in environment.destroy():
            pass


async def post(environment: Environment, *messages: str) -> None:
    """Post messages to the pipeline's api."""
    endpoints = await environment.endpoints()
    async with httpx.AsyncClient(base_url=endpoints.api, timeout=20) as client:
        answer = await client.post(
            "/api/ingest/batch", content="\n".join(messages), headers={"content-type": "text/plain"}
        )
    assert answer.status_code == 202, answer.text


def orders(count: int) -> list[str]:
    """Orders with keys of their own."""
    first = uuid.uuid4().int % 10**12
    return [ORDER.replace("|123|", f"|{first + at}|") for at in range(count)]


async def test_records_are_seen_on_their_way(local: LocalEnvironment) -> None:
    async with opened(local) as (app, _):
        view = app.screen
        assert isinstance(view, OverviewView)
        await until(lambda: view._last, PATIENCE)
        await post(local, *orders(300), ORDER.replace("2024-01-01", "2024-13-01"))
        await until(lambda: view._last and view._last.dead_letters == 1 and view._last.lag == 0, PATIENCE)
        assert "1 dead letter waits" in "\n".join(each.text for each in view._alerts.rows)
        assert any((each.accepted or 0) > 0 for each in view._moments)
        assert any((each.processed or 0) > 0 for each in view._moments)


async def test_scaling_by_hand_pausing_and_the_rule(local: LocalEnvironment) -> None:
    async with opened(local) as (app, pilot):
        view = await workers(app, pilot)
        await pilot.press("colon", *"scale", "space", "2", "enter")
        await until(lambda: view._scaling and view._scaling.paused and view._scaling.ready == 2, PATIENCE)
        assert view.query_one("#banner").display
        assert "nomnom scale 2 --dir" in told(app)
        await until(lambda: len(view._replicas.rows) == 2, PATIENCE)
        await pilot.press("minus")
        await until(lambda: view._scaling and view._scaling.desired == 1, PATIENCE)
        await pilot.press("e")
        view_form = app.screen
        assert isinstance(view_form, FormDialog)
        view_form.query_one("#field-minimum", Input).value = "1"
        view_form.query_one("#field-threshold", Input).value = "50"
        await pilot.press("enter")
        await until(lambda: view._scaling and view._scaling.rule.threshold == 50, PATIENCE)
        await pilot.press("p")
        await until(lambda: view._scaling and not view._scaling.paused, PATIENCE)
        assert (await local.scaling()).rule.minimum == 1


async def test_each_workers_own_figures(local: LocalEnvironment) -> None:
    async with opened(local) as (app, pilot):
        view = await workers(app, pilot)
        await until(lambda: view._rates, PATIENCE)
        await post(local, *orders(400))
        await until(lambda: any(each.rate for each in view._rates.values()), PATIENCE)


async def test_restart_is_seen_in_the_logs_and_as_an_operation(local: LocalEnvironment) -> None:
    async with opened(local) as (app, pilot):
        await pilot.press("8")
        pane = app.screen.query_one(LogPane)
        await until(lambda: pane.total, PATIENCE)
        await workers(app, pilot)
        before = await _pids(local)
        await pilot.press("R")
        assert isinstance(app.screen, AskDialog)
        await pilot.press("y")
        await until(lambda: app.operations, PATIENCE)
        await finished(app)
        await until(lambda: app.heartbeat.health is Health.HEALTHY, PATIENCE)
        assert not before & await _pids(local), "every worker is another process"
        await pilot.press("8")
        seen = len(pane.shown)
        await post(local, ORDER.replace("2024-01-01", "2024-13-02"))
        await until(lambda: any("dead letter" in each.line.text for each in pane.shown[seen:]), PATIENCE)


async def test_history_and_rolling_back(local: LocalEnvironment) -> None:
    async for _ in local.configure(WORKER, {"BATCH_SIZE": "77"}, "a smaller batch"):
        pass
    async with opened(local) as (app, pilot):
        await workers(app, pilot)
        await pilot.press("H")
        view = app.screen
        assert isinstance(view, HistoryView)
        await until(lambda: any(each.cause == "a smaller batch" for each in view._table.rows), PATIENCE)
        await pilot.press("j")
        await pilot.press("enter")
        assert isinstance(app.screen, AskDialog)
        await pilot.press("y")
        await until(lambda: app.operations, PATIENCE)
        await finished(app)
    current = next(each for each in await local.history(WORKER) if each.current)
    assert "BATCH_SIZE" not in current.settings
    assert "rollback" in current.cause


async def test_a_killed_supervisor_is_a_state_and_a_start_away(local: LocalEnvironment) -> None:
    async with opened(local) as (app, pilot):
        os.kill(_supervisor(local), signal.SIGKILL)
        await until(lambda: app.heartbeat.problem or app.heartbeat.stopped, PATIENCE)
        await pilot.press("6", "8", "2", "1")
        view = app.screen
        assert isinstance(view, EnvironmentsView)
        await pilot.press("s")
        await until(lambda: isinstance(app.screen, FormDialog), PATIENCE)
        await pilot.pause()
        await pilot.press("enter")
        await until(lambda: app.operations, PATIENCE)
        await finished(app)
        await until(lambda: app.heartbeat.health is Health.HEALTHY, PATIENCE)
        await pilot.press("2")
        overview = app.screen
        assert isinstance(overview, OverviewView)
        await until(lambda: overview._last and overview._last.dead_letters == 2, PATIENCE)


async def test_stopping_and_destroying(local: LocalEnvironment) -> None:
    folder = local.instance.folder
    async with opened(local) as (app, pilot):
        await pilot.press("1")
        view = app.screen
        assert isinstance(view, EnvironmentsView)
        await until(lambda: view._table.rows and view._table.rows[0].endpoints, PATIENCE)
        shown = str(view.query_one("#told").render())
        assert "postgresql://postgres:***@" in shown, "no password on the screen"
        await pilot.press("S", "y")
        await until(lambda: app.operations, PATIENCE)
        await finished(app)
        await until(lambda: app.heartbeat.stopped, PATIENCE)
        await pilot.press("escape", "D")
        await until(lambda: isinstance(app.screen, AskDialog), PATIENCE)
        await pilot.pause()
        assert folder.exists()
        app.screen.query_one(Input).value = "local"
        await pilot.press("enter")
        await until(lambda: len(app.operations) == 2, PATIENCE)
        await finished(app)
    assert not folder.exists()


async def _pids(environment: LocalEnvironment) -> set[int]:
    """The processes of the instance's workers."""
    marker = str(environment.instance.folder)

    def search() -> set[int]:
        found: set[int] = set()
        for process in psutil.process_iter(["cmdline"]):
            command = process.info["cmdline"] or []
            if "nomnom_worker" in command and process.environ().get("NOMNOM_INSTANCE") == marker:
                found.add(process.pid)
        return found

    return await asyncio.to_thread(search)


def _supervisor(environment: LocalEnvironment) -> int:
    """The process that supervises this instance."""
    folder = str(environment.instance.folder)
    return next(
        each.pid
        for each in psutil.process_iter(["cmdline"])
        if {"nomnom_control.environments.local", folder} <= set(each.info["cmdline"] or [])
    )
