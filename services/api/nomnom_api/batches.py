"""Batches: many messages per request, one per line, published as segments while the body is read.

With a key, where a segment ends depends only on the lines: a batch that is sent again has the same segments. Without
one, a segment also ends with what was received at once.
"""

from __future__ import annotations

import asyncio
import time
from array import array
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from urllib.parse import parse_qs

from blacksheep import Content, Request, Response, StreamedContent

from nomnom.envelope import common_entity, digest_of, headers, idempotent_message_id, segment_subject
from nomnom.segments import (
    MOST,
    MOST_BYTES,
    fits,
    join,
    keyed_segment_id,
    message_ids,
    new_segment_id,
)
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
_DOUBTFUL = 32
"""Duplicate segments whose contents are held in memory at most."""
_TOGETHER = 8
"""Segments whose keys are looked up together."""


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


@dataclass(slots=True, eq=False)
class _Segment:
    """Lines that are published together. ``subject``, ``content`` and IDs are known when it is sealed."""

    numbers: list[int] = field(default_factory=list[int])
    lines: list[bytes] = field(default_factory=list[bytes])
    size: int = 0
    entities: set[str] = field(default_factory=set[str])
    alone: bool = False
    """Whether it cannot have another line."""
    segment_id: str = ""
    subject: str = ""
    content: bytes = b""
    received_at: int = 0


