"""The catalog of environments: every kind and every name that can be opened, for command line and app alike.

Each kind is imported when it is needed: a local session never loads the Kubernetes client.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Protocol

from nomnom_control.environments import Environment, EnvironmentTemplate
from nomnom_control.environments.cluster.location import configuration_path
from nomnom_control.errors import ControlError

LOCAL = "local"
"""The name of this machine's environment."""


class EnvironmentNotFound(ControlError):  # noqa: N818 (a name that was mistyped)
    """No environment has the given name."""


class EnvironmentSource(Protocol):
    """One kind of named environments. No method contacts a server."""

    def names(self) -> Sequence[str]:
        """Every name that can be opened."""
        ...

    def find(self, name: str) -> Environment | None:
        """The environment of that name, or None."""
        ...

    def listed(self) -> Sequence[Environment]:
        """The environments whose state may be shown before one of them is selected."""
        ...

    def templates(self) -> Sequence[EnvironmentTemplate]:
        """The environments that can be created; raises ControlError."""
        ...


def _local() -> EnvironmentSource:
    return LocalEnvironments()


def _clusters() -> EnvironmentSource:
    from nomnom_control.environments.cluster.source import ClusterEnvironments

    return ClusterEnvironments()


SOURCES: tuple[Callable[[], EnvironmentSource], ...] = (_local, _clusters)
"""Every kind of environment, in the order in which names are resolved."""


class LocalEnvironments:
    """This machine's environment: the instance in NOMNOM_HOME, or in another directory if one is given."""

    def __init__(self) -> None:
        self._default: Environment | None = None

    def names(self) -> Sequence[str]:
        """``local``."""
        return (LOCAL,)

    def find(self, name: str, folder: Path | None = None) -> Environment | None:
        """The instance in a directory (default: NOMNOM_HOME); None for any name but ``local``."""
        if name != LOCAL:
            return None
        from nomnom_control.environments.local.environment import LocalEnvironment

        return LocalEnvironment(folder)

    def listed(self) -> Sequence[Environment]:
        """The instance in NOMNOM_HOME; the same object at every call, since it holds connections."""
        if self._default is None:
            self._default = self.find(LOCAL)
        return () if self._default is None else (self._default,)

    def templates(self) -> Sequence[EnvironmentTemplate]:
        """None: the local environment always exists, if only stopped."""
        return ()


@cache
def _source(make: Callable[[], EnvironmentSource]) -> EnvironmentSource:
    return make()


def default_name() -> str:
    """The default environment: NOMNOM_ENV, else the one saved by ``nomnom env use``, else ``local``."""
    if named := os.environ.get("NOMNOM_ENV"):
        return named
    if not configuration_path().is_file():
        # Avoids loading the YAML library in the common case without saved environments.
        return LOCAL
    from nomnom_control.environments.cluster.configuration import read_configuration

    return read_configuration().current or LOCAL


def names() -> list[str]:
    """Every name that :func:`open_environment` accepts; no server is contacted."""
    return [name for make in SOURCES for name in _source(make).names()]


def open_environment(name: str | None = None, folder: Path | None = None) -> Environment:
    """The environment of that name; a ``folder`` selects a local instance, whatever the default is.

    Raises EnvironmentNotFound, or ControlError if a folder is given for another kind of environment.
    """
    chosen = name or (LOCAL if folder else default_name())
    if folder is not None:
        if chosen != LOCAL:
            raise EnvironmentNotFound(f"--dir applies to the local environment only, but --env names {chosen}")
        found = LocalEnvironments().find(chosen, folder)
        assert found is not None
        return found
    for make in SOURCES:
        if (found := _source(make).find(chosen)) is not None:
            return found
    raise EnvironmentNotFound(f"no environment {chosen!r}; available: {', '.join(names())}")


def listed_environments() -> list[Environment]:
    """The environments whose state may be shown before one of them is selected."""
    return [each for make in SOURCES for each in _source(make).listed()]


def environment_templates() -> list[EnvironmentTemplate]:
    """The environments that can be created; raises ControlError."""
    return [each for make in SOURCES for each in _source(make).templates()]
