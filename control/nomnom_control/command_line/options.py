"""The options that commands share, and the one place where an environment is chosen."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

from cyclopts import Group, Parameter

if TYPE_CHECKING:
    from nomnom_control.environment import Environment
    from nomnom_control.pipeline import Pipeline

_WHERE = Group("Which pipeline", sort_key=90)
Json: TypeAlias = Annotated[bool, Parameter(name="--json", negative="", help="JSON for programs.")]
Yes: TypeAlias = Annotated[bool, Parameter(name=("--yes", "-y"), negative="", help="Do it without a question.")]


@Parameter(name="*", group=_WHERE)
@dataclass(frozen=True)
class Where:
    """Which pipeline a command is about."""

    dir: Annotated[
        Path | None, Parameter(help="The local instance in this directory (NOMNOM_HOME).", show_default=False)
    ] = None


def open_environment(where: Where | None) -> Environment:
    """The environment of these options."""
    from nomnom_control.local.environment import LocalEnvironment

    return LocalEnvironment((where or Where()).dir)


@asynccontextmanager
async def open_pipeline(where: Where | None) -> AsyncGenerator[Pipeline, None]:
    """The connections to the pipeline of these options, closed at the end."""
    from nomnom_control.pipeline import Pipeline

    async with await Pipeline.of(open_environment(where)) as opened:
        yield opened
