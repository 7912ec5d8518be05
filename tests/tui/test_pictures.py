"""Each screen with fixed data, at both sizes, compared with its stored picture."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from textual.pilot import Pilot
from textual.widgets import Input

from nomnom_tui import figures
from nomnom_tui.application import NomnomApp
from nomnom_tui.preferences import Preferences
from nomnom_tui.pulse import Sample
from nomnom_tui.screens import overview
from tui.pictures import compare, picture
from tui.still import MOMENT, QUESTIONS, StillEnvironment, StillSession

SMALL, LARGE = (80, 24), (200, 60)


@pytest.fixture(autouse=True)
def still_clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One moment, in one zone."""
    monkeypatch.setattr(figures, "present", lambda: MOMENT)
    monkeypatch.setattr(overview, "_EVERY", 0.02)
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def still_app(environment: StillEnvironment | None = None, *, readonly: bool = False) -> NomnomApp:
    """The app on an environment that stands still, with ten minutes of history."""
    app = NomnomApp(StillSession(environment or StillEnvironment(), readonly=readonly), Preferences(Path("tui.toml")))
    for ago in range(598, 0, -2):
        lag = int(max(0.0, 1500 * math.sin(ago / 80)))
        wanted = min(4, -(-lag // 500))
        late = 1 if ago % 80 < 8 and wanted else 0
        app.history.append(Sample(MOMENT - timedelta(seconds=ago), lag, wanted, wanted, wanted - late))
    return app


async def settled(pilot: Pilot[int]) -> None:
    """Wait until all that stands still has been answered and drawn."""
    app = pilot.app
    assert isinstance(app, NomnomApp)
    assert isinstance(app.session, StillSession)
    async with asyncio.timeout(10):
        while app.pulse.at is None or (app.session.still.asked <= QUESTIONS and not app.pulse.stopped):
            await asyncio.sleep(0.02)
    await drawn(pilot)


async def drawn(pilot: Pilot[int]) -> None:
    """Wait until what was asked for is drawn: until the screen looks the same three times."""
    assert isinstance(pilot.app, NomnomApp)
    same, last = 0, ""
    async with asyncio.timeout(10):
        while same < 3:
            for line in pilot.app.screen.query(Input):
                line.cursor_blink = False
            await pilot.pause(0.05)
            now = picture(pilot.app)
            same = same + 1 if now == last else 0
            last = now


@pytest.mark.parametrize("size", [SMALL, LARGE], ids=["80x24", "200x60"])
@pytest.mark.parametrize(("name", "key"), [("environments", "1"), ("overview", "2"), ("workers", "6"), ("logs", "8")])
async def test_screen(name: str, key: str, size: tuple[int, int]) -> None:
    app = still_app()
    async with app.run_test(size=size) as pilot:
        await settled(pilot)
        await pilot.press(key)
        await drawn(pilot)
        compare(app, f"{name}-{size[0]}x{size[1]}")


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("help", "6 ?"),
        ("command-line", "6 : s c"),
        ("scaling-rule", "6 e"),
        ("destroy", "1 D"),
        ("history", "6 H j"),
        ("log-line", "8 k k enter"),
        ("readonly", "6"),
        ("paused", "6"),
        ("light", "2 ctrl+t"),
    ],
)
async def test_details(name: str, keys: str) -> None:
    environment = StillEnvironment()
    environment.paused = name == "paused"
    app = still_app(environment, readonly=name == "readonly")
    async with app.run_test(size=(100, 30)) as pilot:
        await settled(pilot)
        for key in keys.split():
            await pilot.press({"?": "question_mark", ":": "colon"}.get(key, key))
            await drawn(pilot)
        compare(app, name)


async def test_nothing_runs() -> None:
    app = still_app(StillEnvironment(stopped=True))
    async with app.run_test(size=(100, 30)) as pilot:
        await settled(pilot)
        await drawn(pilot)
        compare(app, "nothing-runs")
