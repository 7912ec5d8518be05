"""What commands print: tables or JSON on standard output, notes and progress on standard error."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, is_dataclass
from functools import cache
from json import dumps
from typing import Any, TypeAlias, cast

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from nomnom.envelope import Status
from nomnom.presentation.figures import Property, duration
from nomnom.presentation.marks import HEALTHS, STATUSES, STEPS, Health, Mark, Step, Tone
from nomnom.presentation.terminal import printable
from nomnom_control.environments import Progress

Cell: TypeAlias = str | Text
_PIPED = 10_000
_GAP = 2
"""Blanks between columns."""
_NARROW = 12
_TONES = {Tone.GOOD: "green", Tone.WARNING: "yellow", Tone.BAD: "red", Tone.ACCENT: "cyan", Tone.MUTED: "dim"}


class _Results(Console):
    def on_broken_pipe(self) -> None:
        """Raise BrokenPipeError if stdout was closed, for example by ``head``; handled in main."""
        raise BrokenPipeError


@cache
def results() -> Console:
    """The console of results: standard output."""
    # Piped output is read by programs: lines are never truncated.
    return _Results(highlight=False, width=None if sys.stdout.isatty() else _PIPED)


@cache
def errors() -> Console:
    """The console of notes and progress: standard error."""
    return Console(stderr=True, highlight=False)


def interactive() -> bool:
    """Whether standard error is a terminal that can redraw lines."""
    return errors().is_terminal and not errors().is_dumb_terminal


def print_result(text: Cell, style: str = "") -> None:
    """Print a line of the result; it is neither truncated nor wrapped."""
    results().print(plain(text, style), soft_wrap=True)


def print_note(text: str, style: str = "", end: str = "\n") -> None:
    """Print a note on standard error."""
    errors().print(plain(text, style), soft_wrap=True, end=end)


def plain(text: Cell, style: str = "") -> Text:
    """The text as rich prints it: without markup, and without characters that the terminal would obey."""
    made = text if isinstance(text, Text) else Text(text, style)
    made.plain = printable(made.plain, keep="\n\t")
    return made


def styled(text: str, style: str) -> Text:
    """Text in this style; more can be appended."""
    return Text.assemble((text, style))


def status(value: Status) -> Text:
    """A message's status with its sign."""
    return _marked(STATUSES[value])


def health(value: Health) -> Text:
    """A component's health with its sign."""
    return _marked(HEALTHS[value])


def _marked(mark: Mark) -> Text:
    return Text(str(mark), _TONES[mark.tone])


@dataclass(frozen=True, slots=True)
class Column:
    """A table column: numbers are right-aligned; flexible (``grows``) columns share the remaining width.

    Cells that do not fit are truncated, or wrapped if the column wraps.
    """

    title: str
    right: bool = False
    grows: bool = False
    wraps: bool = False


def show_table(
    columns: Sequence[Column], rows: Iterable[Sequence[Cell]], nothing: str, *, unfolds: bool = False
) -> None:
    """Print a table, or the text ``nothing`` if it has no rows.

    A table that ``unfolds`` is printed one cell per line if the terminal is too narrow.
    """
    filled = [[plain(each if isinstance(each, Text) else each.replace("\n", "↵")) for each in row] for row in rows]
    if not filled:
        print_note(nothing, "dim")
        return
    if unfolds and _width(columns, filled) > results().width:
        _unfold(columns, filled)
        return
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, _GAP, 0, 0))
    for each in columns:
        # rich narrows columns that may wrap first; no_wrap on the cells prevents the wrapping itself.
        table.add_column(each.title, justify="right" if each.right else "left", no_wrap=not each.grows, min_width=1)
    for row in filled:
        for column, each in zip(columns, row, strict=True):
            if not column.wraps:
                each.no_wrap, each.overflow = True, "ellipsis"
        table.add_row(*row)
    with results().capture() as drawn:
        results().print(table)
    # rich pads the last column with blanks.
    for line in drawn.get().splitlines():
        results().out(line.rstrip(), highlight=False)


def _width(columns: Sequence[Column], rows: Sequence[Sequence[Text]]) -> int:
    """The smallest useful width of a table: flexible columns count with at most _NARROW cells."""
    total = _GAP * (len(columns) - 1)
    for at, column in enumerate(columns):
        widest = max(row[at].cell_len for row in rows)
        total += max(len(column.title), min(widest, _NARROW) if column.grows else widest)
    return total


def _unfold(columns: Sequence[Column], rows: Sequence[Sequence[Text]]) -> None:
    width = max(len(each.title) for each in columns)
    for at, row in enumerate(rows):
        if at:
            print_result("")
        for column, cell in zip(columns, row, strict=True):
            if cell.plain:
                print_result(styled(f"{column.title.ljust(width)}  ", "dim").append_text(cell))


def print_labelled(lines: Mapping[str, Cell]) -> None:
    """Print a value per line behind its label; empty values are left out."""
    width = max(map(len, lines), default=0)
    for label, value in lines.items():
        if value:
            print_result(styled(f"{label.ljust(width)}  ", "dim").append(value))


def print_properties(properties: Sequence[Property]) -> None:
    """Print properties, one group after another."""
    width = max((len(each.label) for each in properties), default=0)
    group = None
    for each in properties:
        if each.group != group:
            if group is not None:
                print_result("")
            print_result(each.group, "bold")
            group = each.group
        line = styled(f"  {each.label.ljust(width)}  ", "dim")
        print_result(line.append(each.value, ""))


def as_json(value: Any) -> None:
    """One JSON document; times as ISO 8601, bytes as text."""
    sys.stdout.write(msgspec.json.format(_encoded(value), indent=2) + "\n")
    sys.stdout.flush()


def as_json_line(value: Any) -> None:
    """One line of JSON."""
    sys.stdout.write(_encoded(value) + "\n")
    sys.stdout.flush()


async def show_progress(steps: AsyncIterator[Progress]) -> None:
    """Print the steps of a long operation as they end, with their durations."""
    async for each in steps:
        show_step(each)


@contextmanager
def count_progress(title: str, *, quiet: bool) -> Generator[Callable[[int, int], None] | None]:
    """A progress bar on a terminal, drawn by the function that it yields with how many of how many are done."""
    if quiet or not interactive():
        yield None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn(title), BarColumn(bar_width=None), MofNCompleteColumn(), TimeRemainingColumn(compact=True))
    with Bar(*columns, console=errors(), expand=True, transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def show_step(each: Progress) -> None:
    """Print one event of a long operation; the start of a step prints nothing."""
    if each.state is Step.STARTED:
        return
    if each.state is Step.OUTPUT:
        errors().print(plain(f"    {each.text}", "dim"))
        return
    mark = STEPS[each.state]
    took = f" ({duration(each.seconds)})" if each.seconds is not None else ""
    # The whole of an error follows when the command ends.
    reason = f": {each.text.partition(chr(10))[0]}" if each.text else ""
    errors().print(plain(Text.assemble((f"{mark.sign} ", _TONES[mark.tone]), f"{each.step}{took}{reason}")))


def _encoded(value: Any) -> str:
    """One line of JSON, in which characters that a terminal would obey are escaped."""
    line = msgspec.json.encode(_plain(value)).decode()
    return line if line.isprintable() else "".join(each if each.isprintable() else dumps(each)[1:-1] for each in line)


def _plain(value: Any) -> Any:
    """The value with bytes decoded as text instead of base64."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, msgspec.Struct):
        return {name: _plain(getattr(value, name)) for name in value.__struct_fields__}
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in cast("Mapping[object, Any]", value).items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in cast("Sequence[Any]", value)]
    return value
