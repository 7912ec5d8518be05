"""``nomnom``: the terminal app without arguments, the command line with some."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nomnom_control.environments import Environment, EnvironmentTemplate


def main() -> None:
    """Run what the arguments ask for; ``--dir``, ``--env`` and ``--readonly`` alone are the app's."""
    arguments = sys.argv[1:]
    options = _app_options(arguments)
    if options is None:
        from nomnom_cli.command_line import main as command_line

        command_line(arguments)
        return
    from nomnom_tui.app.terminal import run

    raise SystemExit(run(lambda: _environment(options), readonly=options.readonly, known=_listed, templates=_templates))


@dataclass(slots=True)
class _Options:
    folder: Path | None = None
    name: str | None = None
    readonly: bool = False


def _environment(options: _Options) -> Environment:
    """The environment that the app opens; imported after the first paint."""
    from nomnom_control.environments import catalog

    return catalog.open_environment(options.name, options.folder)


async def _listed() -> list[Environment]:
    from nomnom_control.environments import catalog

    return await asyncio.to_thread(catalog.listed_environments)


async def _templates() -> Sequence[EnvironmentTemplate]:
    from nomnom_control.environments import catalog

    return await asyncio.to_thread(catalog.environment_templates)


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
