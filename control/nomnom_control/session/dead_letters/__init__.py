"""Dead letters: list, group, edit, dry-run, replay, undo, delete.

They are read by sequence, without a consumer: reading has no side effects. Commands and screens use
:class:`DeadLetters`, which is ``pipeline.dead_letters``.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from nomnom.inspection.dead_letters import (
    DeadLetter,
    DeadLetterIndex,
    Filter,
    Group,
    GroupBy,
    read_dead_letter,
    window,
)
from nomnom.inspection.jetstream.messages import read_batch, read_before, read_many, read_one
from nomnom_control.errors import ControlError, NotConfirmed
from nomnom_control.session.audit import Record
from nomnom_control.session.dead_letters.deletion import Deletion
from nomnom_control.session.dead_letters.editing import (
    Change,
    Diff,
    Edit,
    EditError,
    Validation,
    diff,
    validate,
)
from nomnom_control.session.dead_letters.prediction import Forecast, Outcome, Prediction, forecast, predict
from nomnom_control.session.dead_letters.publication import CHUNK
from nomnom_control.session.dead_letters.replay import DeadLetterResult, Replay, ReplayProgress, Result
from nomnom_control.session.dead_letters.undo import SETTLE, Undo, Undone, UndoResult

if TYPE_CHECKING:
    from nomnom_control.session.pipeline import Pipeline

__all__ = [
    "Change",
    "DeadLetterResult",
    "DeadLetters",
    "Deletion",
    "Diff",
    "Edit",
    "EditError",
    "Forecast",
    "NotConfirmed",
    "Outcome",
    "Page",
    "Prediction",
    "Replay",
    "ReplayProgress",
    "Result",
    "Selection",
    "UndoResult",
    "Undone",
    "Validation",
    "diff",
    "forecast",
    "validate",
]

Selection: TypeAlias = Filter | Sequence[int]
"""Dead letters by their sequences, or all that match a filter now."""

EVERYTHING = Filter()
_NEAR = 2000
"""If more than this many dead letters are unindexed, a page without filter is read directly from the stream."""
_DRY_RUN_BATCH = 200


@dataclass(frozen=True, slots=True)
class Page:
    """Dead letters in the requested order.

    ``matching`` of ``total`` dead letters match (of those ``scanned``, until the scan is ``complete``). ``older`` and
    ``newer`` are true if there are more in that direction.
    """

    dead_letters: tuple[DeadLetter, ...]
    matching: int
    total: int
    scanned: int
    complete: bool
    newest_first: bool
    older: bool
    newer: bool


class DeadLetters:
    """The dead letters of a pipeline. Every method raises NatsUnavailable or NotSetUp if the stream cannot be read."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._stream = pipeline.streams.dead_stream
        self.index = DeadLetterIndex(pipeline.jetstream, self._stream)

    async def scan(self, *, within: float | None = None, progress: Callable[[int, int], None] | None = None) -> bool:
        """Read new dead letters for about ``within`` seconds at most; returns whether the scan is complete.

        The first scan reads every dead letter once, later ones only the changes. ``progress`` is called with the number
        of scanned dead letters and the total.
        """
        return await self.index.refresh(within, progress)

    async def page(
        self,
        wanted: Filter = EVERYTHING,
        *,
        after: int | None = None,
        before: int | None = None,
        limit: int = 50,
        newest_first: bool = True,
        within: float | None = None,
    ) -> Page:
        """A page by sequence: the dead letters next after ``after``, or last before ``before``; with neither, the
        newest (or the oldest, with ``newest_first`` false).

        A filter requires a scan. With ``within`` seconds, the page covers what was scanned by then (see ``complete``).
        """
        state = (await self._pipeline.jetstream.stream(self._stream)).state
        unindexed = state.last_seq - (self.index.sequences[-1] if self.index.sequences else 0)
        if wanted.empty and not self.index.complete and unindexed > _NEAR:
            return await self._direct_page(after, before, limit, newest_first=newest_first)
        complete = await self.index.refresh(within)
        known = await self.index.select(wanted)
        chosen, older, newer = window(known, after, before, limit, newest_first=newest_first)
        found = [each for sequence in chosen if (each := self.index.get(sequence)) is not None]
        dead_letters = await self.index.with_payloads(found)
        if newest_first:
            dead_letters.reverse()
        total = self.index.state.messages
        return Page(
            tuple(dead_letters), len(known), total, len(self.index), complete, newest_first, older=older, newer=newer
        )

    async def dead_letter(self, sequence: int) -> DeadLetter | None:
        """One dead letter with its payload; None if it does not exist (any more)."""
        message = await read_one(self._pipeline.nats, self._stream, sequence)
        return None if message is None else read_dead_letter(message)

    async def find(self, message_id: str) -> list[DeadLetter]:
        """The dead letters of a message id (or id prefix), oldest first, with their payloads."""
        return await self._dead_letters(await self.matching(Filter(message_id=message_id)))

    async def matching(self, selection: Selection) -> list[int]:
        """The sequences that are selected now, ascending; a filter requires a complete scan."""
        if not isinstance(selection, Filter):
            return sorted(set(selection))
        await self.index.refresh()
        return await self.index.select(selection)

    async def groups(
        self, by: GroupBy = GroupBy.REASON, wanted: Filter = EVERYTHING, *, within: float | None = None
    ) -> list[Group]:
        """The numbers of dead letters with the same reason, entity or kind of error, largest group first."""
        await self.index.refresh(within)
        return await self.index.groups(by, await self.index.select(wanted))

    def validate(self, payload: bytes | str) -> Validation:
        """Validate a payload against the schema; every problem is assigned to its field."""
        return validate(payload, self._pipeline.grammar)

    def diff(self, before: bytes | str, after: bytes | str) -> Diff:
        """What an edit changes, field by field if both texts have the same fields."""
        return diff(before, after, self._pipeline.schema)

    async def dry_run(
        self, selection: Selection, edit: Edit | None = None, *, deep: bool = False
    ) -> AsyncGenerator[list[Prediction], None]:
        """Predict the outcome of a replay, in batches of a few hundred dead letters, without changing anything.

        With ``deep``, the rows of each dead letter are also tested in PostgreSQL, in transactions that are rolled back.
        """
        sequences = await self.matching(selection)
        for start in range(0, len(sequences), _DRY_RUN_BATCH):
            part = sequences[start : start + _DRY_RUN_BATCH]
            dead_letters = await self._dead_letters(part)
            present = {each.sequence for each in dead_letters}
            gone = [
                Prediction(each, "", Outcome.GONE, "no dead letter with this sequence", "")
                for each in part
                if each not in present
            ]
            yield sorted(
                [*gone, *await predict(self._pipeline, dead_letters, edit or Edit(), deep=deep)],
                key=lambda each: each.sequence,
            )

    async def replay(
        self,
        selection: Selection,
        edit: Edit | None = None,
        *,
        rate: float | None = None,
        concurrency: int = CHUNK,
    ) -> Replay:
        """A replay of the current selection; iterate over it to run it. ``rate`` is the limit in dead letters/s."""
        sequences = await self.matching(selection)
        return Replay(
            self._pipeline, sequences, edit or Edit(), rate, concurrency, selection=_describe(selection, sequences)
        )

    async def undo(
        self,
        *,
        message_id: str | None = None,
        run: str | None = None,
        settle: float = SETTLE,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[Undone]:
        """Undo the last replay of a message, or a whole run, as far as no worker has processed it; one result each.

        Raises ControlError if there is no such replay, or it has been undone already.
        """
        if (message_id is None) == (run is None):
            raise ControlError("give either a message ID or the run ID of a replay")
        records: list[Record] = []
        while True:
            after = records[-1].id if records else 0
            part = await self._pipeline.audit.replays_to_undo(message_id=message_id, run=run, after=after)
            records += part
            if not part:
                break
        if not records:
            raise ControlError(f"no replay to undo for {message_id or run} in the audit log")
        if message_id is not None:
            records = records[-1:]
        return await Undo(self._pipeline, settle).undo(records, progress)

    async def delete(
        self,
        selection: Selection,
        *,
        expected_count: int,
        keep_payloads: bool = True,
        progress: Callable[[int, int], None] | None = None,
    ) -> Deletion:
        """Delete the current selection permanently. ``expected_count`` is the number that the user confirmed.

        Raises NotConfirmed if the number has changed. The audit log keeps the headers of the dead letters and, with
        ``keep_payloads``, up to 8 KiB of each payload.
        """
        sequences = await self.matching(selection)
        if not isinstance(selection, Filter):
            sequences = list(await self._present(sequences))
        if len(sequences) != expected_count:
            raise NotConfirmed(
                f"nothing was deleted: {expected_count:,} dead letters were confirmed, but {len(sequences):,} are "
                "selected now; check the selection and confirm again"
            )
        deletion = Deletion(self._pipeline, sequences, _describe(selection, sequences), keep_payloads)
        await deletion.finish(progress)
        return deletion

    async def _present(self, sequences: Sequence[int]) -> list[int]:
        return sorted(await read_many(self._pipeline.nats, self._stream, sequences))

    async def _dead_letters(self, sequences: Sequence[int]) -> list[DeadLetter]:
        """Read these dead letters with their payloads."""
        messages = await read_many(self._pipeline.nats, self._stream, sequences)
        return [read_dead_letter(messages[each]) for each in sorted(messages)]

    async def _direct_page(self, after: int | None, before: int | None, limit: int, *, newest_first: bool) -> Page:
        """Read a page directly from the stream, without the index."""
        nats, stream = self._pipeline.nats, self._stream
        state = (await self._pipeline.jetstream.stream(stream)).state
        if (after is not None and before is None) or (before is None and not newest_first):
            start = max(state.first_seq, (after or 0) + 1)
            batch = await read_batch(nats, stream, start, limit)
            messages, newer, older = batch.messages, batch.pending > 0, start > state.first_seq
        else:
            end = state.last_seq + 1 if before is None else min(before, state.last_seq + 1)
            messages = await read_before(nats, stream, end, limit, state.first_seq)
            if after is not None:
                messages = [each for each in messages if each.sequence > after]
            older = bool(messages) and messages[0].sequence > state.first_seq
            newer = bool(messages) and messages[-1].sequence < state.last_seq
        dead_letters = [read_dead_letter(each) for each in messages]
        if newest_first:
            dead_letters.reverse()
        known = state.messages
        return Page(tuple(dead_letters), known, known, len(self.index), True, newest_first, older=older, newer=newer)


def _describe(selection: Selection, sequences: Sequence[int]) -> str:
    if isinstance(selection, Filter):
        return selection.describe() or "all"
    shown = ", ".join(str(each) for each in sequences[:10])
    return f"sequences {shown}" + (f" and {len(sequences) - 10:,} more" if len(sequences) > 10 else "")
