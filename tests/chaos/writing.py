"""A program that writes nomnom's own files and prints each write when it is done: ``python -m tests.chaos.writing``.

Arguments: the kind of file, the folder, and "carelessly" to write without syncing (a control).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path

from nomnom_control.environments.cluster.configuration import SavedEnvironment, read_configuration, save_environment
from nomnom_control.environments.local.instance import Instance, State
from nomnom_control.sending.files import Checkpoint, read_checkpoint, write_checkpoint
from nomnom_control.session.audit.spool import Spool


def _write_spool(folder: Path) -> Callable[[int], None]:
    spool = Spool(folder / "audit" / "database", "session")
    return lambda number: spool.write([str(number).encode()])


def _read_spool(folder: Path) -> int:
    spools = Spool.left_behind(folder / "audit" / "database")
    lines = [int(line) for each in spools for line in each.read()]
    for each in spools:
        each.close()
    assert lines == list(range(1, len(lines) + 1)), lines
    return len(lines)


def _write_state(folder: Path) -> Callable[[int], None]:
    instance = Instance(folder / "instance")
    instance.acquire()
    return lambda number: instance.save(State(pid=number))


def _write_environments(folder: Path) -> Callable[[int], None]:
    os.environ["NOMNOM_CLUSTERS"] = str(folder / "configuration" / "clusters.yaml")
    return lambda number: save_environment(str(number), SavedEnvironment(context="cluster"))


def _read_environments(folder: Path) -> int:
    os.environ["NOMNOM_CLUSTERS"] = str(folder / "configuration" / "clusters.yaml")
    return len(read_configuration({}).environments)


WRITERS: dict[str, Callable[[Path], Callable[[int], None]]] = {
    "spool": _write_spool,
    "state": _write_state,
    "environments": _write_environments,
    "checkpoint": lambda folder: (
        lambda number: write_checkpoint(folder / "checkpoints" / "file.json", Checkpoint(number, number))
    ),
}
"""Returns a function that makes the write of a number, from 1."""
READERS: dict[str, Callable[[Path], int]] = {
    "spool": _read_spool,
    "state": lambda folder: Instance(folder / "instance").load().pid or 0,
    "environments": _read_environments,
    "checkpoint": lambda folder: read_checkpoint(folder / "checkpoints" / "file.json").offset,
}
"""Reads the number of the last write that is stored; 0 if there is none. Raises an exception if a file is damaged."""


def main() -> None:
    """Write until killed."""
    kind, folder, *options = sys.argv[1:]
    if options == ["carelessly"]:
        os.fsync = lambda _: None
    write = WRITERS[kind](Path(folder))
    for number in count(1):
        write(number)
        sys.stdout.write(f"{number}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
