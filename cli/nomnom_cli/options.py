"""The options that commands share, and the one place where an environment is chosen."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Protocol, TypeAlias

from cyclopts import Group, Parameter

from nomnom_cli.prompts import UsageError

if TYPE_CHECKING:
    from nomnom_control.environments import Environment
    from nomnom_control.session.pipeline import Pipeline

_WHERE = Group("Which pipeline", sort_key=90)
_FLAG = Parameter(negative="", show_default=False)
Flag: TypeAlias = Annotated[bool, _FLAG]
"""An option that is there or not."""
Json: TypeAlias = Annotated[bool, _FLAG, Parameter(name="--json", help="JSON for programs.")]
Yes: TypeAlias = Annotated[bool, _FLAG, Parameter(name=("--yes", "-y"), help="Do it without a question.")]


LOCAL = "local"
"""The name of this machine's environment."""


class EnvironmentSource(Protocol):
    """Environments that have names, beside this machine's."""

    def names(self) -> Sequence[str]:
        """Those that there are."""
        ...

    def find(self, name: str) -> Environment | None:
        """The environment of that name, if there is one."""
        ...


SOURCES: list[EnvironmentSource] = []
"""Asked in turn; a module that brings environments appends its own where its commands are registered."""


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

    @property
    def name(self) -> str:
        """The environment's name; a directory is one of this machine whatever NOMNOM_ENV says."""
        if self.env or self.dir:
            return self.env or LOCAL
        return os.environ.get("NOMNOM_ENV") or _usual()


def _usual() -> str:
    """What ``nomnom env use`` chose; looked for without the libraries that read it, since most people chose nothing."""
    import platformdirs

    given = os.environ.get("NOMNOM_CLUSTERS")
    path = Path(given) if given else platformdirs.user_config_path("nomnom") / "clusters.yaml"
    if not path.is_file():
        return LOCAL
    from nomnom_control.environments.cluster.configuration import read_configuration

    return read_configuration().current or LOCAL


def open_environment(where: Where | None) -> Environment:
    """The environment of these options; raises UsageProblem where there is none of that name."""
    from nomnom_control.environments.local.environment import LocalEnvironment

    given = where or Where()
    if given.name == LOCAL:
        return LocalEnvironment(given.dir)
    if given.dir is not None:
        raise UsageError(f"--dir is for the local environment, and --env names {given.name}")
    for source in SOURCES:
        if (found := source.find(given.name)) is not None:
            return found
    known = ", ".join([LOCAL, *(name for source in SOURCES for name in source.names())])
    raise UsageError(f"no environment {given.name!r}; there are: {known}")


def state_folder(here: Environment) -> Path:
    """Where what commands remember about an environment is kept: in its directory, or in this person's state."""
    if here.kind == LOCAL:
        return Path(here.location)
    import platformdirs

    return platformdirs.user_state_path("nomnom") / "environments" / here.name


@asynccontextmanager
async def open_pipeline(where: Where | None) -> AsyncGenerator[Pipeline, None]:
    """The connections to the pipeline of these options, closed at the end."""
    from nomnom_control.session.pipeline import Pipeline

    async with await Pipeline.of(open_environment(where)) as opened:
        yield opened
