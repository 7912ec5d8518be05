"""Measures the terminal app in a real pseudo-terminal: ``python -m tests.bench screen``.

First paint: from starting the interpreter to the first view's text, nothing reachable; beside it a bare Textual app.
Key latency: from writing a key to the answer, over a table of 10,000 rows that all change each second, over 10,000 real
dead letters, over pages of a real stream, and while 5,000 log lines a second arrive. Idle: processor time with a screen
open on a pipeline that stands still.
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import itertools
import os
import pty
import random
import select
import statistics
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Self

import psutil

if TYPE_CHECKING:
    from nomnom_control.environments import Environment
    from tests.bench.figures import Report
    from tests.bench.harness import Harness

HERE = Path(__file__).resolve()
ROWS = 10_000
CURSOR = b"48;2;36;51;64m"
"""What the terminal is told to draw the cursor's row: the answer to a key that moves it, and not just any byte."""


class Terminal:
    """A program in a pseudo-terminal of its own."""

    def __init__(self, *command: str, columns: int = 120, lines: int = 40, **extra: str) -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.started = time.perf_counter()
        environment = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor", **extra}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        self.process = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, env=environment, start_new_session=True
        )
        os.close(slave)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        os.close(self.master)

    def read_until(self, text: bytes, limit: float) -> float:
        """Seconds from the start until this text came; raises TimeoutError."""
        seen = b""
        while time.perf_counter() - self.started < limit:
            if select.select([self.master], [], [], 0.05)[0]:
                seen += os.read(self.master, 65536)
                if text in seen:
                    return time.perf_counter() - self.started
        raise TimeoutError(f"{text!r} did not come within {limit} s; the last was {seen[-2000:]!r}")

    def drain(self, seconds: float) -> None:
        """Read what comes for this long, and what has come by then."""
        ends = time.perf_counter() + seconds
        while select.select([self.master], [], [], max(0.0, ends - time.perf_counter()))[0]:
            os.read(self.master, 65536)
            if seconds and time.perf_counter() > ends:
                return

    def press(self, key: bytes, sign: bytes = b"", limit: float = 2.0) -> float:
        """Seconds from writing a key to the first byte of the answer, or to the text that is the answer."""
        self.drain(0.0)
        before = time.perf_counter()
        os.write(self.master, key)
        seen = b""
        while select.select([self.master], [], [], limit)[0]:
            at = time.perf_counter()
            seen += os.read(self.master, 65536)
            if sign in seen:
                return at - before
        raise TimeoutError(f"no answer to {key!r} within {limit} s")


def measure_first_paint(rounds: int) -> tuple[list[float], list[float]]:
    """First paint with nothing reachable, and of a bare Textual app, in seconds.

    The rounds alternate; the first one, which compiles, is left out.
    """
    ours: list[float] = []
    bare: list[float] = []
    for _ in range(rounds + 1):
        for what, times in (("unreachable", ours), ("bare", bare)):
            with Terminal(sys.executable, str(HERE), "--child", what) as terminal:
                times.append(terminal.read_until(b"Overview", 10))
    return sorted(ours[1:]), sorted(bare[1:])


def measure_rows(presses: int) -> tuple[float, float]:
    """Latency of keys, in seconds, over 10,000 rows that all change each second: median and 99th percentile."""
    times: list[float] = []
    chance = random.Random(1)
    with Terminal(sys.executable, str(HERE), "--child", "rows") as terminal:
        terminal.read_until(b"row 12", 15)
        terminal.drain(3)
        for at in range(presses):
            times.append(terminal.press(b"j" if at % 100 < 90 else b"k", CURSOR))
            terminal.drain(chance.uniform(0.01, 0.06))
    return _summary(times)


def measure_screen(name: str, keys: Sequence[bytes], sign: bytes, presses: int, **servers: str) -> tuple[float, float]:
    """Latency of moving in a numbered screen over real servers, after these keys and once this text has come."""
    times: list[float] = []
    chance = random.Random(1)
    with Terminal(sys.executable, str(HERE), "--child", f"screen:{name}", **servers) as terminal:
        terminal.read_until(b"Overview", 15)
        terminal.drain(2)
        terminal.started = time.perf_counter()
        for key in keys:
            os.write(terminal.master, key)
            if key != keys[-1]:
                terminal.drain(1)
        terminal.read_until(sign, 30)
        terminal.drain(3)
        for at in range(presses):
            times.append(terminal.press(b"j" if at % 100 < 90 else b"k", CURSOR))
            terminal.drain(chance.uniform(0.01, 0.06))
    return _summary(times)


