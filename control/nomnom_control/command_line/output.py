"""What commands print: tables for people, JSON for programs, and questions before something is lost."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import asdict, is_dataclass
from typing import Any, cast

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from nomnom_control.command_line import Exit, Stop
from nomnom_control.environment import Progress, Step

console = Console(highlight=False)
problems = Console(stderr=True, highlight=False)
_MARKS = {Step.DONE: ("✓", "green"), Step.FAILED: ("✗", "red"), Step.SKIPPED: ("-", "dim"), Step.OUTPUT: (" ", "dim")}


def show_json(value: Any) -> None:
    """One JSON document; dataclasses as objects, times as ISO 8601, bytes as text."""
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(_plain(value)), indent=2).decode() + "\n")


def show_json_line(value: Any) -> None:
    """One line of JSON."""
    sys.stdout.write(msgspec.json.encode(_plain(value)).decode() + "\n")
    sys.stdout.flush()


def show_table(columns: Sequence[str], rows: Iterable[Sequence[object]], empty: str) -> None:
    """A table, or what it means that there are no rows."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    count = 0
    for row in rows:
        table.add_row(*(Text("" if cell is None else str(cell)) for cell in row))
        count += 1
    console.print(table if count else Text(empty, style="dim"))


async def show_progress(steps: AsyncIterator[Progress]) -> None:
    """Each step as it ends, with its time."""
    async for each in steps:
        show_step(each)


def show_step(each: Progress) -> None:
    """One event of a long operation; the start of a step says nothing yet."""
    if each.state is Step.STARTED:
        return
    mark, style = _MARKS[each.state]
    seconds = f" ({each.seconds:.1f} s)" if each.seconds is not None else ""
    text = f"{each.step}{seconds}" if each.state is not Step.OUTPUT else f"  {each.text}"
    if each.text and each.state is not Step.OUTPUT:
        text += f": {each.text}"
    console.print(Text.assemble((f"{mark} ", style), text))


def confirm(losses: Sequence[str], yes: bool) -> None:
    """Name what will be lost and ask; ends the command where the answer is no, or nobody can be asked."""
    if yes:
        return
    for each in losses:
        problems.print(Text(f"this removes {each}"))
    if not sys.stdin.isatty():
        problems.print("not confirmed: say --yes to do it without a question")
        raise Stop(Exit.REFUSED)
    if input("go on? type yes: ").strip().lower() != "yes":
        raise Stop(Exit.REFUSED)


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in cast("dict[object, Any]", value).items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in cast("Sequence[Any]", value)]
    return value.decode(errors="replace") if isinstance(value, bytes) else value
