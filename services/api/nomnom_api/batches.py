"""Batches: many messages per request, one per line, published while the body is read, within a bounded window."""

from __future__ import annotations

import asyncio
import time
from array import array
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from typing import NamedTuple
from urllib.parse import parse_qs

from blacksheep import Content, Request, Response, StreamedContent

from nomnom.envelope import digest_of, headers, idempotent_message_id, ingest_subject, new_message_id
from nomnom_api.acks import Outcome
from nomnom_api.batch_answers import BatchAnswer
from nomnom_api.bodies import check_type, declared, receiver
from nomnom_api.errors import (
    ApiError,
    BusyError,
    ClientGoneError,
    InvalidBodyError,
    InvalidParameterError,
    KeyConflictError,
    NotSentError,
    StoppingError,
    TooLargeError,
    TooManyProblemsError,
    UnconfirmedError,
)
from nomnom_api.identities import idempotency_key, line_key
from nomnom_api.intake import Intake
from nomnom_api.keys import Judgement, Step, message_headers

_JSON = b"application/json"
_YIELD = 64
_PROBLEMS = 10_000
_LINE_ENDS = b"\r"
_DOUBTFUL = 1000
"""Duplicates whose contents are held in memory at most."""


class Batches:
    """Accepts batches, up to a limit of concurrent ones."""

    def __init__(self, intake: Intake) -> None:
        settings = intake.settings
        self.intake = intake
        self.line_limit, self.window = settings.nomnom_api_max_body, settings.nomnom_api_batch_window
        self._limit, self._max_running = settings.nomnom_api_batch_max_body, settings.nomnom_api_batches
        self._running = 0

    async def accept(self, request: Request, caller: str) -> Response:
        """POST /api/ingest/batch."""
        given = dict(request.scope["headers"])
        intake = self.intake
        keep_ids = _wants_ids(request.scope["query_string"])
        key = given.get(b"idempotency-key")
        batch = Batch(self, caller, None if key is None else idempotency_key(key), keep_ids=keep_ids)
        check_type(given)
        declared(given, self._limit, "a batch")
        if self._running >= self._max_running:
            raise BusyError(f"too many concurrent batches (limit {self._max_running}); retry")
        self._running += 1
        begun = time.perf_counter()
        try:
            async with aclosing(intake.bodies.parts(given, receiver(request), self._limit)) as parts:
                answer = await batch.run(parts)
        except ClientGoneError:
            intake.metrics.abandoned.inc()
            raise
        finally:
            self._running -= 1
            intake.metrics.batch_seconds.observe(time.perf_counter() - begun)
        return _respond(answer)


class _Line(NamedTuple):
    """A line with a key."""

    number: int
    message_id: str
    subject: str
    payload: bytes
    received_at: int


