"""``nomnom``: the terminal app without arguments, the command line with some."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nomnom_control.environments import Environment, EnvironmentTemplate
    from nomnom_control.environments.cluster.saved import ClusterEnvironments
    from nomnom_control.environments.local.environment import LocalEnvironment


def main() -> None:
    """Run what the arguments ask for; ``--dir``, ``--env`` and ``--readonly`` alone are the app's."""
    arguments = sys.argv[1:]
    options = _app_options(arguments)
    if options is None:
        from nomnom_cli.command_line import main as command_line

        command_line(arguments)
        return
    from nomnom_tui.app.terminal import run

    raise SystemExit(run(lambda: _environment(options), readonly=options.readonly, known=_known, templates=_templates))


@dataclass(slots=True)
class _Options:
    folder: Path | None = None
    name: str | None = None
    readonly: bool = False


def _environment(options: _Options) -> Environment:
    """The environment that the app begins with; imported after its first paint."""
    from nomnom_cli.options import Where, open_environment

    return open_environment(Where(options.folder, options.name))


async def _known() -> list[Environment]:
    """The environments that may be looked at without having been chosen: this machine's and the familiar clusters."""
    return await asyncio.to_thread(_familiar)


async def _templates() -> Sequence[EnvironmentTemplate]:
    return await asyncio.to_thread(lambda: _sources()[1].templates())  # noqa: PLW0108 (the sources take a moment, too)


@cache
def _sources() -> tuple[LocalEnvironment, ClusterEnvironments]:
    from nomnom_control.environments.cluster.saved import ClusterEnvironments
    from nomnom_control.environments.local.environment import LocalEnvironment

    return LocalEnvironment(), ClusterEnvironments()


def _familiar() -> list[Environment]:
    here, clusters = _sources()
    return [here, *clusters.familiar()]


def _app_options(arguments: Sequence[str]) -> _Options | None:
    """The app's options; None where the arguments are a command line."""
    found, rest = _Options(), iter(arguments)
    for each in rest:
        if each == "--readonly":
            found.readonly = True
        elif each in ("--dir", "--env") and (value := next(rest, None)) is not None:
            if each == "--dir":
                found.folder = Path(value)
            else:
                found.name = value
        else:
            return None
    return found


if __name__ == "__main__":
    main()
