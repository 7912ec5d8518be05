"""Every action on a real local pipeline: start, watch, scale, restart, roll back, stop, destroy."""

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
from nomnom_tui.app.operations import OperationState
from nomnom_tui.app.preferences import Preferences
from nomnom_tui.app.session import Session
from nomnom_tui.screens.environments import EnvironmentsView
from nomnom_tui.screens.history import HistoryView
from nomnom_tui.screens.overview import OverviewView
from nomnom_tui.screens.workers import WorkersView
from nomnom_tui.widgets.dialogs import ConfirmDialog, FormDialog
from nomnom_tui.widgets.log_pane import LogPane
from tui.test_shell import notifications, until

TIMEOUT = 30.0


@asynccontextmanager
async def opened(environment: Environment) -> AsyncIterator[tuple[NomnomApp, Pilot[int]]]:
    """Open the app on this environment."""
    app = NomnomApp(Session(), Preferences(Path("tui.toml")), choose=lambda: environment)
    async with app.run_test(size=(120, 40)) as pilot:
        await until(lambda: app.heartbeat.at, TIMEOUT)
        yield app, pilot


@asynccontextmanager
async def started(folder: Path) -> AsyncIterator[LocalEnvironment]:
    """Start an instance with at least one worker; it is destroyed at the end."""
    environment = LocalEnvironment(folder, {"minimum": "1"})
    async for _ in environment.start():
        pass
    yield environment
    async for _ in environment.destroy():
        pass


async def finished(app: NomnomApp) -> None:
    """Wait until the last operation succeeded."""
    await until(lambda: app.operations and not app.operations[-1].running, TIMEOUT)
    last = app.operations[-1]
    assert last.state is OperationState.DONE, f"{last.title}: {last.problem}"


async def workers(app: NomnomApp, pilot: Pilot[int]) -> WorkersView:
    """Return the workers screen with its first data."""
    await pilot.press("6")
    view = app.screen
    assert isinstance(view, WorkersView)
    await until(lambda: view._scaling, TIMEOUT)
    return view


@pytest.fixture(scope="module")
async def local(server_folder: Path) -> AsyncIterator[LocalEnvironment]:
    """A separate instance for this module, started from the form that the app opens."""
    folder = server_folder / f"app-{uuid.uuid4().hex[:8]}"
    environment = LocalEnvironment(folder)
    async with opened(environment) as (app, pilot):
        await until(lambda: isinstance(app.screen, FormDialog), TIMEOUT)
        await pilot.pause()
        app.screen.query_one("#field-schema", Input).value = "no-such-schema"
        await pilot.press("enter")
        assert isinstance(app.screen, FormDialog), "an unknown schema is not accepted"
        app.screen.query_one("#field-schema", Input).value = "tpch"
        await pilot.press("enter")
        await until(lambda: app.operations, TIMEOUT)
        await finished(app)
        await until(lambda: app.heartbeat.health is Health.HEALTHY, TIMEOUT)
    yield environment
    if folder.exists():
        async for _ in environment.destroy():
            pass


async def post(environment: Environment, *messages: str) -> None:
    """Post messages to the API of the pipeline."""
    endpoints = await environment.endpoints()
    async with httpx.AsyncClient(base_url=endpoints.api, timeout=20) as client:
        response = await client.post(
            "/api/ingest/batch", content="\n".join(messages), headers={"content-type": "text/plain"}
        )
    assert response.status_code == 202, response.text


def orders(count: int) -> list[str]:
    """Return orders with unique keys."""
    first = uuid.uuid4().int % 10**12
    return [ORDER.replace("|123|", f"|{first + at}|") for at in range(count)]


async def test_overview_shows_the_flow_of_messages(local: LocalEnvironment) -> None:
    async with opened(local) as (app, _):
        view = app.screen
        assert isinstance(view, OverviewView)
        await until(lambda: view._last, TIMEOUT)
        await post(local, *orders(300), ORDER.replace("2024-01-01", "2024-13-01"))
        await until(lambda: view._last and view._last.dead_letters == 1 and view._last.lag == 0, TIMEOUT)
        assert "1 dead letter, oldest" in "\n".join(each.text for each in view._alerts.rows)
        assert any((each.accepted or 0) > 0 for each in view._samples)
        assert any((each.processed or 0) > 0 for each in view._samples)


async def test_manual_scaling_pause_and_policy(local: LocalEnvironment) -> None:
    async with opened(local) as (app, pilot):
        view = await workers(app, pilot)
        await pilot.press("colon", *"scale", "space", "2", "enter")
        await until(lambda: "nomnom scale 2 --dir" in notifications(app), TIMEOUT)
        await until(lambda: view._scaling and view._scaling.paused and view._scaling.ready == 2, TIMEOUT)
        assert view.query_one("#banner").display
        await until(lambda: len(view._replicas.rows) == 2, TIMEOUT)
        await pilot.press("minus")
        await until(lambda: view._scaling and view._scaling.desired == 1, TIMEOUT)
        await pilot.press("e")
        form = app.screen
        assert isinstance(form, FormDialog)
        form.query_one("#field-minimum", Input).value = "1"
        form.query_one("#field-threshold", Input).value = "50"
        await pilot.press("enter")
        await until(lambda: view._scaling and view._scaling.policy.threshold == 50, TIMEOUT)
        await pilot.press("p")
        await until(lambda: view._scaling and not view._scaling.paused, TIMEOUT)
        assert (await local.scaling()).policy.minimum == 1