class Batch:
    """One batch in progress."""

    def __init__(self, batches: Batches, caller: str, key: str | None, *, keep_ids: bool) -> None:
        self._batches, self._intake, self._publisher = batches, batches.intake, batches.intake.publisher
        self._caller, self._key, self._keep_ids = caller, key, keep_ids
        self._number = 0
        """Number of the current or last line."""
        self._lines = 0
        """Number of non-blank lines read."""
        self._open = False
        """Whether the current line is neither sent nor rejected yet."""
        self._sent = array("Q")
        self._ids = bytearray()
        """Numbers and message IDs of the lines sent; 24 bytes per line, as a batch may have millions."""
        self._first = self._last = ""
        self._sent_count = self._accepted = self._duplicates = 0
        self._judged: Mapping[str, Judgement | KeyConflictError] = {}
        """What to do with the lines that were read last, by message ID; empty without a key."""
        self._lines_in_flight: dict[int, _Line] = {}
        self._doubtful: list[tuple[_Line, int]] = []
        """Lines with a key that JetStream recognized as duplicates, and the sequences of their first copies."""
        self._failed: dict[int, ApiError] = {}
        self._stop: ApiError | None = None
        """Why no more lines are sent; None while they are."""
        self._in_flight = 0
        self._low = -1
        self._window_open = asyncio.Event()

    async def run(self, parts: AsyncIterator[bytes]) -> BatchAnswer:
        """Publish the lines and wait for their acks.

        Raises the error shared by all lines if none was accepted, InvalidBodyError for an empty batch, ClientGoneError.
        """
        unread: int | None = None
        try:
            await self._read(parts)
        except ApiError as error:
            self._stop, unread = error, self._unsent()
        finally:
            await self._wait(0)
            await self._confirm()
            self._count()
        if isinstance(self._stop, ClientGoneError):
            raise self._stop
        return self._answer(unread)

    async def _read(self, parts: AsyncIterator[bytes]) -> None:
        """Read and send lines; raises the error that prevents the rest from being sent."""
        limit = self._batches.line_limit + len(_LINE_ENDS)
        start, skipping = bytearray(), False
        async for part in parts:
            self._check_stop()
            first, *others = part.split(b"\n")
            if not skipping:
                start += first
            if others:
                await self._send_lines([*([] if skipping else [bytes(start)]), *others[:-1]])
                start, skipping = bytearray(others[-1]), False
            if len(start) > limit and not skipping:
                # Reject the line now and skip the rest of it.
                self._begin_line()
                self._reject(self._too_long())
                start, skipping = bytearray(), True
        if start:
            await self._send_lines([bytes(start)])

    async def _send_lines(self, lines: Sequence[bytes]) -> None:
        if self._key is not None:
            # Every line has a number, also a blank one.
            numbered = enumerate((each.removesuffix(_LINE_ENDS) for each in lines), self._number + 1)
            digests = {self._message_id(number): digest_of(line) for number, line in numbered if line.strip()}
            self._judged = await self._intake.keys.judge(digests) if digests else {}
        for line in lines:
            await self._send_line(line)

    def _message_id(self, number: int) -> str:
        return (
            new_message_id() if self._key is None else idempotent_message_id(self._caller, line_key(self._key, number))
        )

    async def _send_line(self, ended: bytes) -> None:
        line = ended.removesuffix(_LINE_ENDS)
        if not line or line.isspace():
            self._number += 1
            return
        self._begin_line()
        batches = self._batches
        if len(line) > batches.line_limit:
            self._reject(self._too_long())
            return
        try:
            text = line.decode()
        except UnicodeDecodeError:
            self._reject(InvalidBodyError("the line is not UTF-8"))
            return
        if self._in_flight >= batches.window:
            await self._wait(batches.window // 2)
        elif self._lines % _YIELD == 0:
            # Let the connection send, and other requests run.
            await asyncio.sleep(0)
        if self._publisher.congested:
            await self._wait(self._in_flight // 2)
        self._check_stop()
        number, keyed = self._number, self._key is not None
        message_id, received_at = self._message_id(number), self._intake.clock.now()
        subject = ingest_subject(self._intake.schema.entity_name(text), message_id)
        envelope = headers(message_id, received_at)
        if keyed:
            if len(self._doubtful) >= _DOUBTFUL:
                await self._confirm()
            judged = self._judged[message_id]
            if isinstance(judged, KeyConflictError):
                self._reject(judged)
                return
            if judged.step is Step.REPEAT:
                self._note(number, message_id)
                self._accepted += 1
                self._duplicates += 1
                return
            received_at = received_at if judged.received_at is None else judged.received_at
            envelope = message_headers(message_id, received_at, judged.step)
            self._lines_in_flight[number] = _Line(number, message_id, subject, line, received_at)
        self._in_flight += 1
        try:
            await self._publisher.send(subject, line, envelope, self._settle, number, keyed=keyed)
        except TooLargeError as error:
            self._in_flight -= 1
            self._reject(error)
            return
        except ApiError:
            self._in_flight -= 1
            raise
        self._note(number, message_id)

    def _note(self, number: int, message_id: str) -> None:
        """Note that a line is sent, or was accepted before."""
        self._sent_count += 1
        self._first, self._last = self._first or message_id, message_id
        if self._keep_ids:
            self._sent.append(number)
            self._ids += bytes.fromhex(message_id.replace("-", ""))
        self._open = False

    def _begin_line(self) -> None:
        self._number += 1
        self._lines += 1
        self._open = True

    def _check_stop(self) -> None:
        if self._intake.stopping():
            raise StoppingError("the API is shutting down: the rest of the batch was not sent; post it again")
        if self._stop is not None:
            raise self._stop

    def _reject(self, error: ApiError) -> None:
        self._failed[self._number] = error
        self._open = False
        if len(self._failed) > _PROBLEMS:
            raise TooManyProblemsError(f"more than {_PROBLEMS:,} lines are invalid; does the body contain records?")

    def _too_long(self) -> TooLargeError:
        return TooLargeError(f"the line exceeds the limit of {self._batches.line_limit:,} bytes")

    def _unsent(self) -> int:
        return self._number if self._open else self._number + 1

    def _settle(self, number: int, outcome: Outcome) -> None:
        line = self._lines_in_flight.pop(number, None)
        if isinstance(outcome, ApiError):
            self._failed[number] = outcome
            if not isinstance(outcome, TooLargeError) and self._stop is None:
                self._stop = (
                    NotSentError(f"not sent, because an earlier line was not confirmed: {outcome}")
                    if isinstance(outcome, UnconfirmedError)
                    else outcome
                )
        elif outcome.duplicate and line is not None:
            self._doubtful.append((line, outcome.seq))
        else:
            self._accepted += 1
        self._in_flight -= 1
        if self._in_flight <= self._low:
            self._window_open.set()

    async def _confirm(self) -> None:
        """Find out whether what JetStream recognized as duplicates is kept, and publish it again if it is not."""
        doubtful, self._doubtful = self._doubtful, []
        limit = asyncio.Semaphore(_YIELD)

        async def confirm(line: _Line, sequence: int) -> None:
            try:
                async with limit:
                    published = await self._intake.keys.confirm(
                        line.message_id, line.subject, line.payload, line.received_at, sequence
                    )
            except ApiError as error:
                self._failed[line.number] = error
            else:
                self._accepted += 1
                self._duplicates += not published

        await asyncio.gather(*(confirm(*each) for each in doubtful))

    async def _wait(self, in_flight: int) -> None:
        """Wait until at most this many messages await their acks; the ack timeout bounds the wait."""
        if self._in_flight > in_flight:
            self._low = in_flight
            self._window_open.clear()
            await self._window_open.wait()
            self._low = -1

    def _count(self) -> None:
        metrics = self._intake.metrics
        metrics.lines.inc(self._lines)
        metrics.requests.accepted_lines += self._accepted
        metrics.requests.duplicate_lines += self._duplicates
        for error in self._failed.values():
            metrics.reject(error.code)

    def _answer(self, unread: int | None) -> BatchAnswer:
        if unread is None and not self._lines:
            raise InvalidBodyError("the body has no lines; post one record per line")
        answer = BatchAnswer(
            count=self._accepted,
            duplicates=self._duplicates,
            first_id=self._first,
            last_id=self._last,
            numbers=self._sent if self._keep_ids else None,
            ids=self._ids,
            failed=self._failed,
            unread=None if unread is None or self._stop is None else (unread, self._stop),
        )
        if not self._accepted and (common := answer.common_error()) is not None:
            raise type(common)(f"no line was accepted: {common}")
        return answer


def _wants_ids(query: bytes) -> bool:
    given = parse_qs(query.decode("latin-1"), keep_blank_values=True).get("ids", ["all"])
    if given not in (["all"], ["none"]):
        raise InvalidParameterError(f"ids: expected all or none, found {', '.join(given)[:100]!r}")
    return given == ["all"]


def _respond(answer: BatchAnswer) -> Response:
    status = 207 if answer.partial else 202
    if not answer.long:
        return Response(status, answer.headers, Content(_JSON, b"".join(answer.parts())))

    async def stream() -> AsyncIterator[bytes]:
        for part in answer.parts():
            yield part
            await asyncio.sleep(0)

    return Response(status, answer.headers, StreamedContent(_JSON, stream))
