"""``nomnom logs``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from nomnom_control.command_line.asking import UsageProblem
from nomnom_control.command_line.options import Json, Where, open_environment

if TYPE_CHECKING:
    from nomnom_control.environment import LogLine

_LEVELS = ("debug", "info", "warning", "error")
_STYLES = {"error": "red", "warning": "yellow", "debug": "dim"}
_COLOURS = ("cyan", "magenta", "blue", "green", "bright_yellow", "bright_cyan")


async def logs(
    *components: str,
    follow: Annotated[bool, Parameter(name=("--follow", "-f"), negative="")] = False,
    tail: Annotated[int, Parameter(name=("--tail", "-n"), validator=Number(gte=0))] = 100,
    level: str = "debug",
    grep: Annotated[str | None, Parameter(show_default=False)] = None,
    json: Json = False,
    where: Where | None = None,
) -> None:
    """What the components wrote, merged by time.

    Parameters
    ----------
    components
        Only these; all by default.
    follow
        Go on, through restarts, until Ctrl-C.
    tail
        This many lines of before.
    level
        Only lines of this level or worse: debug, info, warning, error.
    grep
        Only lines in which this regular expression is found.
    """
    from nomnom_control.command_line.output import as_json_line

    if level not in _LEVELS:
        raise UsageProblem(f"no level {level!r}; there are {', '.join(_LEVELS)}")
    try:
        pattern = re.compile(grep) if grep else None
    except re.error as error:
        raise UsageProblem(f"--grep: {error}") from error
    least = _LEVELS.index(level)
    # Of lines that are filtered out, none counts towards the tail: they are all looked at.
    filtered = least > 0 or pattern is not None
    here = open_environment(where)
    earlier = here.logs(components, follow=False, tail=None if filtered else tail)
    kept = [each async for each in earlier if _wanted(each, least, pattern)]
    for each in kept[len(kept) - min(tail, len(kept)) :]:
        as_json_line(each) if json else _show(each)
    if not follow:
        return
    async for each in here.logs(components, follow=True, tail=0):
        if _wanted(each, least, pattern):
            as_json_line(each) if json else _show(each)


def _wanted(line: LogLine, least: int, pattern: re.Pattern[str] | None) -> bool:
    rank = _LEVELS.index(line.level) if line.level in _LEVELS else 1
    return rank >= least and (pattern is None or pattern.search(_text(line)) is not None)


def _text(line: LogLine) -> str:
    extra = [f"{name}={value}" for name, value in line.fields.items() if name not in ("logger", "component")]
    return " ".join([line.text, *extra])


def _show(line: LogLine) -> None:
    from rich.text import Text

    from nomnom_control.command_line.output import tell

    at = f"{line.at.astimezone():%H:%M:%S.%f}"[:-3] if line.at else " " * 12
    colour = _COLOURS[sum(map(ord, line.component)) % len(_COLOURS)]
    parts = ((at, "dim"), "  ", (f"{line.component:<10}", colour), (f"{line.level:<8}", _STYLES.get(line.level, "dim")))
    tell(Text.assemble(*parts, (_text(line), _STYLES.get(line.level, ""))))
