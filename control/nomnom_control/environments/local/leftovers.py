"""Stop the child processes of a killed supervisor, identified by a variable in their environment."""

from __future__ import annotations

import signal
from pathlib import Path

import psutil

from nomnom_control.environments.local.processes import INSTANCE

_GRACE = 15.0


def stop_leftovers(folder: Path) -> list[str]:
    """Stop every process of this instance and return their names. Blocks: call it in a thread."""
    found = [each for each in psutil.process_iter() if _belongs(each, folder)]
    ids = {each.pid for each in found}
    # PostgreSQL's backends inherit the variable too; the postmaster ends them.
    parents = [each for each in found if each.ppid() not in ids]
    names = sorted(each.name() for each in parents)
    for each in parents:
        try:
            # SIGINT is PostgreSQL's fast shutdown; the other programs get SIGTERM.
            each.send_signal(signal.SIGINT if each.name() == "postgres" else signal.SIGTERM)
        except psutil.NoSuchProcess:
            continue
    _, alive = psutil.wait_procs(found, timeout=_GRACE)
    for each in alive:
        try:
            each.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(alive, timeout=5)
    return names


def _belongs(process: psutil.Process, folder: Path) -> bool:
    try:
        return process.environ().get(INSTANCE) == str(folder)
    except psutil.Error:  # it has exited, or belongs to another user
        return False
