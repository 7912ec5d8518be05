"""Sends files to the API in chunks of lines, each with its own Idempotency-Key, and resumes interrupted runs.

A checkpoint stores the offset after the last acknowledged chunk of each file. A chunk that was sent but not
acknowledged is sent again under the same key, which does not create new messages. Therefore the end of a chunk must
depend only on the file and on the API's responses, never on an option.

Chunks are sent one at a time: lines keep the order of the file, and of two records with the same key the later wins.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import os
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import IO, Any, cast

import msgspec

from nomnom.files import make_folder, replace_file, sync_folder
from nomnom.retry import RetryPolicy
from nomnom_control.errors import ControlError
from nomnom_control.http_client import Answer, HttpClient, HttpError

_CHUNK = 2 * 1024 * 1024
_RETRY_LIMIT = 300.0
_RETRY = RetryPolicy(first=0.5, longest=10.0)
_KEPT_REFUSALS = 1000
_LATER = (408, 429, 502, 503, 504)
"""HTTP statuses of the API, or of a proxy in front of it, after which the same chunk is sent again."""


class SendingError(ControlError):
    """A file cannot be read, or the API does not accept it."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Lines that the API rejected for good, from ``line`` to ``last_line``, and the reason."""

    line: int
    last_line: int
    detail: str


@dataclass(slots=True)
class Ingested:
    """The progress of a file.

    ``duplicates`` are accepted messages that an earlier run or attempt had already put into the stream.
    """

    name: str
    size: int | None
    """Bytes; None if the size is not known in advance."""
    offset: int = 0
    lines: int = 0
    accepted: int = 0
    duplicates: int = 0
    refused: int = 0
    refusals: list[Refusal] = field(default_factory=list[Refusal])
    """The first thousand rejections."""
    resumed: bool = False
    seconds: float = 0.0
    problem: str = ""
    """Why the API does not accept the current chunk, which is being retried."""


class Checkpoint(msgspec.Struct):
    """How much of a file was acknowledged."""

    offset: int = 0
    lines: int = 0


class _Problem(msgspec.Struct):
    line: int
    last_line: int | None
    status: int
    detail: str


class _Response(msgspec.Struct):
    count: int
    duplicates: int = 0
    problems: list[_Problem] = []


@dataclass(frozen=True, slots=True)
class _Acknowledged:
    """The result of the first ``lines`` lines of a chunk; the API did not read the others."""

    count: int
    duplicates: int
    refused: list[tuple[int, int, str]]
    """First and last line, and the reason."""
    lines: int


