"""Files to the api: in chunks of lines, each with an Idempotency-Key of its own, resumed where the last run stopped.

The journal beside the instance's data keeps the offset behind the last acknowledged chunk of each file. A chunk that
was sent but not acknowledged is sent again under the same key: its lines are the same messages (the api's rule).
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import httpx
import msgspec

from nomnom_control.errors import ControlError

_CHUNK = 2 * 1024 * 1024
_TRIES = 30
_LONGEST_WAIT = 10.0


class SendingError(ControlError):
    """A file that cannot be read, or an api that does not take it."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A line that the api did not take."""

    line: int
    detail: str


@dataclass(slots=True)
class Ingested:
    """How far a file is."""

    name: str
    size: int | None
    offset: int = 0
    lines: int = 0
    accepted: int = 0
    resumed: bool = False
    refused: list[Refusal] = field(default_factory=list[Refusal])


class Mark(msgspec.Struct):
    """The journal's entry of one file."""

    offset: int = 0
    lines: int = 0


class Sending:
    """Sends files to one api."""

    def __init__(self, api: str, token: str | None, journal: Path) -> None:
        self._url = f"{api}/api/ingest/batch"
        self._headers = {"Content-Type": "text/plain", **({"Authorization": f"Bearer {token}"} if token else {})}
        self._journal = journal

    async def send(self, path: Path, tag: str | None = None, *, restart: bool = False) -> AsyncIterator[Ingested]:
        """Send a file, ``tag`` put before each line; yields the progress after each chunk. Raises SendingError."""
        try:
            status = await asyncio.to_thread(path.stat)
            source = await asyncio.to_thread(path.open, "rb")
        except OSError as error:
            raise SendingError(f"{path} cannot be read: {error.strerror}") from error
        given = f"{await asyncio.to_thread(path.resolve)} {status.st_size} {status.st_mtime_ns} {status.st_ino} {tag}"
        identity = hashlib.sha256(given.encode()).hexdigest()[:32]
        entry = self._journal / f"{identity}.json"
        mark = Mark() if restart else await asyncio.to_thread(_read_mark, entry)
        with source:
            source.seek(mark.offset)
            state = Ingested(str(path), status.st_size, mark.offset, mark.lines, resumed=mark.offset > 0)
            async for each in self._chunks(source, state, identity, tag):
                await asyncio.to_thread(_write_mark, entry, Mark(each.offset, each.lines))
                yield each
        if not mark.offset and not status.st_size:
            yield state

    async def send_stream(self, source: IO[bytes], tag: str | None = None) -> AsyncIterator[Ingested]:
        """Send what cannot be read twice (standard input): there is nothing to resume."""
        run = hashlib.sha256(str(asyncio.get_running_loop().time()).encode()).hexdigest()[:32]
        async for each in self._chunks(source, Ingested("-", None), run, tag):
            yield each

    async def _chunks(
        self, source: IO[bytes], state: Ingested, identity: str, tag: str | None
    ) -> AsyncIterator[Ingested]:
        prefix = f"{tag}|".encode() if tag else b""
        async with httpx.AsyncClient(timeout=httpx.Timeout(60, connect=5)) as client:
            while lines := await asyncio.to_thread(source.readlines, _CHUNK):
                body = b"".join(prefix + line if line.strip() else line for line in lines)
                answer = await self._post(client, body, f"{identity}-{state.offset}")
                accepted, refused = _outcome(answer)
                state.accepted += accepted
                state.refused += [Refusal(state.lines + each["line"], each["detail"]) for each in refused]
                state.offset += sum(map(len, lines))
                state.lines += len(lines)
                yield state

    async def _post(self, client: httpx.AsyncClient, body: bytes, key: str) -> dict[str, Any]:
        headers = {**self._headers, "Idempotency-Key": key}
        problem = ""
        for attempt in range(_TRIES):
            try:
                answer = await client.post(self._url, content=body, headers=headers, params={"ids": "none"})
            except httpx.HTTPError as error:
                problem, wait = f"{type(error).__name__} {error}".strip(), min(0.5 * 2**attempt, _LONGEST_WAIT)
            else:
                if answer.status_code in (202, 207):
                    return answer.json()
                problem = f"{answer.status_code} {answer.text[:300]}"
                if answer.status_code not in (429, 503):
                    break
                wait = min(float(answer.headers.get("Retry-After", "1")), _LONGEST_WAIT)
            await asyncio.sleep(wait)
        raise SendingError(f"the api at {self._url} did not take a chunk: {problem}; run the same command to go on")


def _outcome(answer: dict[str, Any]) -> tuple[int, list[dict[str, Any]]]:
    return int(answer["count"]), list(answer.get("failures") or answer.get("failed") or [])


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
