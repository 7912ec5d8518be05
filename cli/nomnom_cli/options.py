"""The options that commands share."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

from cyclopts import Group, Parameter

if TYPE_CHECKING:
    from nomnom_control.environments import Environment
    from nomnom_control.session.pipeline import Pipeline

_WHERE = Group("Which pipeline", sort_key=90)
_FLAG = Parameter(negative="", show_default=False)
Flag: TypeAlias = Annotated[bool, _FLAG]
"""An option that is there or not."""
Json: TypeAlias = Annotated[bool, _FLAG, Parameter(name="--json", help="JSON for programs.")]
Yes: TypeAlias = Annotated[bool, _FLAG, Parameter(name=("--yes", "-y"), help="Do it without a question.")]


@Parameter(name="*", group=_WHERE)
@dataclass(frozen=True)
class Where:
    """Which pipeline a command is about."""

    dir: Annotated[
        Path | None, Parameter(help="The local instance in this directory (NOMNOM_HOME).", show_default=False)
    ] = None
    env: Annotated[
        str | None, Parameter(help="The environment of this name (NOMNOM_ENV, nomnom env use).", show_default=False)
    ] = None


def open_environment(where: Where | None) -> Environment:
    """The environment of these options; raises EnvironmentNotFound or ControlError."""
    from nomnom_control.environments import catalog

    given = where or Where()
    return catalog.open_environment(given.env, given.dir)


def state_folder(here: Environment) -> Path:
    """The folder of what commands keep about an environment: in its directory, or in this user's state."""
    from nomnom_control.environments import catalog

    if here.kind == catalog.LOCAL:
        return Path(here.location)
    import platformdirs

    return platformdirs.user_state_path("nomnom") / "environments" / here.name


@asynccontextmanager
async def open_pipeline(where: Where | None) -> AsyncGenerator[Pipeline, None]:
    """The connections to the pipeline of these options, closed at the end."""
    from nomnom_control.session.pipeline import Pipeline

    async with await Pipeline.of(open_environment(where)) as opened:
        yield opened