def measure_lines(presses: int) -> tuple[float, float]:
    """The same while 5,000 log lines a second arrive: from the key that wraps lines to the title that says so."""
    times: list[float] = []
    chance = random.Random(1)
    with Terminal(sys.executable, str(HERE), "--child", "lines") as terminal:
        terminal.read_until(b"of many", 15)
        terminal.drain(3)
        for _ in range(presses // 2):
            times.append(terminal.press(b"w", b"wrapped"))
            terminal.drain(chance.uniform(0.05, 0.2))
            terminal.press(b"w")
            terminal.drain(chance.uniform(0.3, 0.5))
    return _summary(times)


def _summary(times: list[float]) -> tuple[float, float]:
    times.sort()
    return statistics.median(times), times[int(len(times) * 0.99) - 1]


def measure_idle(what: str, seconds: float, **servers: str) -> float:
    """Share of a core that the app takes while nothing happens."""
    with Terminal(sys.executable, str(HERE), "--child", what, **servers) as terminal:
        terminal.read_until(b"Overview", 10)
        terminal.drain(5)
        process = psutil.Process(terminal.process.pid)
        before = process.cpu_times()
        ends = time.perf_counter() + seconds
        while time.perf_counter() < ends:
            terminal.drain(0.2)
        after = process.cpu_times()
    return (after.user + after.system - before.user - before.system) / seconds


def child(what: str) -> None:
    """Run the app as one of the measurements needs it."""
    if what == "bare":
        _run_bare()
        return
    if what == "unreachable":
        from nomnom_tui.app.terminal import run

        run()
        return
    sys.path.insert(0, str(HERE.parents[1]))
    from nomnom_tui.app.application import NomnomApp
    from nomnom_tui.app.session import Session
    from tui.fakes import FakeEnvironment

    kind, _, route = what.partition(":")
    app = NomnomApp(Session(_served() if kind == "screen" else FakeEnvironment()))
    if what == "rows":
        _push_rows(app)
    if what == "lines":
        app.session.environment.logs = _many_lines
        app.call_later(app.action_go, "logs")
    if route:
        app.call_later(app.action_go, route)
    app.run()


def _served() -> Environment:
    """The stage's servers, as the children of this process are told of them."""
    from nomnom.schema import Schema, load_schema
    from nomnom_control.environments import Endpoints
    from tui.fakes import FakeEnvironment

    class Served(FakeEnvironment):
        async def endpoints(self) -> Endpoints:
            return Endpoints(
                "http://127.0.0.1:9", os.environ["NATS_URL"], "http://127.0.0.1:9", os.environ["DATABASE_URL"]
            )

        async def schema(self) -> Schema:
            return load_schema("tpch")

    return Served()


async def _many_lines(components: Sequence[str] = (), *, follow: bool = False, tail: int | None = None):
    """5,000 lines a second, as of six components at work."""
    from nomnom_control.environments import LogLine

    for at in itertools.count():
        if at % 250 == 0:
            await asyncio.sleep(0.05)
        name = f"part-{at % 6}"
        yield LogLine(name, name, datetime.now(UTC), "info", f"line {at} of many", {"messages": at, "seconds": 0.01})


def _run_bare() -> None:
    from textual.app import App
    from textual.widgets import Static

    class Bare(App[None]):
        def compose(self):
            yield Static("Overview")

    Bare().run()


def _push_rows(app: object) -> None:
    from nomnom_tui.app.application import NomnomApp
    from nomnom_tui.app.view import View
    from nomnom_tui.widgets.panel import Panel
    from nomnom_tui.widgets.table import Column, LiveTable

    assert isinstance(app, NomnomApp)

    class RowsView(View):
        CRUMB = "Rows"

        def content(self):
            self.table = LiveTable(
                [
                    Column("Name", lambda row: row[0], 12),
                    Column("Value", lambda row: str(row[1]), 10, right=True),
                    Column("Text", lambda row: row[2], 20, share=1),
                ],
                key=lambda row: row[0],
            )
            yield Panel("Rows", self.table)

        def begin(self) -> None:
            self.table.focus()
            self.subscribe("rows", 1.0, self.load, self.table.show)

        async def load(self) -> list[tuple[str, int, str]]:
            now = time.time_ns()
            return [(f"row {at}", now + at, f"text of {at} at {now}") for at in range(ROWS)]

    app.call_later(lambda: app.push_screen(RowsView()))


async def measure(stage: Harness, report: Report, options: argparse.Namespace) -> None:
    """First paint, key latency and idle cost, on the stage's servers with 10,000 dead letters and as many messages."""
    from nomnom_tui.screens import ROUTES
    from tests.bench.dead_letters import fill
    from tests.bench.harness import orders

    report.title("screen: the terminal app in a pseudo-terminal of 120×40")
    paints, bare = await asyncio.to_thread(measure_first_paint, options.rounds + 2)
    paint, peer = statistics.median(paints), statistics.median(bare)
    report.line("first paint", [paints, bare], f"{paint:.3f} s, a bare Textual app {peer:.3f} s   (goal: 0.5 s)")
    await fill(stage, ROWS)
    await stage.fill([each.encode() for each in orders(ROWS)])
    presses = 400

    def tell(name: str, figures: tuple[float, float]) -> None:
        median, p99 = figures
        report.line(name, figures, f"median {median * 1e3:.1f} ms, p99 {p99 * 1e3:.1f} ms   (goal: p99 50 ms)")

    tell("key, 10,000 rows that change each second", await asyncio.to_thread(measure_rows, presses))
    if any(route.key == "5" for route in ROUTES):
        name = next(route.name for route in ROUTES if route.key == "5")
        figures = await asyncio.to_thread(measure_screen, name, [], b"orders", presses, **stage.environment)
        tell("key, 10,000 dead letters", figures)
    figures = await asyncio.to_thread(measure_screen, "streams", [b"\r"], b"O|99", presses, **stage.environment)
    tell("key, pages of a stream", figures)
    tell("key, 5,000 log lines/s", await asyncio.to_thread(measure_lines, presses // 2))
    for route in ("overview", "streams", "consumers", "database"):
        what = "still" if route == "overview" else f"screen:{route}"
        share = await asyncio.to_thread(measure_idle, what, 3 * options.seconds, **stage.environment)
        report.line(f"idle, {route}", share, f"{share:.1%} of a core   (goal: under 3 %)")


if __name__ == "__main__":
    # The measured program itself: measurements start it.
    parser = argparse.ArgumentParser()
    parser.add_argument("--child", required=True)
    child(parser.parse_args().child)
