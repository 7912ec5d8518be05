"""A real local instance whose servers are killed under the app: every screen says so, tries again, and comes back."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from textual.pilot import Pilot

from conftest import ORDER
from nomnom_control.environments import Health
from nomnom_control.environments.local.channel import ask
from nomnom_control.environments.local.environment import LocalEnvironment
from nomnom_tui.app.application import NomnomApp
from nomnom_tui.app.preferences import Preferences
from nomnom_tui.app.session import Session
from nomnom_tui.screens import PLACES
from nomnom_tui.screens.entities import EntitiesView
from nomnom_tui.screens.entity_rows import EntityRowsView
from nomnom_tui.screens.stream_messages import StreamMessagesView
from nomnom_tui.screens.streams import StreamsView
from nomnom_tui.widgets.panel import Notice
from tui.test_local import orders, post
from tui.test_shell import until

PATIENCE = 40.0
KEYS = {place.name: place.key for place in PLACES}
NEEDS = {"nats": ("streams", "consumers"), "postgres": ("entities",)}
"""Screens that show nothing new without this server."""
SAYS = {"nats": "NATS at", "postgres": "PostgreSQL at"}


@pytest.fixture(scope="module")
async def instance(server_folder: Path) -> AsyncIterator[LocalEnvironment]:
    """An instance of this module's own, with some records in it."""
    folder = server_folder / f"killed-{uuid.uuid4().hex[:8]}"
    environment = LocalEnvironment(folder)
    async for _ in environment.start():
        pass
    await post(environment, *orders(200), ORDER.replace("2024-01-01", "2024-13-01"))
    yield environment
    if folder.exists():
        async for _ in environment.destroy():
            pass


@asynccontextmanager
async def opened(
    environment: LocalEnvironment, size: tuple[int, int] = (120, 40)
) -> AsyncIterator[tuple[NomnomApp, Pilot[int]]]:
    """The app on this environment."""
    app = NomnomApp(Session(), Preferences(Path("tui.toml")), choose=lambda: environment)
    async with app.run_test(size=size) as pilot:
        await until(lambda: app.heartbeat.at, PATIENCE)
        yield app, pilot


async def healthy(app: NomnomApp) -> None:
    """Wait until every component is as it should be."""
    await until(lambda: app.heartbeat.problem is None and app.heartbeat.health is Health.HEALTHY, PATIENCE)


async def servers(environment: LocalEnvironment) -> dict[str, int | None]:
    """The servers' processes, as the supervisor tells; None while it starts one again."""
    status: dict[str, Any] = await ask(environment.instance.socket, "status", {})
    return {name: each["pid"] for name, each in status["servers"].items()}


async def replaced(environment: LocalEnvironment, before: Mapping[str, int | None]) -> None:
    """Wait until every one of these runs again, as another process."""
    async with asyncio.timeout(PATIENCE):
        while True:
            now = await servers(environment)
            if all(now[name] not in (None, pid) for name, pid in before.items()):
                return
            await asyncio.sleep(0.1)


def notices(app: NomnomApp) -> str:
    """What the panels of the present screen say of their data."""
    return " ".join(" ".join(str(each.render()) for each in app.screen.query(Notice) if each.display).split())


def supervisor(environment: LocalEnvironment) -> psutil.Process:
    """The process that starts again what dies."""
    folder = str(environment.instance.folder)
    return next(
        each
        for each in psutil.process_iter(["cmdline"])
        if {"nomnom_control.environments.local", folder} <= set(each.info["cmdline"] or [])
    )


@contextlib.contextmanager
def dead(environment: LocalEnvironment, pids: Iterable[int | None]) -> Iterator[None]:
    """Kill these, and hold the supervisor so that they stay dead inside the block."""
    holder = supervisor(environment)
    holder.suspend()
    try:
        for pid in pids:
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
        yield
    finally:
        holder.resume()


@pytest.mark.parametrize("victims", [("nats", "postgres")], ids="+".join)
async def test_killed_servers_are_a_state_on_every_screen_and_come_back(
    instance: LocalEnvironment, victims: tuple[str, ...]
) -> None:
    async with opened(instance) as (app, pilot):
        await healthy(app)
        for place in PLACES:
            await pilot.press(place.key)
            await until(lambda: not notices(app) or app.current_mode == "overview", PATIENCE)
        pids = {name: pid for name, pid in (await servers(instance)).items() if name in victims}
        with dead(instance, pids.values()):
            for victim in victims:
                for name in NEEDS[victim]:
                    await pilot.press(KEYS[name])
                    await until(lambda victim=victim: SAYS[victim] in notices(app), PATIENCE)
                    assert "retry in" in notices(app) or "trying again" in notices(app), notices(app)
                    assert "Traceback" not in notices(app)
                    assert "postgres:" not in notices(app) or ":***@" in notices(app), "no password on the screen"
            for place in PLACES:
                await pilot.press(place.key, "j", "question_mark", "escape")
                assert app.current_mode == place.name, "keys are answered meanwhile"
        # Nobody presses a key: each comes back by itself.
        await replaced(instance, pids)
        await healthy(app)
        for place in PLACES:
            await pilot.press(place.key)
            await until(lambda: "retry" not in notices(app) and "trying again" not in notices(app), PATIENCE)


