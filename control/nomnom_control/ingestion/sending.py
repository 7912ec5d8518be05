"""Chunks to the api: many lines a request, or a message a request, repeated until each line has its answer.

A repeat carries the same Idempotency-Key and keeps every line at its number (answered lines are blank in it), so it is
the same messages. What the api cannot take now (429, 503, no answer) is tried again; what it will never take (400, 413)
is refused, line by line.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from nomnom_control.connections import Api, ApiAway, ApiRefused
from nomnom_control.errors import ControlError
from nomnom_control.ingestion.sources import Chunk

_TYPE = {"Content-Type": "text/plain; charset=utf-8"}
_LATER = frozenset({408, 429, 502, 503, 504})
"""Answers that another try may change."""
_NEVER = frozenset({400, 413})
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 10.0
_MESSAGES_IN_FLIGHT = 32


class GaveUp(ControlError):  # noqa: N818
    """The api took nothing for too long. What it acknowledged before is done; ``cause`` is its last answer."""

    def __init__(self, text: str, cause: ControlError) -> None:
        super().__init__(text)
        self.cause = cause


@dataclass(frozen=True, slots=True)
class Refusal:
    """A line that the api will never take. ``line`` is its number in the source."""

    line: int
    text: bytes
    reason: str


@dataclass(slots=True)
class Outcome:
    """What became of a chunk: ``records`` lines (or messages) that are not blank."""

    records: int = 0
    accepted: int = 0
    duplicates: int = 0
    """Those of ``accepted`` that an earlier, unanswered try had brought in."""
    refused: list[Refusal] = field(default_factory=list[Refusal])


@dataclass
class Patience:
    """How long to go on trying while nothing is accepted. ``told`` hears why, and for how long, a pause is made."""

    seconds: float
    told: Callable[[str, float], None] = lambda _, __: None
    _last: float | None = None

    def succeeded(self) -> None:
        """Something was accepted: the time begins anew."""
        self._last = asyncio.get_running_loop().time()

    async def pause(self, cause: ControlError, attempt: int, after: float | None = None) -> None:
        """Wait before the next try; raises GaveUp where it has been long enough."""
        now = asyncio.get_running_loop().time()
        self._last = now if self._last is None else self._last
        left = self._last + self.seconds - now
        if left <= 0:
            raise GaveUp(f"gave up after {self.seconds:g} s in which nothing was taken: {cause}", cause)
        seconds = min(after or min(_FIRST_PAUSE * 2**attempt, _LONGEST_PAUSE), max(left, 0.1))
        self.told(str(cause), seconds)
        await asyncio.sleep(seconds)


class Sender(Protocol):
    """Sends chunks; ``key`` names a chunk (its offset is in it)."""

    async def send(self, chunk: Chunk, key: str) -> Outcome:
        """Send until every line has its answer; raises GaveUp, or ApiRefused for what no line can help."""
        ...


class _LineProblem(msgspec.Struct):
    line: int
    last_line: int | None
    status: int
    detail: str


class _BatchAnswer(msgspec.Struct):
    count: int
    duplicates: int = 0
    problems: list[_LineProblem] = msgspec.field(default_factory=list[_LineProblem])


@dataclass
class BatchSender:
    """A line is a message, a chunk is a request. ``prefix`` (a tag and a bar) is put before each line."""

    api: Api
    patience: Patience
    prefix: bytes = b""

    async def send(self, chunk: Chunk, key: str) -> Outcome:
        """As :meth:`Sender.send`."""
        open_lines = [number for number, line in enumerate(chunk.lines) if line.strip()]
        outcome = Outcome(records=len(open_lines))
        attempt = 0
        while open_lines:
            try:
                response = await self.api.send(
                    "POST",
                    "/api/ingest/batch?ids=none",
                    content=self._body(chunk, open_lines),
                    headers={**_TYPE, "Idempotency-Key": key},
                )
            except ApiAway as error:
                await self.patience.pause(error, attempt)
                attempt += 1
                continue
            except ApiRefused as error:
                if error.status in _NEVER:
                    outcome.refused += [_refusal(chunk, each, str(error)) for each in open_lines]
                    return outcome
                if error.status not in _LATER:
                    raise
                await self.patience.pause(error, attempt, error.retry_after)
                attempt += 1
                continue
            answer = _read(response.content)
            outcome.accepted += answer.count
            outcome.duplicates += answer.duplicates
            if answer.count:
                self.patience.succeeded()
                attempt = 0
            open_lines, later = _settle(chunk, open_lines, answer.problems, outcome)
            if open_lines:
                await self.patience.pause(later, attempt, _seconds(response.headers.get("retry-after")))
                attempt += 1
        return outcome

    def _body(self, chunk: Chunk, open_lines: Sequence[int]) -> bytes:
        prefix = self.prefix
        if len(open_lines) == len(chunk.lines):
            return prefix + (b"\n" + prefix).join(chunk.lines)
        wanted = set(open_lines)
        return b"\n".join(prefix + line if at in wanted else b"" for at, line in enumerate(chunk.lines))


def _settle(
    chunk: Chunk, open_lines: Sequence[int], problems: Sequence[_LineProblem], outcome: Outcome
) -> tuple[list[int], ControlError]:
    """Sort what was not accepted: refused for good into ``outcome``; the rest, and why it waits, is returned."""
    again: list[int] = []
    cause = ControlError("the api took part of a batch")
    for problem in problems:
        last = len(chunk.lines) if problem.last_line is None else problem.last_line
        lines = [each for each in open_lines if problem.line <= each + 1 <= last]
        if problem.status in _LATER:
            again += lines
            cause = ControlError(f"the api answered {problem.status}: {problem.detail}")
        else:
            outcome.refused += [_refusal(chunk, each, problem.detail) for each in lines]
    return again, cause


@dataclass
class MessageSender:
    """Lines that belong together are one message, and a message is a request."""

    api: Api
    patience: Patience
    begins: Callable[[bytes], bool]

    async def send(self, chunk: Chunk, key: str) -> Outcome:
        """As :meth:`Sender.send`; a message's key is its line's number in the chunk."""
        outcome = Outcome()
        slots = asyncio.Semaphore(_MESSAGES_IN_FLIGHT)

        async def post(at: int, lines: Sequence[bytes]) -> None:
            async with slots:
                await self._post(chunk, at, b"\n".join(lines), f"{key}:{at}", outcome)

        async with asyncio.TaskGroup() as group:
            for at, lines in self._messages(chunk.lines):
                outcome.records += 1
                group.create_task(post(at, lines))
        return outcome

    def _messages(self, lines: Sequence[bytes]) -> list[tuple[int, list[bytes]]]:
        found: list[tuple[int, list[bytes]]] = []
        for at, line in enumerate(lines):
            if not line.strip():
                continue
            if not found or self.begins(line):
                found.append((at, []))
            found[-1][1].append(line)
        return found

    async def _post(self, chunk: Chunk, at: int, message: bytes, key: str, outcome: Outcome) -> None:
        attempt = 0
        while True:
            headers = {**_TYPE, "Idempotency-Key": key}
            try:
                response = await self.api.send("POST", "/api/ingest/message", content=message, headers=headers)
            except ApiAway as error:
                await self.patience.pause(error, attempt)
            except ApiRefused as error:
                if error.status in _NEVER:
                    outcome.refused.append(Refusal(chunk.first_line + at, message, str(error)))
                    return
                if error.status not in _LATER:
                    raise
                await self.patience.pause(error, attempt, error.retry_after)
            else:
                outcome.accepted += 1
                outcome.duplicates += b'"duplicate":true' in response.content
                self.patience.succeeded()
                return
            attempt += 1


def _refusal(chunk: Chunk, at: int, reason: str) -> Refusal:
    return Refusal(chunk.first_line + at, chunk.lines[at], reason)


def _read(content: bytes) -> _BatchAnswer:
    try:
        return msgspec.json.decode(content, type=_BatchAnswer)
    except msgspec.DecodeError as error:
        raise ControlError(f"the api's answer cannot be read: {error}; do its version and this one fit?") from error


def _seconds(text: str | None) -> float | None:
    return float(text) if text is not None and text.isdecimal() else None
