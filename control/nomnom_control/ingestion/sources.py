"""What is ingested: a file, a gzip file or standard input, in chunks of whole lines that begin at known offsets.

From one offset the same chunk follows every time, so a chunk that is sent again is the same chunk. A file is read in a
thread; a pipe is read as it flows, and a chunk of it is handed on after a moment though it is not full.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import io
import os
import stat
import sys
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from nomnom_control.errors import ControlError

LONGEST = 4 * 1024 * 1024
"""Bytes of a line, far above what a message may have: what is longer is no file of records."""
CHUNK_BYTES = 4 * 1024 * 1024
_FLOW = 0.5
"""Seconds that a line of a pipe waits for others."""
_SKIP = 1024 * 1024


class SourceError(ControlError):
    """A file or pipe that cannot be read as lines of records."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Whole lines as they stand in the source, without their ends. ``start`` and ``end`` are offsets of bytes."""

    start: int
    end: int
    first_line: int
    """The number of its first line in the source, from 1."""
    lines: list[bytes] = field(repr=False)


@dataclass(frozen=True, slots=True)
class ChunkSize:
    """How large a chunk becomes: so many lines, or about so many bytes. ``begins`` tells where it may be cut."""

    lines: int
    bytes: int = CHUNK_BYTES
    begins: Callable[[bytes], bool] | None = None
    """Whether a line begins a message; None: every line does."""


class Source:
    """A file by its path, or standard input (``-``). ``size`` is None where it is not known."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.name = "standard input" if path is None else str(path)
        self.size: int | None = None
        self.compressed = path is not None and path.suffix == ".gz"
        self._file: IO[bytes] | None = None
        self._raw: IO[bytes] | None = None
        self._position = 0

    @property
    def position(self) -> int:
        """Bytes read of ``size``."""
        if self._raw is not None and not self._raw.closed and self.compressed:
            return self._raw.tell()
        return self._position

    def identity(self, entity: str | None) -> str:
        """What tells this file, as it is now, from all others: its path, size, time and inode, and ``entity``.

        Raises SourceError where it cannot be read.
        """
        assert self.path is not None
        try:
            found = self.path.stat()
        except OSError as error:
            raise SourceError(f"{self.name} cannot be read: {error.strerror}") from error
        if not stat.S_ISREG(found.st_mode):
            raise SourceError(f"{self.name} is no file: pipe it in, and give - instead")
        self.size = found.st_size
        parts = (self.path.resolve(), found.st_size, found.st_mtime_ns, found.st_dev, found.st_ino, entity or "")
        return hashlib.sha256("\0".join(str(each) for each in parts).encode()).hexdigest()[:32]

    async def chunks(self, size: ChunkSize, offset: int = 0, line: int = 1) -> AsyncGenerator[Chunk, None]:
        """Chunks from ``offset`` on, where line number ``line`` begins. Raises SourceError."""
        carried: list[bytes] = []
        try:
            take = await self._open(offset)
            at = self._position = offset
            ended = False
            while not ended:
                read, ended = await take(size.lines - len(carried), size.bytes - sum(len(each) for each in carried))
                lines = carried + read
                self._check(lines, line)
                carried = [] if ended or size.begins is None else _cut(lines, size.begins)
                if lines:
                    length = sum(len(each) for each in lines)
                    yield Chunk(at, at + length, line, [each.rstrip(b"\r\n") for each in lines])
                    at, line = at + length, line + len(lines)
                    self._position = at
        except (OSError, EOFError, gzip.BadGzipFile) as error:
            raise SourceError(f"{self.name} cannot be read: {error}") from error
        finally:
            self._close()

    def _check(self, lines: list[bytes], first: int) -> None:
        for number, each in enumerate(lines, start=first):
            if len(each) > LONGEST:
                raise SourceError(f"{self.name}: line {number:,} is longer than {LONGEST:,} bytes: are these records?")

    async def _open(self, offset: int) -> Callable[[int, int], _Taking]:
        if self.path is not None:
            file = self._file = await asyncio.to_thread(self._open_file, offset)
            return lambda lines, length: _in_thread(file, lines, length)
        file = sys.stdin.buffer
        if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            return lambda lines, length: _in_thread(file, lines, length)
        # A thread that waits for a pipe could not be told to stop.
        reader = asyncio.StreamReader(limit=LONGEST)
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), file)
        return _Flow(reader, self.name).take

    def _open_file(self, offset: int) -> IO[bytes]:
        assert self.path is not None
        raw = self._raw = self.path.open("rb")
        if not self.compressed:
            raw.seek(offset)
            return raw
        file = io.BufferedReader(gzip.GzipFile(fileobj=raw))
        left = offset
        while left and (skipped := len(file.read(min(left, _SKIP)))):
            left -= skipped
        return file

    def _close(self) -> None:
        for each in (self._file, self._raw):
            if each is not None:
                each.close()


_Taking = asyncio.Future[tuple[list[bytes], bool]]


def _in_thread(file: IO[bytes], most: int, length: int) -> _Taking:
    return asyncio.ensure_future(asyncio.to_thread(_read_lines, file, most, length))


def _read_lines(file: IO[bytes], most: int, length: int) -> tuple[list[bytes], bool]:
    """Lines with their ends, and whether the file ended."""
    lines: list[bytes] = []
    while len(lines) < max(most, 1) and length > 0:
        line = file.readline(LONGEST + 1)
        if not line:
            return lines, True
        lines.append(line)
        length -= len(line)
        if len(line) > LONGEST:
            break
    return lines, False


class _Flow:
    """A pipe's lines: what is there, or comes within a moment."""

    def __init__(self, reader: asyncio.StreamReader, name: str) -> None:
        self._reader, self._name = reader, name
        self._next: asyncio.Future[bytes] | None = None

    def take(self, most: int, length: int) -> _Taking:
        """Lines with their ends, and whether the pipe ended."""
        return asyncio.ensure_future(self._take(most, length))

    async def _take(self, most: int, length: int) -> tuple[list[bytes], bool]:
        lines: list[bytes] = []
        loop = asyncio.get_running_loop()
        until: float | None = None
        while len(lines) < max(most, 1) and length > 0:
            if self._next is None:
                self._next = asyncio.ensure_future(self._reader.readline())
            wait = None if until is None else max(0.0, until - loop.time())
            await asyncio.wait({self._next}, timeout=wait)
            if not self._next.done():
                break
            coming, self._next = self._next, None
            try:
                line = coming.result()
            except ValueError as error:
                raise SourceError(f"{self._name}: a line is longer than {LONGEST:,} bytes: are these records?") from error
            if not line:
                return lines, True
            until = until or loop.time() + _FLOW
            lines.append(line)
            length -= len(line)
        return lines, False


def _cut(lines: list[bytes], begins: Callable[[bytes], bool]) -> list[bytes]:
    """Take the last message off ``lines``, since more of it may follow, and return it; nothing where it is the only."""
    for at in range(len(lines) - 1, 0, -1):
        if begins(lines[at]):
            rest = lines[at:]
            del lines[at:]
            return rest
    return []
