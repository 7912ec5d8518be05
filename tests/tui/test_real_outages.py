"""A real local instance whose servers are killed: every screen shows it, retries and recovers."""

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
from nomnom_control.environments.local.channel import call
from nomnom_control.environments.local.environment import LocalEnvironment
from nomnom_tui.app.application import NomnomApp
from nomnom_tui.app.preferences import Preferences
from nomnom_tui.app.session import Session
from nomnom_tui.screens import ROUTES
from nomnom_tui.screens.entities import EntitiesView
from nomnom_tui.screens.entity_rows import EntityRowsView
from nomnom_tui.screens.stream_messages import StreamMessagesView
from nomnom_tui.screens.streams import StreamsView
from nomnom_tui.widgets.panel import Notice
from tui.test_local import orders, post
from tui.test_shell import until

TIMEOUT = 40.0
KEYS = {route.name: route.key for route in ROUTES}
NEEDS = {"nats": ("streams", "consumers"), "postgres": ("entities",)}
"""Screens that need this server."""
ERRORS = {"nats": "NATS at", "postgres": "PostgreSQL at"}


@pytest.fixture(scope="module")
async def instance(server_folder: Path) -> AsyncIterator[LocalEnvironment]:
    """A separate instance for this module, with some records."""
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
    """Open the app on this environment."""
    app = NomnomApp(Session(), Preferences(Path("tui.toml")), choose=lambda: environment)
    async with app.run_test(size=size) as pilot:
        await until(lambda: app.heartbeat.at, TIMEOUT)
        yield app, pilot


async def healthy(app: NomnomApp) -> None:
    """Wait until every component is healthy."""
    await until(lambda: app.heartbeat.problem is None and app.heartbeat.health is Health.HEALTHY, TIMEOUT)


async def servers(environment: LocalEnvironment) -> dict[str, int | None]:
    """Return the process IDs of the servers from the supervisor; None while one is restarting."""
    status: dict[str, Any] = await call(environment.instance.socket, "status", {})
    return {name: each["pid"] for name, each in status["servers"].items()}


async def replaced(environment: LocalEnvironment, before: Mapping[str, int | None]) -> None:
    """Wait until every one of these is running again as a new process."""
    async with asyncio.timeout(TIMEOUT):
        while True:
            current = await servers(environment)
            if all(current[name] not in (None, pid) for name, pid in before.items()):
                return
            await asyncio.sleep(0.1)


def notices(app: NomnomApp) -> str:
    """Return the notices of the panels on the current screen."""
    return " ".join(" ".join(str(each.render()) for each in app.screen.query(Notice) if each.display).split())


def supervisor(environment: LocalEnvironment) -> psutil.Process:
    """Return the supervisor process, which restarts killed servers."""
    folder = str(environment.instance.folder)
    return next(
        each
        for each in psutil.process_iter(["cmdline"])
        if {"nomnom_control.environments.local", folder} <= set(each.info["cmdline"] or [])
    )


@contextlib.contextmanager
def killed(environment: LocalEnvironment, pids: Iterable[int | None]) -> Iterator[None]:
    """Kill these processes and suspend the supervisor, so that they stay down inside the block."""
    process = supervisor(environment)
    process.suspend()
    try:
        for pid in pids:
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
        yield
    finally:
        process.resume()


@pytest.mark.parametrize("victims", [("nats", "postgres")], ids="+".join)
async def test_killed_servers_are_shown_on_every_screen_and_recover(
    instance: LocalEnvironment, victims: tuple[str, ...]
) -> None:
    async with opened(instance) as (app, pilot):
        await healthy(app)
        for route in ROUTES:
            await pilot.press(route.key)
            await until(lambda: not notices(app) or app.current_mode == "overview", TIMEOUT)
        pids = {name: pid for name, pid in (await servers(instance)).items() if name in victims}
        with killed(instance, pids.values()):
            for victim in victims:
                for name in NEEDS[victim]:
                    await pilot.press(KEYS[name])
                    await until(lambda victim=victim: ERRORS[victim] in notices(app), TIMEOUT)
                    assert "retry in" in notices(app) or "retrying" in notices(app), notices(app)
                    assert "Traceback" not in notices(app)
                    assert "postgres:" not in notices(app) or ":***@" in notices(app), "no password on the screen"
            for route in ROUTES:
                await pilot.press(route.key, "j", "question_mark", "escape")
                assert app.current_mode == route.name, "keys work meanwhile"
        # Each screen recovers without a key press.
        await replaced(instance, pids)
        await healthy(app)
        for route in ROUTES:
            await pilot.press(route.key)
            await until(lambda: "retry" not in notices(app) and "retrying" not in notices(app), TIMEOUT)


