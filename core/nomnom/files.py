"""Files that survive a power cut: synced, replaced atomically, in folders that are synced too.

A write reaches the disk with ``fsync`` of the file, a new or replaced name with ``fsync`` of its folder (fsync(2),
rename(2)); file systems differ in what they write without it. These functions block: run them in a thread.
"""

from __future__ import annotations

import os
from pathlib import Path


def replace_file(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Replace a file atomically and durably: after a crash it has its old or its new content.

    The folder must exist. When this returns, the new content is on disk. ``mode`` applies before the umask. The content
    is first written to ``<name>.new``: only one process may replace a file at a time. Raises OSError.
    """
    new = path.with_name(f"{path.name}.new")
    file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        write_all(file, content)
        os.fsync(file)
    finally:
        os.close(file)
    new.replace(path)
    sync_folder(path.parent)


def write_all(file: int, content: bytes) -> None:
    """Write all bytes to a file descriptor; ``os.write`` may write only a part. Raises OSError."""
    left = memoryview(content)
    while left:
        left = left[os.write(file, left) :]


def make_folder(path: Path, mode: int = 0o755) -> None:
    """Create a folder durably, with its missing parents; only the folder itself gets ``mode``. Raises OSError."""
    if path.is_dir():
        return
    missing = [path, *(each for each in path.parents if not each.exists())]
    path.mkdir(parents=True, exist_ok=True, mode=mode)
    for each in missing:
        sync_folder(each.parent)


def sync_folder(path: Path) -> None:
    """Sync the names in a folder to disk. Raises OSError."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
