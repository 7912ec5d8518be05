"""Log rotation by copy and truncate.

The writers (nats-server, PostgreSQL, Python) keep the file open in append mode, so they continue at its start after it
was truncated. Lines written in the instant between the end of the copy and the truncation are lost. Rotation by a
logging library is no alternative: it only works for files written by its own process.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path

MAX_BYTES = 32 * 1024**2
KEPT = 2


async def rotate_logs(folder: Path, interval: float, max_bytes: int = MAX_BYTES) -> None:
    """Check every ``*.log`` of a folder each ``interval`` seconds until cancelled; keep two rotated files of each."""
    while True:
        await asyncio.to_thread(_rotate_full, folder, max_bytes)
        await asyncio.sleep(interval)


def earlier_logs(path: Path) -> list[Path]:
    """The rotated files of a log, oldest first."""
    candidates = [path.with_name(f"{path.name}.{number}") for number in range(KEPT, 0, -1)]
    return [each for each in candidates if each.exists()]


def _rotate_full(folder: Path, max_bytes: int) -> None:
    for path in folder.glob("*.log"):
        if path.stat().st_size < max_bytes:
            continue
        first, *older = [path.with_name(f"{path.name}.{number}") for number in range(1, KEPT + 1)]
        for target in reversed(older):
            newer = target.with_suffix(f".{int(target.suffix[1:]) - 1}")
            if newer.exists():
                newer.replace(target)
        with path.open("rb") as source, first.open("wb") as copy:
            first.chmod(0o600)
            shutil.copyfileobj(source, copy)
            os.truncate(path, 0)