class Batch:
    """One batch in progress."""

    def __init__(self, batches: Batches, caller: str, key: str | None, *, keep_ids: bool) -> None:
        self._batches, self._intake, self._publisher = batches, batches.intake, batches.intake.publisher
        self._caller, self._key, self._keep_ids = caller, key, keep_ids
        self._number = 0
        """Number of the current or last line."""
        self._lines = 0
        """Number of non-blank lines read."""
        self._segment = _Segment()
        """The lines that are not sealed yet."""
        self._sealed: list[_Segment] = []
        """Segments that are not sent yet."""
        self._sent = array("Q")
        self._ids = bytearray()
        """Numbers and message IDs of the lines sent; 24 bytes per line, as a batch may have millions."""
        self._first = self._last = ""
        self._sent_count = self._accepted = self._duplicates = 0
        self._doubtful: list[tuple[_Segment, int]] = []
        """Segments with a key that JetStream recognized as duplicates, and the sequences of their first copies."""
        self._failed: dict[int, ApiError] = {}
        self._stop: ApiError | None = None
        """Why no more lines are sent; None while they are."""
        self._in_flight = 0
        """Lines that await their acks."""
        self._low = -1
        self._window_open = asyncio.Event()

    async def run(self, parts: AsyncIterator[bytes]) -> BatchAnswer:
        """Publish the lines and wait for their acks.

        Raises the error shared by all lines if none was accepted, InvalidBodyError for an empty batch, ClientGoneError.
        """
        unread: int | None = None
        try:
            await self._read(parts)
            self._seal()
            await self._send_sealed()
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
            if self._key is None:
                # What the client sends later may be long in coming.
                self._seal()
                await self._send_sealed()
            if len(start) > limit and not skipping:
                # Reject the line now and skip the rest of it.
                self._begin_line()
                self._reject(self._too_long())
                start, skipping = bytearray(), True
        if start:
            await self._send_lines([bytes(start)])

    async def _send_lines(self, lines: Sequence[bytes]) -> None:
        for at, line in enumerate(lines):
            self._add(line)
            if len(self._sealed) >= _TOGETHER:
                await self._send_sealed()
            elif at % _YIELD == _YIELD - 1:
                # Let the connection send, and other requests run.
                await asyncio.sleep(0)

    def _add(self, ended: bytes) -> None:
        """Add a line to the segment, or reject it."""
        line = ended.removesuffix(_LINE_ENDS)
        if not line or line.isspace():
            self._number += 1
            return
        self._begin_line()
        if len(line) > self._batches.line_limit:
            self._reject(self._too_long())
            return
        try:
            text = line.decode()
        except UnicodeDecodeError:
            self._reject(InvalidBodyError("the line is not UTF-8"))
            return
        segment, size, alone = self._segment, len(line) + 1, not fits(line)
        if segment.lines and (alone or segment.alone or segment.size + size > MOST_BYTES):
            segment = self._seal()
        segment.numbers.append(self._number)
        segment.lines.append(line)
        segment.size += size
        segment.alone = alone
        segment.entities.add(self._intake.schema.entity_name(text))
        if len(segment.lines) == MOST:
            self._seal()

    def _seal(self) -> _Segment:
        """Begin another segment; returns it."""
        segment = self._segment
        if segment.lines:
            if self._key is None:
                segment.segment_id = new_segment_id()
            else:
                key = line_key(self._key, segment.numbers[0])
                segment.segment_id = keyed_segment_id(idempotent_message_id(self._caller, key))
            entity = common_entity(segment.entities)
            segment.subject = segment_subject(entity, segment.segment_id, len(segment.lines))
            segment.content = join(segment.lines)
            segment.lines = []
            self._sealed.append(segment)
        self._segment = _Segment()
        return self._segment

    async def _send_sealed(self) -> None:
        """Send the sealed segments, each unless its key was used before; raises the error that stops the batch."""
        sealed = self._sealed
        judged: Mapping[str, Judgement | KeyConflictError] = {}
        if self._key is not None and sealed:
            judged = await self._intake.keys.judge({each.segment_id: digest_of(each.content) for each in sealed})
        while sealed:
            segment = sealed[0]
            if self._in_flight >= self._batches.window:
                await self._wait(self._batches.window // 2)
            if self._publisher.congested:
                await self._wait(self._in_flight // 2)
            self._check_stop()
            await self._send(segment, judged.get(segment.segment_id))
            sealed.pop(0)

    async def _send(self, segment: _Segment, judged: Judgement | KeyConflictError | None) -> None:
        segment.received_at = self._intake.clock.now()
        envelope = headers(segment.received_at)
        if isinstance(judged, KeyConflictError):
            self._fail(segment, judged)
            return
        if judged is not None:
            if len(self._doubtful) >= _DOUBTFUL:
                await self._confirm()
            if judged.step is Step.REPEAT:
                self._note(segment)
                self._accepted += len(segment.numbers)
                self._duplicates += len(segment.numbers)
                return
            segment.received_at = segment.received_at if judged.received_at is None else judged.received_at
            envelope = message_headers(segment.segment_id, segment.received_at, judged.step)
        self._in_flight += len(segment.numbers)
        try:
            await self._publisher.send(segment.subject, segment.content, envelope, self._settle, segment)
        except ApiError as error:
            self._in_flight -= len(segment.numbers)
            if not isinstance(error, TooLargeError):
                raise
            self._fail(segment, error)
            return
        self._note(segment)

    def _note(self, segment: _Segment) -> None:
        """Note that lines are sent, or were accepted before."""
        self._sent_count += len(segment.numbers)
        ids = message_ids(segment.segment_id, len(segment.numbers))
        self._first, self._last = self._first or ids[0], ids[-1]
        if self._keep_ids:
            self._sent.extend(segment.numbers)
            for each in ids:
                self._ids += bytes.fromhex(each.replace("-", ""))

    def _begin_line(self) -> None:
        self._number += 1
        self._lines += 1

    def _check_stop(self) -> None:
        if self._intake.stopping():
            raise StoppingError("the API is shutting down: the rest of the batch was not sent; post it again")
        if self._stop is not None:
            raise self._stop

    def _reject(self, error: ApiError) -> None:
        self._failed[self._number] = error
        if len(self._failed) > _PROBLEMS:
            raise TooManyProblemsError(f"more than {_PROBLEMS:,} lines are invalid; does the body contain records?")

    def _too_long(self) -> TooLargeError:
        return TooLargeError(f"the line exceeds the limit of {self._batches.line_limit:,} bytes")

    def _fail(self, segment: _Segment, error: ApiError) -> None:
        self._failed |= dict.fromkeys(segment.numbers, error)

    def _unsent(self) -> int:
        """The number of the first line that is not sent."""
        waiting = [*self._sealed, self._segment]
        return next((each.numbers[0] for each in waiting if each.numbers), self._number + 1)

    def _settle(self, segment: _Segment, outcome: Outcome) -> None:
        if isinstance(outcome, ApiError):
            self._fail(segment, outcome)
            if not isinstance(outcome, TooLargeError) and self._stop is None:
                self._stop = (
                    NotSentError(f"not sent, because an earlier line was not confirmed: {outcome}")
                    if isinstance(outcome, UnconfirmedError)
                    else outcome
                )
        elif outcome.duplicate and self._key is not None:
            self._doubtful.append((segment, outcome.seq))
        else:
            self._accepted += len(segment.numbers)
        self._in_flight -= len(segment.numbers)
        if self._in_flight <= self._low:
            self._window_open.set()

    async def _confirm(self) -> None:
        """Find out whether what JetStream recognized as duplicates is kept, and publish it again if it is not."""
        doubtful, self._doubtful = self._doubtful, []
        limit = asyncio.Semaphore(_TOGETHER)

        async def confirm(segment: _Segment, sequence: int) -> None:
            try:
                async with limit:
                    published = await self._intake.keys.confirm(
                        segment.segment_id, segment.subject, segment.content, segment.received_at, sequence
                    )
            except ApiError as error:
                self._fail(segment, error)
            else:
                self._accepted += len(segment.numbers)
                self._duplicates += 0 if published else len(segment.numbers)

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
