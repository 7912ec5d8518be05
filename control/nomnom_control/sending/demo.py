"""A steady flow of real TPC-H records, some of them broken, into a running pipeline.

The records are those of ``tpchgen-cli`` (TPC-H 3.0.1): each order goes with its lines as one message, rows of the
other tables go between them.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

from nomnom.errors import NomnomError
from nomnom_control.errors import ControlError
from nomnom_control.session.messages import Messages

_SCALE = "0.01"
_TIMEOUT = 120.0
_IN_FLIGHT = 64
_SHOWN = 0.5
_TABLES = {"R": "region", "N": "nation", "S": "supplier", "C": "customer", "P": "part", "PS": "partsupp"}


class DemoError(ControlError):
    """Records that cannot be made."""


@dataclass(slots=True)
class DemoCounts:
    """What was sent so far, in messages; ``broken`` are among the accepted."""

    accepted: int = 0
    broken: int = 0
    refused: int = 0
    """The api took none of these: it was away or full."""
    seconds: float = 0.0
    problem: str = ""


async def prepare_records(folder: Path) -> Path:
    """Make the records once; returns the folder of their files. Raises DemoError."""
    target = folder / f"tpch-{_SCALE}"
    if (target / "orders.tbl").exists():
        return target
    beside = Path(sys.executable).with_name("tpchgen-cli")
    program = str(beside) if beside.exists() else shutil.which("tpchgen-cli")
    if program is None:
        raise DemoError("tpchgen-cli is not installed: pip install 'nomnom[local]'")
    unfinished = folder / "unfinished"
    await asyncio.to_thread(shutil.rmtree, unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    command = [program, "-s", _SCALE, "--output-dir", str(unfinished)]
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        async with asyncio.timeout(_TIMEOUT):
            said, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise DemoError(f"tpchgen-cli did not end within {_TIMEOUT:g} s") from None
    if process.returncode != 0:
        raise DemoError(f"tpchgen-cli ended with code {process.returncode}: {said.decode(errors='replace')[-300:]}")
    unfinished.rename(target)
    return target


def read_messages(folder: Path) -> Iterator[str]:
    """The records as messages, again from the first after the last, without an end."""
    others = cycle(f"{tag}|{row}" for tag, name in _TABLES.items() for row in _rows(folder / f"{name}.tbl"))
    while True:
        for order in _orders(folder):
            yield order
            yield from islice(others, 2)


def _orders(folder: Path) -> Iterator[str]:
    """Both files are in the order of the order key."""
    lines = _rows(folder / "lineitem.tbl")
    line = next(lines, "")
    for order in _rows(folder / "orders.tbl"):
        key = order.partition("|")[0]
        parts = [f"O|{order}"]
        while line.partition("|")[0] == key:
            parts.append(f"OLI|{line}")
            line = next(lines, "")
        yield "\n".join(parts)


def _rows(path: Path) -> Iterator[str]:
    with path.open() as file:
        for line in file:
            yield line.rstrip("\n")


def _with_field(message: str, position: int, change: Callable[[str], str]) -> str:
    head, *rest = message.split("\n")
    fields = head.split("|")
    fields[position] = change(fields[position])
    return "\n".join(["|".join(fields), *rest])


_FAULTS: tuple[Callable[[str], str], ...] = (
    lambda order: _with_field(order, 5, lambda _: "2024-02-30"),
    lambda order: _with_field(order, 4, lambda price: price + "75"),
    lambda order: _with_field(order, 3, lambda _: "OPEN"),
    lambda order: _with_field(order, 1, lambda key: key + "x"),
    lambda order: _with_field(order, 0, lambda _: "ORD"),
    lambda order: order.replace("|", "||", 1),
    lambda order: _with_field(order, 7, lambda clerk: clerk * 3),
)
"""What goes wrong with records: impossible dates, wrong precision, values too long, letters in numbers, unknown tags,
a field too many."""


class Demo:
    """Sends ``rate`` messages a second, of which the share ``broken`` (0 to 1) cannot be written."""

    def __init__(self, messages: Messages, records: Path, rate: float, broken: float, seed: int | None = None) -> None:
        self._messages, self._records = messages, records
        self._rate, self._broken = rate, broken
        self._chance = random.Random(seed)  # noqa: S311  it chooses what to break
        self.counts = DemoCounts()

    async def run(self, seconds: float | None = None) -> AsyncIterator[DemoCounts]:
        """Send until ``seconds`` have passed (None: until closed); the counts, twice a second and at the end."""
        source = read_messages(self._records)
        began, sent = time.monotonic(), 0
        pending: set[asyncio.Task[None]] = set()
        shown = 0.0
        try:
            while seconds is None or time.monotonic() - began < seconds:
                due = int((time.monotonic() - began) * self._rate) + 1
                # What the api does not take in time is not made up for: the rate is the most there is at once.
                sent = max(sent, due - max(1, int(self._rate)))
                while sent < due and len(pending) < _IN_FLIGHT:
                    task = asyncio.create_task(self._send(*self._next(source)))
                    pending.add(task)
                    task.add_done_callback(pending.discard)
                    sent += 1
                self.counts.seconds = time.monotonic() - began
                if self.counts.seconds - shown >= _SHOWN:
                    shown = self.counts.seconds
                    yield self.counts
                await asyncio.sleep(min(0.05, 1 / self._rate))
            await asyncio.gather(*pending)
            yield self.counts
        finally:
            for task in list(pending):
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)

    def _next(self, source: Iterator[str]) -> tuple[str, bool]:
        message = next(source)
        if self._chance.random() >= self._broken:
            return message, False
        while not message.startswith("O|"):
            message = next(source)
        return self._chance.choice(_FAULTS)(message), True

    async def _send(self, message: str, broken: bool) -> None:
        try:
            await self._messages.post(message)
        except NomnomError as error:
            self.counts.refused += 1
            self.counts.problem = str(error)
        else:
            self.counts.problem = ""
            self.counts.accepted += 1
            self.counts.broken += broken
