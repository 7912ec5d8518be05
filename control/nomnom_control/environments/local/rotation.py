"""Log files that do not grow without end.

A file that is full is copied beside itself and emptied. Its writers hold it open (nats-server, PostgreSQL, Python) and
append, so that they go on at its top; what they write between the copy and the emptying is copied too, but for the last
instant. Libraries rotate what their own process writes.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path

MAX_BYTES = 32 * 1024**2
KEPT = 2


async def rotate_logs(folder: Path, interval: float, max_bytes: int = MAX_BYTES) -> None:
    """Look at every ``*.log`` of a folder each ``interval`` seconds, until cancelled; each keeps two full ones."""
    while True:
        await asyncio.to_thread(_rotate_full, folder, max_bytes)
        await asyncio.sleep(interval)


def earlier_logs(path: Path) -> list[Path]:
    """The full ones of a log, oldest first."""
    named = [path.with_name(f"{path.name}.{number}") for number in range(KEPT, 0, -1)]
    return [each for each in named if each.exists()]


def _rotate_full(folder: Path, max_bytes: int) -> None:
    for path in folder.glob("*.log"):
        if path.stat().st_size < max_bytes:
            continue
        first, *older = [path.with_name(f"{path.name}.{number}") for number in range(1, KEPT + 1)]
        for to in reversed(older):
            before = to.with_suffix(f".{int(to.suffix[1:]) - 1}")
            if before.exists():
                before.replace(to)
        with path.open("rb") as source, first.open("wb") as target:
            first.chmod(0o600)
            shutil.copyfileobj(source, target)
            os.truncate(path, 0)
