"""The spool: audit entries on the local disk until they are in PostgreSQL.

A step that removes something from a stream is spooled first, then done, then written to ``nomnom_audit``. If the
session is interrupted, the next session of the same user on the same machine writes the spooled entries. Each session
has a file of its own, which it locks; the file is removed when all its entries are in PostgreSQL.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Self

from nomnom.files import make_folder, sync_folder, write_all

_SUFFIX = ".jsonl"


class Spool:
    """One session's file of entries, one per line, created at the first write. Methods block: run them in a thread."""

    def __init__(self, folder: Path, name: str) -> None:
        self.path = folder / f"{name}{_SUFFIX}"
        self._file: int | None = None

    @classmethod
    def left_behind(cls, folder: Path) -> list[Self]:
        """The spool files of sessions that ended before all entries were written; each is locked for the caller."""
        found: list[Self] = []
        for path in sorted(folder.glob(f"*{_SUFFIX}")):
            spool = cls(folder, path.name.removesuffix(_SUFFIX))
            if spool._lock(os.O_RDWR):
                found.append(spool)
        return found

    def write(self, lines: list[bytes]) -> None:
        """Append lines and sync them to disk. Raises OSError; then none of the lines is in the file."""
        if self._file is None:
            # The entries may contain payloads of dead letters.
            make_folder(self.path.parent, mode=0o700)
            self._lock(os.O_RDWR | os.O_CREAT)
            sync_folder(self.path.parent)
        assert self._file is not None
        end = os.lseek(self._file, 0, os.SEEK_END)
        try:
            write_all(self._file, b"".join(line + b"\n" for line in lines))
            os.fsync(self._file)
        except OSError:
            # On a full disk, the next line would continue an incomplete one.
            os.ftruncate(self._file, end)
            raise

    def read(self) -> list[bytes]:
        """All complete lines; an incomplete one was interrupted, before its operation was started."""
        if self._file is None:
            return []
        data = self.path.read_bytes()
        return [line for line in data[: data.rfind(b"\n") + 1].split(b"\n") if line]

    def clear(self) -> None:
        """Remove all lines after they were written to PostgreSQL.

        This is not synced: PostgreSQL ignores the events of lines that reappear after a crash.
        """
        if self._file is not None:
            os.ftruncate(self._file, 0)

    def close(self) -> None:
        """Close the file and release its lock; an empty file is removed."""
        if self._file is None:
            return
        if os.fstat(self._file).st_size == 0:
            self.path.unlink(missing_ok=True)
        os.close(self._file)
        self._file = None

    def _lock(self, flags: int) -> bool:
        try:
            file = os.open(self.path, flags | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            return False
        self._file = file
        return True