async def test_details_are_states_too_and_show_what_came_afterwards(instance: LocalEnvironment) -> None:
    async with opened(instance) as (app, pilot):
        await healthy(app)
        await pilot.press(KEYS["entities"])
        entities = app.screen
        assert isinstance(entities, EntitiesView)
        await until(lambda: entities._entities.rows, PATIENCE)
        assert entities._entities.move_to("orders")
        await pilot.press("enter")
        rows = app.screen
        assert isinstance(rows, EntityRowsView)
        await until(lambda: rows._page and len(rows._page.rows) == 100, PATIENCE)
        await pilot.press(KEYS["streams"])
        streams = app.screen
        assert isinstance(streams, StreamsView)
        await until(lambda: streams._table.rows, PATIENCE)
        await pilot.press("j", "enter")
        messages = app.screen
        assert isinstance(messages, StreamMessagesView)
        await until(lambda: messages._table.rows, PATIENCE)
        dead_letters = len(messages._table.rows)
        pids = await servers(instance)
        with dead(instance, pids.values()):
            await until(lambda: SAYS["nats"] in notices(app), PATIENCE)
            assert messages._table.rows, "what was known is still to be read"
            await pilot.press("right_square_bracket", "enter", "v", "n", "escape")
            await pilot.press(KEYS["entities"])
            assert app.screen is rows
            await until(lambda: SAYS["postgres"] in notices(app), PATIENCE)
            await pilot.press("right_square_bracket", "l", "h")
        await replaced(instance, pids)
        await until(lambda: not notices(app), PATIENCE)
        await pilot.press("f")
        await until(lambda: rows._page and rows._page.previous is None, PATIENCE)
        await healthy(app)
        await post(instance, ORDER.replace("2024-01-01", "2024-13-05"))
        await pilot.press(KEYS["streams"])
        assert app.screen is messages
        await until(lambda: len(messages._table.rows) == dead_letters + 1, PATIENCE)


async def test_every_screen_opens_with_nothing_running(tmp_path: Path) -> None:
    async with opened(LocalEnvironment(tmp_path / "nothing"), (80, 24)) as (app, pilot):
        await until(lambda: len(app.screen_stack) > 1, PATIENCE)
        await pilot.press("escape")
        for place in PLACES:
            await pilot.press(place.key)
            assert app.current_mode == place.name
            if place.name in (*NEEDS["nats"], *NEEDS["postgres"]):
                await until(lambda: "retry in" in notices(app), PATIENCE)
            await pilot.press("j", "question_mark", "escape")
            assert app.current_mode == place.name


async def test_resizing_while_data_flow(instance: LocalEnvironment) -> None:
    flowing = True

    async def flow() -> None:
        while flowing:
            await post(instance, *orders(100))
            await asyncio.sleep(0.05)

    async with opened(instance, (80, 24)) as (app, pilot):
        await healthy(app)
        posting = asyncio.create_task(flow())
        try:
            for place in PLACES:
                await pilot.press(place.key)
                for size in ((200, 60), (40, 10), (141, 41), (80, 24)):
                    await pilot.resize_terminal(*size)
                    await pilot.pause(0.05)
                    assert app.screen.size == size
                    outside = [
                        each
                        for each in app.screen.query("Panel")
                        if each.display and each.size and each.region.right > size[0]
                    ]
                    assert not outside, (place.name, size, outside)
        finally:
            flowing = False
            await posting


@pytest.mark.parametrize(
    ("leave", "code"),
    [(b"q", 0), (b"\x03", 0), (signal.SIGTERM, 128 + signal.SIGTERM), (signal.SIGHUP, 128 + signal.SIGHUP)],
    ids=["quit", "interrupt", "terminate", "hang up"],
)
def test_the_terminal_is_left_as_it_was(tmp_path: Path, leave: bytes | signal.Signals, code: int) -> None:
    """Modes, screen, cursor and mouse are given back; no traceback."""
    master, slave = pty.openpty()
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    before = termios.tcgetattr(slave)
    process = _start(slave, tmp_path, stderr=slave)
    try:
        seen = _read(master, lambda text: b"Over" in text)
        assert termios.tcgetattr(slave) != before, "the app takes keys one by one"
        seen += _read(master, lambda _: False, 1.0)
        if isinstance(leave, bytes):
            os.write(master, leave)
        else:
            process.send_signal(leave)
        seen += _read(master, lambda _: process.poll() is not None, 15.0)
        assert process.wait(15) == code
        seen += _read(master, lambda _: False, 0.3)
        assert termios.tcgetattr(slave) == before
    finally:
        process.kill()
        process.wait()
        os.close(slave)
        os.close(master)
    for on, off in ((b"\x1b[?1049h", b"\x1b[?1049l"), (b"\x1b[?25l", b"\x1b[?25h"), (b"\x1b[?1000h", b"\x1b[?1000l")):
        assert 0 <= seen.rfind(on) < seen.rfind(off), (leave, on)
    assert b"Traceback" not in seen, seen[-2000:]


def test_a_terminal_that_vanishes_is_not_waited_for(tmp_path: Path) -> None:
    """Nobody sends SIGHUP to a program in another session than the terminal's: it ends all the same."""
    master, slave = pty.openpty()
    process = _start(slave, tmp_path, stderr=subprocess.DEVNULL)
    try:
        os.close(slave)
        _read(master, lambda text: b"Over" in text)
        os.close(master)
        assert process.wait(15) == 129
    finally:
        process.kill()
        process.wait()


def _start(terminal: int, folder: Path, *, stderr: int) -> subprocess.Popen[bytes]:
    """The program on a terminal, in a session of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "nomnom_cli.program", "--dir", str(folder / "nothing"), "--readonly"],
        stdin=terminal,
        stdout=terminal,
        stderr=stderr,
        start_new_session=True,
        env={**os.environ, "TERM": "xterm-256color", "NOMNOM_HOME": str(folder)},
    )


def _read(master: int, enough: Callable[[bytes], bool], limit: float = 15.0) -> bytes:
    """What the program writes, until it is enough or the time is over."""
    seen, ends = b"", time.monotonic() + limit
    while time.monotonic() < ends and not enough(seen):
        if select.select([master], [], [], 0.05)[0]:
            seen += os.read(master, 65536)
    return seen
