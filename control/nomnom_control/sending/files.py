"""Files to the api: in chunks of lines, each with an Idempotency-Key of its own, resumed where the last run stopped.

The journal beside the instance's data keeps the offset behind the last acknowledged chunk of each file. A chunk that
was sent but not acknowledged is sent again under the same key: its lines are the same messages (the api's rule). So
where a chunk ends depends on the file alone, or on what the api answered, and never on an option.

One chunk is on its way at a time: lines stay in the file's order, and of two with one key the later wins.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import IO, Any, cast

import msgspec

from nomnom.retry import RetryPolicy
from nomnom_control.errors import ControlError
from nomnom_control.http_client import Answer, HttpClient, HttpError

_CHUNK = 2 * 1024 * 1024
_PATIENCE = 300.0
_RETRY = RetryPolicy(first=0.5, longest=10.0)
_KEPT_REFUSALS = 1000
_LATER = (408, 429, 502, 503, 504)
"""Answers of the api, or of a proxy before it, after which the same chunk is sent again."""


class SendingError(ControlError):
    """A file that cannot be read, or an api that does not take it."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Lines that the api did not take and never will, from ``line`` to ``last_line``, and why."""

    line: int
    last_line: int
    detail: str


@dataclass(slots=True)
class Ingested:
    """How far a file is.

    ``duplicates`` are those of the accepted that the stream had before, from an earlier run or an earlier try.
    """

    name: str
    size: int | None
    """Bytes; None where they are not known before the end."""
    offset: int = 0
    lines: int = 0
    accepted: int = 0
    duplicates: int = 0
    refused: int = 0
    refusals: list[Refusal] = field(default_factory=list[Refusal])
    """The first thousand."""
    resumed: bool = False
    seconds: float = 0.0
    problem: str = ""
    """Why the api takes nothing just now; it is asked again."""


class Mark(msgspec.Struct):
    """The journal's entry of one file."""

    offset: int = 0
    lines: int = 0


class _Problem(msgspec.Struct):
    line: int
    last_line: int | None
    status: int
    detail: str


class _Answer(msgspec.Struct):
    count: int
    duplicates: int = 0
    problems: list[_Problem] = []


@dataclass(frozen=True, slots=True)
class _Settled:
    """What became of a chunk's first ``settled`` lines; the others were not looked at."""

    count: int
    duplicates: int
    refused: list[tuple[int, int, str]]
    """First and last line, and why."""
    settled: int


