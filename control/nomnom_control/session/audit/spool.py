"""The journal: audit entries on this machine's disk until PostgreSQL has them.

A step that removes something from a stream is journalled first, then done, then entered in ``nomnom_audit``. So what a
broken session did is still entered: by the next session of this user on this machine, once PostgreSQL is there. A file
is one session's; it holds a lock on it while it lives, and is removed when all of it is entered.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Self

_SUFFIX = ".jsonl"


class Spool:
    """One session's file of entries, a line each; made at the first write. Methods block: run them in a thread."""

    def __init__(self, folder: Path, name: str) -> None:
        self.path = folder / f"{name}{_SUFFIX}"
        self._file: int | None = None

    @classmethod
    def left_behind(cls, folder: Path) -> list[Self]:
        """The journals of sessions that ended without entering all; each is locked now, and the caller's."""
        found: list[Self] = []
        for path in sorted(folder.glob(f"*{_SUFFIX}")):
            spool = cls(folder, path.name.removesuffix(_SUFFIX))
            if spool._lock(os.O_RDWR):
                found.append(spool)
        return found

    def write(self, lines: list[bytes]) -> None:
        """Append lines; they are on the disk when this returns."""
        if self._file is None:
            # Payloads of dead letters may be in here.
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock(os.O_RDWR | os.O_CREAT)
        assert self._file is not None
        os.lseek(self._file, 0, os.SEEK_END)
        data = memoryview(b"".join(line + b"\n" for line in lines))
        while data:
            data = data[os.write(self._file, data) :]
        os.fsync(self._file)

    def read(self) -> list[bytes]:
        """All whole lines; one that was cut off while being written was not acted on yet."""
        if self._file is None:
            return []
        data = self.path.read_bytes()
        return [line for line in data[: data.rfind(b"\n") + 1].split(b"\n") if line]

    def clear(self) -> None:
        """Forget what is entered."""
        if self._file is not None:
            os.ftruncate(self._file, 0)

    def close(self) -> None:
        """Let go of the file; an empty one is removed."""
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
