"""``nomnom``: the terminal app without arguments, the command line with some."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nomnom_control.environment import Environment


def main() -> None:
    """Run what the arguments ask for; ``--dir`` and ``--readonly`` alone are the app's."""
    arguments = sys.argv[1:]
    folder, readonly = _app_options(arguments)
    if readonly is None:
        from nomnom_control.command_line import main as command_line

        command_line(arguments)
        return
    from nomnom_tui.application import run

    raise SystemExit(run(lambda: _environment(folder), readonly=readonly))


def _environment(folder: Path | None) -> Environment:
    """The environment that the app begins with; imported after its first paint."""
    from nomnom_control.local.environment import LocalEnvironment

    return LocalEnvironment(folder)


def _app_options(arguments: list[str]) -> tuple[Path | None, bool | None]:
    """The app's directory and whether it may change nothing; None where the arguments are a command line."""
    rest = [each for each in arguments if each != "--readonly"]
    readonly = len(rest) < len(arguments)
    if not rest:
        return None, readonly
    if len(rest) == 2 and rest[0] == "--dir":
        return Path(rest[1]), readonly
    return None, None


if __name__ == "__main__":
    main()