async def test_detail_views_show_outages_and_recover(instance: LocalEnvironment) -> None:
    async with opened(instance) as (app, pilot):
        await healthy(app)
        await pilot.press(KEYS["entities"])
        entities = app.screen
        assert isinstance(entities, EntitiesView)
        await until(lambda: entities._entities.rows, TIMEOUT)
        assert entities._entities.move_to("orders")
        await pilot.press("enter")
        rows = app.screen
        assert isinstance(rows, EntityRowsView)
        await until(lambda: rows._page and len(rows._page.rows) == 100, TIMEOUT)
        await pilot.press(KEYS["streams"])
        streams = app.screen
        assert isinstance(streams, StreamsView)
        await until(lambda: streams._table.rows, TIMEOUT)
        await pilot.press("j", "enter")
        messages = app.screen
        assert isinstance(messages, StreamMessagesView)
        await until(lambda: messages._table.rows, TIMEOUT)
        dead_letters = len(messages._table.rows)
        pids = await servers(instance)
        with killed(instance, pids.values()):
            await until(lambda: ERRORS["nats"] in notices(app), TIMEOUT)
            assert messages._table.rows, "the last known rows are still shown"
            await pilot.press("right_square_bracket", "enter", "v", "n", "escape")
            await pilot.press(KEYS["entities"])
            assert app.screen is rows
            await until(lambda: ERRORS["postgres"] in notices(app), TIMEOUT)
            await pilot.press("right_square_bracket", "l", "h")
        await replaced(instance, pids)
        await until(lambda: not notices(app), TIMEOUT)
        await pilot.press("f")
        await until(lambda: rows._page and rows._page.previous is None, TIMEOUT)
        await healthy(app)
        await post(instance, ORDER.replace("2024-01-01", "2024-13-05"))
        await pilot.press(KEYS["streams"])
        assert app.screen is messages
        await until(lambda: len(messages._table.rows) == dead_letters + 1, TIMEOUT)


async def test_every_screen_opens_while_nothing_is_running(tmp_path: Path) -> None:
    async with opened(LocalEnvironment(tmp_path / "nothing"), (80, 24)) as (app, pilot):
        await until(lambda: len(app.screen_stack) > 1, TIMEOUT)
        await pilot.press("escape")
        for route in ROUTES:
            await pilot.press(route.key)
            assert app.current_mode == route.name
            if route.name in (*NEEDS["nats"], *NEEDS["postgres"]):
                await until(lambda: "retry in" in notices(app), TIMEOUT)
            await pilot.press("j", "question_mark", "escape")
            assert app.current_mode == route.name


async def test_resize_while_messages_flow(instance: LocalEnvironment) -> None:
    posting = True

    async def post_orders() -> None:
        while posting:
            await post(instance, *orders(100))
            await asyncio.sleep(0.05)

    async with opened(instance, (80, 24)) as (app, pilot):
        await healthy(app)
        task = asyncio.create_task(post_orders())
        try:
            for route in ROUTES:
                await pilot.press(route.key)
                for size in ((200, 60), (40, 10), (141, 41), (80, 24)):
                    await pilot.resize_terminal(*size)
                    await pilot.pause(0.05)
                    assert app.screen.size == size
                    outside = [
                        each
                        for each in app.screen.query("Panel")
                        if each.display and each.size and each.region.right > size[0]
                    ]
                    assert not outside, (route.name, size, outside)
        finally:
            posting = False
            await task


@pytest.mark.parametrize(
    ("leave", "code"),
    [(b"q", 0), (b"\x03", 0), (signal.SIGTERM, 128 + signal.SIGTERM), (signal.SIGHUP, 128 + signal.SIGHUP)],
    ids=["quit", "interrupt", "terminate", "hang up"],
)
def test_terminal_is_restored_on_exit(tmp_path: Path, leave: bytes | signal.Signals, code: int) -> None:
    """Modes, screen, cursor and mouse are restored, without a traceback."""
    master, slave = pty.openpty()
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    before = termios.tcgetattr(slave)
    process = _start(slave, tmp_path, stderr=slave)
    try:
        output = _read(master, lambda text: b"Over" in text)
        assert termios.tcgetattr(slave) != before, "the terminal is not in raw mode"
        output += _read(master, lambda _: False, 1.0)
        if isinstance(leave, bytes):
            os.write(master, leave)
        else:
            process.send_signal(leave)
        output += _read(master, lambda _: process.poll() is not None, 15.0)
        assert process.wait(15) == code
        output += _read(master, lambda _: False, 0.3)
        assert termios.tcgetattr(slave) == before
    finally:
        process.kill()
        process.wait()
        os.close(slave)
        os.close(master)
    for on, off in ((b"\x1b[?1049h", b"\x1b[?1049l"), (b"\x1b[?25l", b"\x1b[?25h"), (b"\x1b[?1000h", b"\x1b[?1000l")):
        assert 0 <= output.rfind(on) < output.rfind(off), (leave, on)
    assert b"Traceback" not in output, output[-2000:]


def test_app_exits_when_the_terminal_is_gone(tmp_path: Path) -> None:
    """A program in another session than the terminal's gets no SIGHUP and exits nevertheless."""
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
    """Start the program on a terminal, in its own session."""
    return subprocess.Popen(
        [sys.executable, "-m", "nomnom_cli.program", "--dir", str(folder / "nothing"), "--readonly"],
        stdin=terminal,
        stdout=terminal,
        stderr=stderr,
        start_new_session=True,
        env={**os.environ, "TERM": "xterm-256color", "NOMNOM_HOME": str(folder)},
    )


def _read(master: int, complete: Callable[[bytes], bool], limit: float = 15.0) -> bytes:
    """Return the program's output until the condition is true or the timeout ends."""
    output, ends = b"", time.monotonic() + limit
    while time.monotonic() < ends and not complete(output):
        if select.select([master], [], [], 0.05)[0]:
            output += os.read(master, 65536)
    return output