class Sending:
    """Sends files to one API. ``rejects`` is a file that rejected lines are appended to, as they were sent.

    ``checkpoints`` is the folder of the checkpoints.
    """

    def __init__(self, api: str, token: str | None, checkpoints: Path, rejects: Path | None = None) -> None:
        self._url = f"{api}/api/ingest/batch?ids=none"
        self._headers = {"Content-Type": "text/plain", **({"Authorization": f"Bearer {token}"} if token else {})}
        self._checkpoints, self._rejects = checkpoints, rejects

    async def send(self, path: Path, tag: str | None = None, *, restart: bool = False) -> AsyncIterator[Ingested]:
        """Send a file, decompressed if its name ends in .gz, with the prefix ``tag`` on each line.

        Yields the progress after each chunk and whenever a chunk has to be retried; nothing if an earlier run sent the
        whole file. ``restart`` sends it from the beginning, under the same keys. Raises SendingError.
        """
        compressed = path.suffix == ".gz"
        try:
            status = await asyncio.to_thread(path.stat)
            source = await asyncio.to_thread(_open, path, compressed=compressed)
        except OSError as error:
            raise SendingError(f"cannot read {path}: {error.strerror}") from error
        origin = f"{await asyncio.to_thread(path.resolve)} {status.st_size} {status.st_mtime_ns} {status.st_ino} {tag}"
        identity = hashlib.sha256(origin.encode()).hexdigest()[:32]
        file = self._checkpoints / f"{identity}.json"
        checkpoint = Checkpoint() if restart else await asyncio.to_thread(read_checkpoint, file)
        state = Ingested(
            str(path),
            None if compressed else status.st_size,
            checkpoint.offset,
            checkpoint.lines,
            resumed=checkpoint.offset > 0,
        )
        with source:
            await asyncio.to_thread(source.seek, checkpoint.offset)
            async for each in self._chunks(source, state, identity, tag):
                await asyncio.to_thread(write_checkpoint, file, Checkpoint(each.offset, each.lines))
                yield each
        if not status.st_size:
            yield state

    async def send_stream(self, source: IO[bytes], tag: str | None = None) -> AsyncIterator[Ingested]:
        """Send a stream that cannot be read twice, such as standard input; it cannot be resumed."""
        async for each in self._chunks(source, Ingested("-", None), uuid.uuid4().hex, tag):
            yield each

    async def _chunks(
        self, source: IO[bytes], state: Ingested, identity: str, tag: str | None
    ) -> AsyncIterator[Ingested]:
        prefix = f"{tag}|".encode() if tag else b""
        began = time.monotonic()
        async with HttpClient(60, connect=5, headers=self._headers) as client:
            lines: list[bytes] = []
            while lines := lines or await _read_lines(source, state.name):
                sent = [prefix + line if line.strip() else line for line in lines]
                acknowledged = len(lines)
                if any(line.strip() for line in lines):
                    async for outcome in self._post(client, sent, f"{identity}-{state.offset}"):
                        state.seconds = time.monotonic() - began
                        if isinstance(outcome, str):
                            state.problem = outcome
                            yield state
                        else:
                            acknowledged = outcome.lines
                            await asyncio.to_thread(self._record, state, outcome, sent)
                state.offset += sum(map(len, lines[:acknowledged]))
                state.lines += acknowledged
                state.problem = ""
                lines = lines[acknowledged:]
                yield state

    def _record(self, state: Ingested, outcome: _Acknowledged, lines: list[bytes]) -> None:
        state.accepted += outcome.count
        state.duplicates += outcome.duplicates
        for first, last, detail in outcome.refused:
            refused = [line for line in lines[first - 1 : last] if line.strip()]
            if not refused:
                continue
            state.refused += len(refused)
            if len(state.refusals) < _KEPT_REFUSALS:
                state.refusals.append(Refusal(state.lines + first, state.lines + last, detail))
            if self._rejects is not None:
                # Synced, because the checkpoint passes these lines next.
                with self._rejects.open("ab") as file:
                    file.writelines(line if line.endswith(b"\n") else line + b"\n" for line in refused)
                    file.flush()
                    os.fsync(file.fileno())
                sync_folder(self._rejects.parent)

    async def _post(self, client: HttpClient, lines: list[bytes], key: str) -> AsyncIterator[_Acknowledged | str]:
        """Post a chunk until its lines, or the first of them, are accepted or rejected for good.

        Yields the reason of each retry, then the result.
        """
        deadline = time.monotonic() + _RETRY_LIMIT
        for failures in count(1):
            wait = _RETRY.wait(failures)
            try:
                content = b"".join(lines)
                answer = await client.request("POST", self._url, content=content, headers={"Idempotency-Key": key})
            except HttpError as error:
                problem = f"no response from the API: {error}"
            else:
                if answer.status in (202, 207):
                    read = _read_response(answer)
                    later = next((each for each in read.problems if each.status in _LATER), None)
                    if later is None:
                        yield _acknowledged(read, len(lines))
                        return
                    # Lines that were accepted become duplicates in the next attempt.
                    problem = later.detail
                else:
                    problem = _detail(answer)
                    if answer.status == 413 and len(lines) > 1:
                        # The chunk or a single line is too large. The ids depend only on the lines: a half keeps them.
                        lines = lines[: len(lines) // 2]
                        continue
                    if answer.status in (400, 413):
                        yield _Acknowledged(0, 0, [(1, len(lines), problem)], len(lines))
                        return
                    if answer.status not in _LATER:
                        raise SendingError(f"the API rejected the request: {problem}")
                    wait = _retry_after(answer, wait)
            if time.monotonic() + wait > deadline:
                raise SendingError(f"gave up after {_RETRY_LIMIT:g}s: {problem}; run the same command to resume")
            yield problem
            await asyncio.sleep(wait)


def _read_response(answer: Answer) -> _Response:
    try:
        return msgspec.json.decode(answer.content, type=_Response)
    except msgspec.DecodeError as error:
        raise SendingError(f"unexpected response from {answer.url} (not a nomnom API): {error}") from error


def _acknowledged(answer: _Response, lines: int) -> _Acknowledged:
    """The result in a 202 or 207. The API did not read the lines after a problem without a last line."""
    unread = next((each for each in answer.problems if each.last_line is None), None)
    refused = [(each.line, each.last_line, each.detail) for each in answer.problems if each.last_line is not None]
    if unread is None:
        return _Acknowledged(answer.count, answer.duplicates, refused, lines)
    if unread.line == 1:
        raise SendingError(f"the API rejected the request: {unread.detail}")
    return _Acknowledged(answer.count, answer.duplicates, refused, unread.line - 1)


def _retry_after(answer: Answer, wait: float) -> float:
    """Seconds to wait; a Retry-After with a date, which RFC 9110 also allows, is ignored."""
    given = answer.headers.get("Retry-After", "")
    return min(float(given), _RETRY.longest) if given.isdecimal() else wait


def _open(path: Path, *, compressed: bool) -> IO[bytes]:
    return cast("IO[bytes]", gzip.open(path, "rb")) if compressed else path.open("rb")


async def _read_lines(source: IO[bytes], name: str) -> list[bytes]:
    try:
        return await asyncio.to_thread(source.readlines, _CHUNK)
    except (OSError, EOFError) as error:
        raise SendingError(f"cannot read {name}: {error}") from error


def _detail(answer: Answer) -> str:
    try:
        return str(msgspec.json.decode(answer.content, type=dict[str, Any])["detail"])
    except (msgspec.DecodeError, KeyError):
        return f"status {answer.status} {answer.text[:200]}"


def read_checkpoint(file: Path) -> Checkpoint:
    """How far an earlier run got; the start of the file if there was none. Raises OSError or msgspec.DecodeError."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=Checkpoint)
    except FileNotFoundError:
        return Checkpoint()


def write_checkpoint(file: Path, checkpoint: Checkpoint) -> None:
    """Replace a checkpoint durably. Raises OSError."""
    make_folder(file.parent)
    replace_file(file, msgspec.json.encode(checkpoint))