async def test_worker_rates_are_shown(local: LocalEnvironment) -> None:
    async with opened(local) as (app, pilot):
        view = await workers(app, pilot)
        await until(lambda: view._rates, TIMEOUT)
        await post(local, *orders(400))
        await until(lambda: any(each.rate for each in view._rates.values()), TIMEOUT)


async def test_restart_replaces_workers_and_logs_continue(local: LocalEnvironment) -> None:
    async with opened(local) as (app, pilot):
        await pilot.press("8")
        pane = app.screen.query_one(LogPane)
        await until(lambda: pane.total, TIMEOUT)
        await workers(app, pilot)
        before = await _pids(local)
        await pilot.press("R")
        assert isinstance(app.screen, ConfirmDialog)
        await pilot.press("y")
        await until(lambda: app.operations, TIMEOUT)
        await finished(app)
        await until(lambda: app.heartbeat.health is Health.HEALTHY, TIMEOUT)
        assert not before & await _pids(local), "every worker is a new process"
        await pilot.press("8")
        before_post = len(pane.shown)
        await post(local, ORDER.replace("2024-01-01", "2024-13-02"))
        await until(lambda: any("dead letter" in each.line.text for each in pane.shown[before_post:]), TIMEOUT)


async def test_history_and_rollback(local: LocalEnvironment) -> None:
    async for _ in local.configure(WORKER, {"BATCH_SIZE": "77"}, "a smaller batch"):
        pass
    async with opened(local) as (app, pilot):
        await workers(app, pilot)
        await pilot.press("H")
        view = app.screen
        assert isinstance(view, HistoryView)
        await until(lambda: any(each.cause == "a smaller batch" for each in view._table.rows), TIMEOUT)
        await pilot.press("j")
        await pilot.press("enter")
        assert isinstance(app.screen, ConfirmDialog)
        await pilot.press("y")
        await until(lambda: app.operations, TIMEOUT)
        await finished(app)
    current = next(each for each in await local.history(WORKER) if each.current)
    assert "BATCH_SIZE" not in current.variables
    assert "rollback" in current.cause


async def test_killed_supervisor_is_shown_and_can_be_restarted(local: LocalEnvironment) -> None:
    async with opened(local) as (app, pilot):
        os.kill(_supervisor(local), signal.SIGKILL)
        await until(lambda: app.heartbeat.problem or app.heartbeat.stopped, TIMEOUT)
        await pilot.press("6", "8", "2", "1")
        view = app.screen
        assert isinstance(view, EnvironmentsView)
        await pilot.press("s")
        await until(lambda: isinstance(app.screen, FormDialog), TIMEOUT)
        await pilot.pause()
        await pilot.press("enter")
        await until(lambda: app.operations, TIMEOUT)
        await finished(app)
        await until(lambda: app.heartbeat.health is Health.HEALTHY, TIMEOUT)
        await pilot.press("2")
        overview = app.screen
        assert isinstance(overview, OverviewView)
        await until(lambda: overview._last and overview._last.dead_letters == 2, TIMEOUT)


async def test_stop_and_destroy(local: LocalEnvironment) -> None:
    folder = local.instance.folder
    async with opened(local) as (app, pilot):
        await pilot.press("1")
        view = app.screen
        assert isinstance(view, EnvironmentsView)
        await until(lambda: view._table.rows and view._table.rows[0].endpoints, TIMEOUT)
        shown = str(view.query_one("#summary").render())
        assert "postgresql://postgres:***@" in shown, "no password on the screen"
        await pilot.press("S", "y")
        await until(lambda: app.operations, TIMEOUT)
        await finished(app)
        await until(lambda: app.heartbeat.stopped, TIMEOUT)
        await pilot.press("escape", "D")
        await until(lambda: isinstance(app.screen, ConfirmDialog), TIMEOUT)
        await pilot.pause()
        assert folder.exists()
        app.screen.query_one(Input).value = "local"
        await pilot.press("enter")
        await until(lambda: len(app.operations) == 2, TIMEOUT)
        await finished(app)
    assert not folder.exists()


async def _pids(environment: LocalEnvironment) -> set[int]:
    """Return the process IDs of the instance's workers."""
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
    """Return the process ID of the instance's supervisor."""
    folder = str(environment.instance.folder)
    return next(
        each.pid
        for each in psutil.process_iter(["cmdline"])
        if {"nomnom_control.environments.local", folder} <= set(each.info["cmdline"] or [])
    )