class Sending:
    """Sends files to one api. ``rejects`` is a file that gets each refused line, as it was sent."""

    def __init__(self, api: str, token: str | None, spool: Path, rejects: Path | None = None) -> None:
        self._url = f"{api}/api/ingest/batch?ids=none"
        self._headers = {"Content-Type": "text/plain", **({"Authorization": f"Bearer {token}"} if token else {})}
        self._spool, self._rejects = spool, rejects

    async def send(self, path: Path, tag: str | None = None, *, restart: bool = False) -> AsyncIterator[Ingested]:
        """Send a file (one that ends in .gz is unpacked), ``tag`` put before each line.

        Yields the progress after each chunk and whenever the api is in trouble; nothing where an earlier run sent all
        of it. ``restart`` sends it from its beginning, under the same keys. Raises SendingError.
        """
        packed = path.suffix == ".gz"
        try:
            status = await asyncio.to_thread(path.stat)
            source = await asyncio.to_thread(_open, path, packed=packed)
        except OSError as error:
            raise SendingError(f"{path} cannot be read: {error.strerror}") from error
        given = f"{await asyncio.to_thread(path.resolve)} {status.st_size} {status.st_mtime_ns} {status.st_ino} {tag}"
        identity = hashlib.sha256(given.encode()).hexdigest()[:32]
        entry = self._spool / f"{identity}.json"
        mark = Mark() if restart else await asyncio.to_thread(_read_mark, entry)
        state = Ingested(
            str(path), None if packed else status.st_size, mark.offset, mark.lines, resumed=mark.offset > 0
        )
        with source:
            await asyncio.to_thread(source.seek, mark.offset)
            async for each in self._chunks(source, state, identity, tag):
                await asyncio.to_thread(_write_mark, entry, Mark(each.offset, each.lines))
                yield each
        if not status.st_size:
            yield state

    async def send_stream(self, source: IO[bytes], tag: str | None = None) -> AsyncIterator[Ingested]:
        """Send what cannot be read twice (standard input): there is nothing to resume."""
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
                settled = len(lines)
                if any(line.strip() for line in lines):
                    async for answer in self._post(client, sent, f"{identity}-{state.offset}"):
                        state.seconds = time.monotonic() - began
                        if isinstance(answer, str):
                            state.problem = answer
                            yield state
                        else:
                            settled = answer.settled
                            await asyncio.to_thread(self._take, state, answer, sent)
                state.offset += sum(map(len, lines[:settled]))
                state.lines += settled
                state.problem = ""
                lines = lines[settled:]
                yield state

    def _take(self, state: Ingested, answer: _Settled, lines: list[bytes]) -> None:
        state.accepted += answer.count
        state.duplicates += answer.duplicates
        for first, last, detail in answer.refused:
            refused = [line for line in lines[first - 1 : last] if line.strip()]
            if not refused:
                continue
            state.refused += len(refused)
            if len(state.refusals) < _KEPT_REFUSALS:
                state.refusals.append(Refusal(state.lines + first, state.lines + last, detail))
            if self._rejects is not None:
                with self._rejects.open("ab") as file:
                    file.writelines(line if line.endswith(b"\n") else line + b"\n" for line in refused)

    async def _post(self, client: HttpClient, lines: list[bytes], key: str) -> AsyncIterator[_Settled | str]:
        """Post a chunk until its first lines, or all, are taken or refused for good: troubles, then what is settled."""
        ends = time.monotonic() + _PATIENCE
        for failures in count(1):
            wait = _RETRY.wait(failures)
            try:
                content = b"".join(lines)
                answer = await client.request("POST", self._url, content=content, headers={"Idempotency-Key": key})
            except HttpError as error:
                problem = f"no answer from the api: {error}"
            else:
                if answer.status in (202, 207):
                    read = _read_answer(answer)
                    later = next((each for each in read.problems if each.status in _LATER), None)
                    if later is None:
                        yield _settled(read, len(lines))
                        return
                    # Those of its lines that were taken are the same messages next time.
                    problem = later.detail
                else:
                    problem = _detail(answer)
                    if answer.status == 413 and len(lines) > 1:
                        # Too large as a whole, or each line is: the first half has the same ids, being the same lines.
                        lines = lines[: len(lines) // 2]
                        continue
                    if answer.status in (400, 413):
                        yield _Settled(0, 0, [(1, len(lines), problem)], len(lines))
                        return
                    if answer.status not in _LATER:
                        raise SendingError(f"the api does not take it: {problem}")
                    wait = _retry_after(answer, wait)
            if time.monotonic() + wait > ends:
                raise SendingError(f"{problem}, for {_PATIENCE:g} s; run the same command to go on")
            yield problem
            await asyncio.sleep(wait)


def _read_answer(answer: Answer) -> _Answer:
    try:
        return msgspec.json.decode(answer.content, type=_Answer)
    except msgspec.DecodeError as error:
        raise SendingError(f"{answer.url} answers as no api of nomnom does: {error}") from error


def _settled(answer: _Answer, lines: int) -> _Settled:
    """What a 202 or 207 says. A problem without a last line is about all after it, which the api did not look at."""
    unread = next((each for each in answer.problems if each.last_line is None), None)
    refused = [(each.line, each.last_line, each.detail) for each in answer.problems if each.last_line is not None]
    if unread is None:
        return _Settled(answer.count, answer.duplicates, refused, lines)
    if unread.line == 1:
        raise SendingError(f"the api does not take it: {unread.detail}")
    return _Settled(answer.count, answer.duplicates, refused, unread.line - 1)


def _retry_after(answer: Answer, wait: float) -> float:
    """Seconds; a proxy's date (RFC 9110 allows one) is not read."""
    given = answer.headers.get("Retry-After", "")
    return min(float(given), _RETRY.longest) if given.isdecimal() else wait


def _open(path: Path, *, packed: bool) -> IO[bytes]:
    return cast("IO[bytes]", gzip.open(path, "rb")) if packed else path.open("rb")


async def _read_lines(source: IO[bytes], name: str) -> list[bytes]:
    try:
        return await asyncio.to_thread(source.readlines, _CHUNK)
    except (OSError, EOFError) as error:
        raise SendingError(f"{name} cannot be read on: {error}") from error


def _detail(answer: Answer) -> str:
    try:
        return str(msgspec.json.decode(answer.content, type=dict[str, Any])["detail"])
    except (msgspec.DecodeError, KeyError):
        return f"status {answer.status} {answer.text[:200]}"


def _read_mark(entry: Path) -> Mark:
    try:
        return msgspec.json.decode(entry.read_bytes(), type=Mark)
    except FileNotFoundError:
        return Mark()


def _write_mark(entry: Path, mark: Mark) -> None:
    entry.parent.mkdir(parents=True, exist_ok=True)
    new = entry.with_suffix(".new")
    new.write_bytes(msgspec.json.encode(mark))
    new.replace(entry)
