"""What a killed supervisor left behind: its children, found by the mark in their environment, and stopped."""

from __future__ import annotations

import signal
from pathlib import Path

import psutil

from nomnom_control.environments.local.processes import INSTANCE

_GRACE = 15.0


def stop_leftovers(folder: Path) -> list[str]:
    """Stop every process that carries this instance's mark; returns their names. Blocks: call it in a thread."""
    found = [each for each in psutil.process_iter() if _belongs(each, folder)]
    ids = {each.pid for each in found}
    # PostgreSQL's backends carry the mark too; their postmaster ends them.
    heads = [each for each in found if each.ppid() not in ids]
    names = sorted(each.name() for each in heads)
    for each in heads:
        try:
            # SIGINT is PostgreSQL's fast shutdown; the others end on it as on SIGTERM.
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
    except psutil.Error:  # gone, or another user's: not provably ours
        return False
