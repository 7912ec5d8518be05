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

_TARGET = Group("Target", sort_key=90)
_FLAG = Parameter(negative="", show_default=False)
Flag: TypeAlias = Annotated[bool, _FLAG]
"""An option without a value."""
Json: TypeAlias = Annotated[bool, _FLAG, Parameter(name="--json", help="Output JSON.")]
Yes: TypeAlias = Annotated[bool, _FLAG, Parameter(name=("--yes", "-y"), help="Do not ask for confirmation.")]


@Parameter(name="*", group=_TARGET)
@dataclass(frozen=True)
class Target:
    """The pipeline that a command applies to."""

    dir: Annotated[
        Path | None, Parameter(help="Local instance in this directory (default: NOMNOM_HOME).", show_default=False)
    ] = None
    env: Annotated[
        str | None, Parameter(help="Environment name (default: NOMNOM_ENV, then `nomnom env use`).", show_default=False)
    ] = None


def open_environment(target: Target | None) -> Environment:
    """The environment of these options; raises EnvironmentNotFound or ControlError."""
    from nomnom_control.environments import catalog

    given = target or Target()
    return catalog.open_environment(given.env, given.dir)


def state_folder(here: Environment) -> Path:
    """The folder of what commands keep about an environment: in its directory, or in this user's state."""
    from nomnom_control.environments import catalog

    if here.kind == catalog.LOCAL:
        return Path(here.location)
    import platformdirs

    return platformdirs.user_state_path("nomnom") / "environments" / here.name


@asynccontextmanager
async def open_pipeline(target: Target | None) -> AsyncGenerator[Pipeline, None]:
    """Connections to the pipeline of these options; closed at the end of the block."""
    from nomnom_control.session.pipeline import Pipeline

    async with await Pipeline.of(open_environment(target)) as opened:
        yield opened
