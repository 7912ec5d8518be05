"""How far a file was ingested: which chunks the api has acknowledged, on disk before they count.

A journal belongs to one file as it was (its identity), and is held by one process at a time. Its header keeps how the
file was cut into chunks, so that a later run cuts it the same way, whatever it was asked for.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import msgspec
from filelock import FileLock, Timeout

from nomnom_control.errors import ControlError


class JournalError(ControlError):
    """A journal that cannot be used."""


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """What was begun. ``generation`` counts how often the file was ingested from its start on purpose."""

    name: str
    identity: str
    generation: int = 0
    lines: int
    bytes: int
    grouped: bool = False
    begun_at: datetime


class Done(msgspec.Struct, frozen=True, array_like=True):
    """An acknowledged chunk: where it is, how many lines it spans, and what became of them."""

    start: int
    end: int
    lines: int
    records: int
    accepted: int
    duplicates: int
    refused: int


class Finish(msgspec.Struct, frozen=True):
    """The whole file was acknowledged."""

    finished_at: datetime


class Journal:
    """One file's journal, held from :meth:`open` to :meth:`close`. Methods block for a moment: call them in a thread."""

    def __init__(self, path: Path, header: Header, done: list[Done], finished_at: datetime | None) -> None:
        self.path, self.header, self.finished_at = path, header, finished_at
        self.done = {each.start: each for each in done}
        self._file: int | None = None
        self._lock: FileLock | None = None

    @classmethod
    def open(cls, folder: Path, header: Header, *, restart: bool = False) -> Self:
        """The journal of ``header.identity``, made where there is none; ``restart`` begins a new generation.

        Raises JournalError where another process ingests the same file, or the folder cannot be written.
        """
        path = folder / f"{header.identity}.jsonl"
        lock = FileLock(path.with_suffix(".lock"))
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock.acquire(timeout=0)
            journal = cls._read(path, header)
            if restart and journal.done:
                again = msgspec.structs.replace(header, generation=journal.header.generation + 1)
                journal = cls(path, again, [], None)
            journal._write()
        except Timeout:
            raise JournalError(f"{header.name} is being ingested by another process; wait for it, or stop it") from None
        except OSError as error:
            raise JournalError(f"{path} cannot be written: {error.strerror}; is the directory writable?") from error
        journal._lock = lock
        return journal

    @classmethod
    def _read(cls, path: Path, header: Header) -> Self:
        try:
            text = path.read_bytes()
        except FileNotFoundError:
            return cls(path, header, [], None)
        # A last line without its end was not finished writing: its chunk is sent again, which changes nothing.
        lines = text[: text.rfind(b"\n") + 1].splitlines()
        if not lines:
            return cls(path, header, [], None)
        try:
            kept = msgspec.json.decode(lines[0], type=Header)
            done = [msgspec.json.decode(each, type=Done) for each in lines[1:] if each.startswith(b"[")]
            ends = [msgspec.json.decode(each, type=Finish) for each in lines[1:] if each.startswith(b"{")]
        except msgspec.DecodeError as error:
            raise JournalError(f"{path} cannot be read ({error}): remove it to ingest the file anew") from error
        return cls(path, kept, done, ends[-1].finished_at if ends else None)

    @property
    def reached(self) -> tuple[int, int]:
        """The offset up to which all is acknowledged, and the number of the line there."""
        offset, line = 0, 1
        while (chunk := self.done.get(offset)) is not None and chunk.end > offset:
            offset, line = chunk.end, line + chunk.lines
        return offset, line

    @property
    def key(self) -> str:
        """What the idempotency keys of the file's chunks begin with."""
        return f"ingest:{self.header.identity}:{self.header.generation}"

    def add(self, chunk: Done) -> None:
        """Record an acknowledged chunk; it is on disk when this returns."""
        self.done[chunk.start] = chunk
        self._append(msgspec.json.encode(chunk))

    def finish(self) -> None:
        """Record that the file is ingested."""
        self.finished_at = datetime.now(UTC)
        self._append(msgspec.json.encode(Finish(self.finished_at)))

    def close(self) -> None:
        """Let go of it."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _write(self) -> None:
        """Write it anew, whole or not at all."""
        parts: list[msgspec.Struct] = [self.header, *self.done.values()]
        if self.finished_at is not None:
            parts.append(Finish(self.finished_at))
        new = self.path.with_suffix(".new")
        new.write_bytes(b"".join(msgspec.json.encode(each) + b"\n" for each in parts))
        new.replace(self.path)
        self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        os.fsync(self._file)

    def _append(self, line: bytes) -> None:
        assert self._file is not None, "not open"
        try:
            data = memoryview(line + b"\n")
            while data:
                data = data[os.write(self._file, data) :]
            os.fdatasync(self._file)
        except OSError as error:
            raise JournalError(f"{self.path} cannot be written: {error.strerror}") from error
