"""``nomnom completion``: what a shell needs to complete commands, options and their values."""

from __future__ import annotations

import sys
from typing import Literal


def completion(shell: Literal["bash", "zsh", "fish"], /) -> None:
    """Print a completion script: nomnom completion bash > ~/.local/share/bash-completion/completions/nomnom.

    Parameters
    ----------
    shell
        bash, zsh or fish.
    """
    from nomnom_control.command_line.program import app

    sys.stdout.write(app.generate_completion(prog_name="nomnom", shell=shell))
