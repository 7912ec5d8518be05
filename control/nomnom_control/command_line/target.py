"""Which pipeline a command means: the one place where an environment is chosen."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

from cyclopts import Parameter

from nomnom_control.environment import Environment
from nomnom_control.errors import ControlError

if TYPE_CHECKING:
    from nomnom_control.pipeline import Pipeline

Directory: TypeAlias = Annotated[Path | None, Parameter(help="The instance's directory (NOMNOM_HOME).")]
Json: TypeAlias = Annotated[bool, Parameter(negative="", help="JSON instead of a table.")]
Yes: TypeAlias = Annotated[bool, Parameter(negative="", help="Do it without a question.")]


class UsageError(ControlError):
    """A command line that does not say what is needed."""


def environment(folder: Path | None) -> Environment:
    """The environment of these options."""
    from nomnom_control.local.environment import LocalEnvironment

    return LocalEnvironment(folder)


@asynccontextmanager
async def pipeline(folder: Path | None) -> AsyncGenerator[Pipeline, None]:
    """The connections to the pipeline of these options, closed at the end."""
    from nomnom_control.pipeline import Pipeline

    async with await Pipeline.of(environment(folder)) as opened:
        yield opened


def pairs(settings: Sequence[str]) -> dict[str, str]:
    """NAME=VALUE texts as a mapping; ends the command where one is not of that form."""
    found: dict[str, str] = {}
    for each in settings:
        name, equals, value = each.partition("=")
        if not name or not equals:
            raise UsageError(f"expected NAME=VALUE, found {each!r}")
        found[name] = value
    if not found:
        raise UsageError("expected one or more NAME=VALUE")
    return found
