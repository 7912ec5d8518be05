"""Snapshots of the screens with fixed data, at both sizes."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path

import pytest
from textual.pilot import Pilot
from textual.widgets import Input

from nomnom.presentation import figures
from nomnom_control.environments import EnvironmentTemplate
from nomnom_control.environments.cluster.source import ClusterEnvironments
from nomnom_tui.app.application import NomnomApp
from nomnom_tui.app.heartbeat import Sample
from nomnom_tui.app.preferences import Preferences
from nomnom_tui.app.view import View
from nomnom_tui.screens import overview
from nomnom_tui.widgets.panel import Notice
from nomnom_tui.widgets.plot import TimePlot
from tui.fakes import ANSWERS, MOMENT, FakeEnvironment, FakeSession
from tui.snapshots import compare, snapshot

PLOTS = ("#plot-panel", "#throughput", "#backlog")
SMALL, MIDDLE, LARGE = (80, 24), (100, 30), (200, 60)


@pytest.fixture(autouse=True)
def frozen_clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Freeze the time, in UTC."""
    monkeypatch.setattr(figures, "present", lambda: MOMENT)
    monkeypatch.setattr(overview, "_INTERVAL", 0.02)
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def frozen_app(environment: FakeEnvironment | None = None, *, readonly: bool = False) -> NomnomApp:
    """Return the app on the fake environment, with ten minutes of history."""
    app = NomnomApp(FakeSession(environment or FakeEnvironment(), readonly=readonly), Preferences(Path("tui.toml")))
    for ago in range(598, 0, -2):
        lag = int(max(0.0, 1500 * math.sin(ago / 80)))
        desired = min(4, -(-lag // 500))
        starting = 1 if ago % 80 < 8 and desired else 0
        app.history.append(Sample(MOMENT - timedelta(seconds=ago), lag, desired, desired, desired - starting))
    return app


async def settled(pilot: Pilot[int]) -> None:
    """Wait until all responses of the fake pipeline are drawn."""
    app = pilot.app
    assert isinstance(app, NomnomApp)
    assert isinstance(app.session, FakeSession)
    async with asyncio.timeout(10):
        while app.heartbeat.at is None or (app.session.fake.requests <= ANSWERS and not app.heartbeat.stopped):
            await asyncio.sleep(0.02)
    await drawn(pilot)


async def drawn(pilot: Pilot[int]) -> None:
    """Wait until the screen is stable: complete and unchanged three times."""
    assert isinstance(pilot.app, NomnomApp)
    same, last = 0, ""
    async with asyncio.timeout(10):
        while same < 3:
            for line in pilot.app.screen.query(Input):
                line.cursor_blink = False
            await pilot.pause(0.05)
            current = snapshot(pilot.app)
            same = same + 1 if current == last and _complete(pilot.app) else 0
            last = current


def _complete(app: NomnomApp) -> bool:
    """Whether everything on the screen has its data: panels and plots (which are imported late)."""
    views = [each for each in app.screen_stack if isinstance(each, View)]
    waiting = any(each.display for view in views for each in view.query(Notice))
    plots = [each for view in views for panel in PLOTS for each in view.query(panel) if each.display and each.size]
    return (
        not waiting
        and all(plot._series for panel in plots for plot in panel.query(TimePlot))
        and all(panel.query(TimePlot) for panel in plots)
    )


@pytest.mark.parametrize("size", [SMALL, LARGE], ids=["80x24", "200x60"])
async def test_screens(size: tuple[int, int]) -> None:
    app = frozen_app()
    async with app.run_test(size=size) as pilot:
        await settled(pilot)
        for name, key in (("overview", "2"), ("environments", "1"), ("workers", "6"), ("logs", "8")):
            await pilot.press(key)
            await drawn(pilot)
            compare(app, f"{name}-{size[0]}x{size[1]}")


async def test_dialogs_and_details() -> None:
    app = frozen_app()
    async with app.run_test(size=MIDDLE) as pilot:
        await settled(pilot)
        for name, keys in (
            ("light", "2 ctrl+t"),
            ("help", "ctrl+t 6 question_mark"),
            ("command-line", "escape colon s c"),
            ("scaling-policy", "escape e"),
            ("history", "escape H j"),
            ("log-line", "escape 8 k k enter"),
            ("destroy", "escape 1 D"),
        ):
            for key in keys.split():
                await pilot.press(key)
                if key.isdigit():
                    # The next keys need the screen's data.
                    await drawn(pilot)
            await drawn(pilot)
            compare(app, name)


@pytest.mark.parametrize("name", ["readonly", "paused"])
async def test_states(name: str) -> None:
    environment = FakeEnvironment()
    environment.paused = name == "paused"
    app = frozen_app(environment, readonly=name == "readonly")
    async with app.run_test(size=MIDDLE) as pilot:
        await settled(pilot)
        await pilot.press("6")
        await drawn(pilot)
        compare(app, name)


async def test_nothing_is_running() -> None:
    app = frozen_app(FakeEnvironment(stopped=True))
    async with app.run_test(size=MIDDLE) as pilot:
        await settled(pilot)
        await drawn(pilot)
        compare(app, "nothing-runs")


async def test_create_a_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOMNOM_CLUSTERS", str(tmp_path / "clusters.yaml"))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    (tmp_path / "config").write_text("contexts: [{name: production, context: {}}]\n")
    for name in ("NODE_IMAGE", "ADDONS", "CHART", "KIND_CONFIG", "IMAGE_REGISTRY", "IMAGE_TAG"):
        monkeypatch.delenv(f"NOMNOM_{name}", raising=False)

    async def templates() -> Sequence[EnvironmentTemplate]:
        return ClusterEnvironments().templates()

    app = NomnomApp(FakeSession(FakeEnvironment()), Preferences(Path("tui.toml")), templates=templates)
    async with app.run_test(size=(100, 34)) as pilot:
        await settled(pilot)
        await pilot.press("1")
        await drawn(pilot)
        for name, key in (("environment-kinds", "n"), ("environment-new", "enter")):
            await pilot.press(key)
            await pilot.pause(0.3)
            await drawn(pilot)
            compare(app, name)
