"""``nomnom logs``: the components' logs, merged by time."""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from nomnom_cli.options import Flag, Json, Target, open_environment
from nomnom_cli.prompts import UsageError

if TYPE_CHECKING:
    from nomnom_control.environments import LogLine

_FIRST, _NEXT = 2.0, 0.1
"""Seconds without a line that count as a pause: before the first line, and after it."""
_LEVELS = ("debug", "info", "warning", "error")
_STYLES = {"error": "red", "warning": "yellow", "debug": "dim"}
_COLOURS = ("cyan", "magenta", "blue", "green", "bright_yellow", "bright_cyan")


async def logs(
    *components: str,
    follow: Annotated[Flag, Parameter(name=("--follow", "-f"))] = False,
    tail: Annotated[int, Parameter(name=("--tail", "-n"), validator=Number(gte=0))] = 100,
    level: str = "debug",
    grep: Annotated[str | None, Parameter(show_default=False)] = None,
    json: Json = False,
    target: Target | None = None,
) -> None:
    """Show the logs of the components, merged by time.

    Parameters
    ----------
    components
        Component names. Default: all.
    follow
        Keep printing new lines, across restarts, until Ctrl-C.
    tail
        Number of earlier lines to show.
    level
        Minimum level: debug, info, warning or error.
    grep
        Only lines that match this regular expression.
    """
    from nomnom_cli.output import as_json_line

    if level not in _LEVELS:
        raise UsageError(f"unknown level {level!r}; available: {', '.join(_LEVELS)}")
    try:
        pattern = re.compile(grep) if grep else None
    except re.error as error:
        raise UsageError(f"--grep: {error}") from error
    least = _LEVELS.index(level)
    # Lines that are filtered out do not count towards --tail, so all lines have to be read.
    filtered = least > 0 or pattern is not None
    lines = open_environment(target).logs(components, follow=follow, tail=None if filtered else tail)
    kept: deque[LogLine] | None = deque(maxlen=tail)
    show = as_json_line if json else _show
    async for each in _with_pause(lines):
        if each is None:
            for earlier in kept or ():
                show(earlier)
            kept = None
        elif _wanted(each, least, pattern):
            if kept is None:
                show(each)
            else:
                kept.append(each)


async def _with_pause(lines: AsyncIterator[LogLine]) -> AsyncIterator[LogLine | None]:
    """These lines, with one None at the first pause or at the end: it marks the end of the earlier lines."""
    paused, patience = False, _FIRST
    coming = asyncio.ensure_future(anext(lines, None))
    try:
        while True:
            if not paused and not (await asyncio.wait({coming}, timeout=patience))[0]:
                paused = True
                yield None
            line = await coming
            if line is None:
                break
            yield line
            patience = _NEXT
            coming = asyncio.ensure_future(anext(lines, None))
    finally:
        coming.cancel()
        await asyncio.wait({coming})
    if not paused:
        yield None


def _wanted(line: LogLine, least: int, pattern: re.Pattern[str] | None) -> bool:
    rank = _LEVELS.index(line.level) if line.level in _LEVELS else 1
    return rank >= least and (pattern is None or pattern.search(_text(line)) is not None)


def _text(line: LogLine) -> str:
    extra = [f"{name}={value}" for name, value in line.fields.items() if name not in ("logger", "component")]
    return " ".join([line.text, *extra])


def _show(line: LogLine) -> None:
    from rich.text import Text

    from nomnom_cli.output import print_result

    at = f"{line.at.astimezone():%H:%M:%S.%f}"[:-3] if line.at else " " * 12
    colour = _COLOURS[sum(map(ord, line.component)) % len(_COLOURS)]
    parts = ((at, "dim"), "  ", (f"{line.component:<10}", colour), (f"{line.level:<8}", _STYLES.get(line.level, "dim")))
    print_result(Text.assemble(*parts, (_text(line), _STYLES.get(line.level, ""))))
