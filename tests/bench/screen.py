"""Measures the terminal app in a real pseudo-terminal: ``python -m tests.bench.screen``.

First paint: from starting the interpreter to the first view's text, with nothing reachable. Key latency: from writing a
key to the first byte of the answer, with a table of 10,000 rows of which all change each second, and with 5,000 log
lines a second. Idle: processor time with the overview open on a pipeline that stands still.
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import itertools
import json
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
from typing import Self

import psutil

HERE = Path(__file__).resolve()
ROWS = 10_000


class Terminal:
    """A program in a pseudo-terminal of its own."""

    def __init__(self, *command: str, columns: int = 120, lines: int = 40) -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.started = time.perf_counter()
        environment = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor"}
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
            times.append(terminal.press(b"j" if at % 100 < 90 else b"k"))
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


def measure_idle(seconds: float) -> float:
    """Share of a core that the app takes while nothing happens."""
    with Terminal(sys.executable, str(HERE), "--child", "still") as terminal:
        terminal.read_until(b"Overview", 10)
        terminal.drain(3)
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
        from nomnom_tui.application import run

        run()
        return
    sys.path.insert(0, str(HERE.parents[1]))
    from nomnom_tui.application import NomnomApp
    from nomnom_tui.session import Session
    from tui.still import StillEnvironment

    app = NomnomApp(Session(StillEnvironment()))
    if what == "rows":
        _push_rows(app)
    if what == "lines":
        app.session.environment.logs = _many_lines
        app.call_later(app.action_go, "logs")
    app.run()


async def _many_lines(components: Sequence[str] = (), *, follow: bool = False, tail: int | None = None):
    """5,000 lines a second, as of six components at work."""
    from nomnom_control.environment import LogLine

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
    from nomnom_tui.application import NomnomApp
    from nomnom_tui.panel import Panel
    from nomnom_tui.table import Column, LiveTable
    from nomnom_tui.view import View

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


def main() -> None:
    """Measure, print, and write the figures where asked."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.screen", description=__doc__)
    parser.add_argument("--child", choices=["unreachable", "bare", "rows", "lines", "still"], help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--presses", type=int, default=400)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.child:
        child(options.child)
        return
    paints, bare = measure_first_paint(options.rounds)
    keys = measure_rows(options.presses)
    lines = measure_lines(options.presses // 2)
    idle = measure_idle(options.seconds)
    paint, peer = statistics.median(paints), statistics.median(bare)
    print(
        f"first paint   {paint / peer:.2f} of a bare Textual app's {peer:.3f} s: median {paint:.3f} s   (goal: 0.5 s)"
    )
    for name, (median, p99) in (("10,000 rows", keys), ("5,000 lines/s", lines)):
        print(f"key latency   {name}: median {median * 1e3:.1f} ms   p99 {p99 * 1e3:.1f} ms   (goal: p99 50 ms)")
    print(f"idle          {idle * 100:.1f} % of a core   (goal: under 3 %)")
    if options.json:
        figures = {"first_paint": paints, "bare": bare, "rows": keys, "lines": lines, "idle": idle}
        options.json.write_text(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
