"""Replay: publish dead letters to the stream again.

The steps for each dead letter are: publish it and await the ack; spool the audit entry; delete the dead letter; write
the audit entry. If this is interrupted at any point, the message is in the stream, among the dead letters, or both, and
the next run completes the replay: it finds the message of the earlier run (pending in the stream, or processed
according to ``message_status``) and does not publish it again. An edited payload counts as processed only if the rows
of the message hold its values: otherwise another edit was applied, and the dead letter remains. If two runs still
publish a message twice, the workers apply it once.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections import Counter
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from nomnom.connections.errors import NatsUnavailable, NotSetUp
from nomnom.envelope import MSG_ID, REMOVED, REPLAYS, Status, ingest_subject, new_message_id, replay_headers
from nomnom.errors import NomnomError
from nomnom.inspection.dead_letters import DeadLetter, read_dead_letter
from nomnom.inspection.jetstream.messages import StoredMessage, read_last, read_many
from nomnom.inspection.jetstream.requests import StreamFull
from nomnom.inspection.statuses import Answer
from nomnom.stream_changes import delete_message, publish_once
from nomnom.tasks import finish
from nomnom_control.errors import ControlError
from nomnom_control.session.audit import Action, AuditPending, Entry, Ledger
from nomnom_control.session.dead_letters.editing import Edit, diff
from nomnom_control.session.dead_letters.publication import CHUNK, all_of, dead_letter_headers
from nomnom_control.session.dead_letters.rows import was_written

if TYPE_CHECKING:
    from nomnom_control.session.pipeline import Pipeline

_SUMMARY_LENGTH = 500


class Result(StrEnum):
    """The result of a dead letter."""

    REPLAYED = "replayed"
    ALREADY = "already replayed"
    """An earlier run published it and a worker has processed it; the remaining dead letter is deleted."""
    GONE = "gone"
    """It does not exist any more: another run replayed or deleted it."""
    FAILED = "failed"
    """It remains a dead letter."""


@dataclass(frozen=True, slots=True)
class DeadLetterResult:
    """The result of one dead letter; ``stream_sequence`` is the sequence of its message in the stream."""

    sequence: int
    message_id: str
    result: Result
    detail: str = ""
    stream_sequence: int | None = None


@dataclass(frozen=True, slots=True)
class ReplayProgress:
    """The progress of a replay; ``last`` are the results since the previous progress."""

    run: str
    total: int
    done: int
    counts: Mapping[Result, int]
    last: tuple[DeadLetterResult, ...]
    seconds: float

    @property
    def rate(self) -> float:
        """Dead letters per second since the start."""
        return self.done / self.seconds if self.seconds else 0.0


@dataclass(slots=True)
class _Case:
    """A dead letter in progress. ``entry`` is set when there is something to audit, ``result`` when it is known."""

    sequence: int
    message: StoredMessage | None
    dead_letter: DeadLetter | None = None
    payload: bytes = b""
    entry: Entry | None = None
    result: DeadLetterResult | None = None
    repeated: bool = False
    """Whether the message was in the stream before this run."""


@dataclass
class Replay:
    """One run over the dead letters that were selected when it was created; later ones are not included.

    Iterate over it for its progress, or run it with :meth:`finish`. Cancelling the iterating task (or closing the
    iterator) stops it after the dead letters in progress; ``progress`` is exact then. To resume, create a new replay of
    the same selection: replayed dead letters are not part of it any more.
    """

    pipeline: Pipeline = field(repr=False)
    sequences: Sequence[int] = field(repr=False)
    edit: Edit = field(default_factory=Edit)
    rate: float | None = None
    concurrency: int = CHUNK
    selection: str = ""
    run: str = field(default_factory=new_message_id)
    failures: list[DeadLetterResult] = field(default_factory=list[DeadLetterResult])
    """All dead letters that remain, with the reason."""
    unaudited: list[DeadLetterResult] = field(default_factory=list[DeadLetterResult])
    """Dead letters whose audit entry is still in the spool because PostgreSQL became unavailable."""
    _counts: Counter[Result] = field(default_factory=Counter[Result], repr=False)
    _last: tuple[DeadLetterResult, ...] = field(default=(), repr=False)
    _started: float | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.rate is not None and self.rate <= 0:
            raise ControlError(f"invalid rate {self.rate:g}/s: expected more than 0")
        if self.concurrency < 1:
            raise ControlError(f"invalid concurrency {self.concurrency}: expected at least 1")
        if self.edit.payload is not None and len(self.sequences) > 1:
            raise ControlError(
                f"one edited payload for {len(self.sequences):,} dead letters: set or replace fields instead"
            )

    @property
    def total(self) -> int:
        """The number of selected dead letters."""
        return len(self.sequences)

    @property
    def progress(self) -> ReplayProgress:
        """The current progress."""
        seconds = 0.0 if self._started is None else asyncio.get_running_loop().time() - self._started
        return ReplayProgress(self.run, self.total, self._counts.total(), dict(self._counts), self._last, seconds)

    async def finish(self) -> ReplayProgress:
        """Run to the end. Raises like :meth:`__aiter__`."""
        async for _ in self:
            pass
        return self.progress

    async def __aiter__(self) -> AsyncGenerator[ReplayProgress, None]:
        """Replay, yielding the progress several times a second.

        Raises before anything is done if NATS is unavailable or the audit log cannot be written. Raises StreamFull,
        NatsUnavailable or AuditPending during the run; then ``progress`` is exact, and the dead letters that were not
        replayed still exist.
        """
        loop = asyncio.get_running_loop()
        size = self.concurrency if self.rate is None else max(1, min(self.concurrency, int(self.rate / 5)))
        async with self.pipeline.audit.ledger() as ledger:
            await self.pipeline.nats.connect()
            self._started = due = loop.time()
            try:
                for start in range(0, self.total, size):
                    part = self.sequences[start : start + size]
                    await asyncio.sleep(max(0.0, due - loop.time()))
                    problem = await finish(self._replay(part, ledger))
                    yield self.progress
                    if problem is not None:
                        raise problem
                    if self.rate is not None:
                        # Do not exceed the rate to catch up after a slow phase.
                        due = max(due + len(part) / self.rate, loop.time())
            finally:
                if self.total > 1 and not self.unaudited:
                    await finish(self._conclude(ledger))

    async def _conclude(self, ledger: Ledger) -> None:
        counts = {each.value: number for each, number in self._counts.items()}
        done = self._counts.total()
        detail = {
            "selection": self.selection,
            "letters": self.total,
            "results": counts,
            "rate": self.rate,
            "failures": [f"{each.sequence}: {each.detail}" for each in self.failures[:20]],
        }
        result = f"{'finished' if done == self.total else 'stopped'}: {done:,} of {self.total:,}"
        await ledger.prepare([Entry(Action.REPLAY, result, detail=detail, run=self.run)], confirmed=True)
        await ledger.write()

    async def _replay(self, sequences: Sequence[int], ledger: Ledger) -> NomnomError | None:
        """Replay a batch. An error that ends the run is returned, so that the batch is completed first."""
        stream, nats = self.pipeline.streams.dead_stream, self.pipeline.nats
        messages = await read_many(nats, stream, sequences)
        cases = [_Case(each, messages.get(each)) for each in sequences]
        answers = await self._answers(cases)
        published = await all_of(self._publish(each, answers) for each in cases)
        problem = self._record_failures(cases, published)
        entries = [each.entry for each in cases if each.entry is not None]
        await ledger.prepare(entries)
        audited = [each for each in cases if each.entry is not None]
        deleted = await all_of(delete_message(nats, stream, each.sequence) for each in audited)
        corrections: list[Entry] = []
        for case, was_there in zip(audited, deleted, strict=True):
            corrections += _correct(case, was_there)
            if isinstance(was_there, NomnomError):
                problem = problem or was_there
        try:
            await ledger.write(corrections)
        except AuditPending as error:
            self.unaudited += [each.result for each in audited if each.result is not None]
            problem = error
        self._count([each.result for each in cases if each.result is not None])
        self.pipeline.dead_letters.index.forget(
            each.sequence for each in cases if each.result is not None and each.result.result is not Result.FAILED
        )
        return problem

    def _count(self, results: Sequence[DeadLetterResult]) -> None:
        self._last = tuple(results)
        self._counts.update(each.result for each in results)
        self.failures += [each for each in results if each.result is Result.FAILED]

    def _record_failures(self, cases: Sequence[_Case], published: Sequence[Exception | None]) -> NomnomError | None:
        """Turn publish errors into results; returns the error that has to end the run, if any."""
        problem: NomnomError | None = None
        for case, outcome in zip(cases, published, strict=True):
            if outcome is None:
                continue
            if not isinstance(outcome, NomnomError):
                raise outcome
            case.result = self._failed(case, str(outcome))
            if isinstance(outcome, StreamFull | NatsUnavailable | NotSetUp):
                problem = problem or outcome
        return problem

    async def _answers(self, cases: Sequence[_Case]) -> dict[str, Answer]:
        for case in cases:
            if case.message is not None:
                case.dead_letter = read_dead_letter(case.message)
        dead_letters = [each.dead_letter for each in cases if each.dead_letter is not None]
        return await self.pipeline.statuses.answers(
            [each.message_id for each in dead_letters if not each.envelope_problem]
        )

    async def _publish(self, case: _Case, answers: Mapping[str, Answer]) -> None:
        dead_letter, message = case.dead_letter, case.message
        if dead_letter is None or message is None:
            case.result = DeadLetterResult(case.sequence, "", Result.GONE, "no dead letter with this sequence")
            return
        if dead_letter.envelope_problem:
            case.result = self._failed(case, f"{dead_letter.envelope_problem}; post its payload as a new message")
            return
        case.payload = self.edit.apply(message.payload, self.pipeline.schema)
        edited = case.payload != message.payload
        answer = answers.get(dead_letter.message_id)
        envelope = dead_letter.envelope
        if answer is not None and answer.status in REMOVED:
            # Its dead letter was restored after the removal: a life after the one that ended.
            envelope = replace(envelope, replays=max(envelope.replays, answer.replays))
        elif answer is not None and (answer.status is Status.COMPLETED or answer.replays > dead_letter.replays):
            detail = f"replay {answer.replays} of this message is {answer.status}"
            if edited and not await was_written(self.pipeline, dead_letter, case.payload):
                case.result = self._failed(case, f"{detail}; an edited payload would not be applied")
                return
            self._done(case, Result.ALREADY, detail, None, "")
            return
        pending = await read_last(
            self.pipeline.nats, self.pipeline.streams.stream, ingest_subject("*", dead_letter.message_id)
        )
        if pending is not None and int(pending.headers.get(REPLAYS, "0")) > dead_letter.replays:
            if pending.payload != case.payload:
                case.result = self._failed(
                    case, f"an earlier replay with another payload is pending (stream sequence {pending.sequence})"
                )
                return
            case.repeated = True
            self._done(case, Result.REPLAYED, "published by an earlier run", pending.sequence, pending.headers[MSG_ID])
            return
        entity = self._entity(case)
        subject = ingest_subject(entity, dead_letter.message_id)
        headers = replay_headers(envelope, case.payload)
        sequence, identity, case.repeated = await publish_once(self.pipeline.nats, subject, case.payload, headers)
        detail = "" if entity == dead_letter.entity else f"entity changed from {dead_letter.entity} to {entity}"
        self._done(case, Result.REPLAYED, detail, sequence, identity)

    def _entity(self, case: _Case) -> str:
        try:
            return self.pipeline.schema.entity_name(case.payload.decode())
        except UnicodeDecodeError:
            return case.dead_letter.entity if case.dead_letter else ""

    def _failed(self, case: _Case, reason: str) -> DeadLetterResult:
        message_id = case.dead_letter.message_id if case.dead_letter else ""
        return DeadLetterResult(case.sequence, message_id, Result.FAILED, reason)

    def _done(self, case: _Case, result: Result, detail: str, sequence: int | None, identity: str) -> None:
        assert case.dead_letter is not None
        assert case.message is not None
        case.result = DeadLetterResult(case.sequence, case.dead_letter.message_id, result, detail, sequence)
        case.entry = Entry(
            Action.REPLAY,
            result.value,
            entity=self._entity(case),
            message_id=case.dead_letter.message_id,
            sequence=case.sequence,
            detail=_describe(case, detail, sequence, identity, self.pipeline),
            run=self.run,
            # It is published already, so this is the correct result if the session is interrupted.
            unconfirmed=result.value,
        )


def _describe(case: _Case, note: str, sequence: int | None, identity: str, pipeline: Pipeline) -> dict[str, Any]:
    """The details of a replay in the audit log: enough to undo it."""
    assert case.message is not None
    before, after = case.message.payload, case.payload
    detail: dict[str, Any] = {
        "note": note,
        "stream": pipeline.streams.stream,
        "stream_sequence": sequence,
        "stream_message": identity,
        "digest": digest(after),
        "edited": before != after,
        "letter": {
            "subject": case.message.subject,
            "headers": dead_letter_headers(case.message),
            "digest": digest(before),
        },
    }
    if before != after:
        detail["changes"] = diff(before, after, pipeline.schema).summary()[:_SUMMARY_LENGTH]
        detail["letter"]["payload"] = base64.b64encode(before).decode()
    return detail


def _correct(case: _Case, was_there: bool | Exception) -> list[Entry]:
    """The corrected entry of a dead letter whose deletion had an unexpected result."""
    assert case.result is not None
    assert case.entry is not None
    if was_there is True:
        return []
    if isinstance(was_there, Exception):
        text = f"published, but the dead letter could not be deleted: {was_there}; replay it again to complete it"
        case.result = DeadLetterResult(
            case.sequence, case.result.message_id, Result.FAILED, text, case.result.stream_sequence
        )
        return [_corrected(case.entry, case.entry.result, text)]
    if case.repeated or case.result.result is Result.ALREADY:
        case.result = DeadLetterResult(
            case.sequence, case.result.message_id, Result.GONE, "replayed by another run at the same time"
        )
        return [_corrected(case.entry, Result.GONE.value, case.result.detail)]
    return [_corrected(case.entry, case.entry.result, "the dead letter was already deleted")]


def _corrected(entry: Entry, result: str, note: str) -> Entry:
    return Entry(
        entry.action,
        result,
        entity=entry.entity,
        message_id=entry.message_id,
        sequence=entry.sequence,
        detail={**entry.detail, "note": note},
        run=entry.run,
        event=entry.event,
        at=entry.at,
    )


def digest(payload: bytes) -> str:
    """The SHA-256 digest of a payload."""
    return f"sha256:{hashlib.sha256(payload).hexdigest()}"
