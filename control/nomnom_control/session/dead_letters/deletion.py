"""Permanent deletion of dead letters after a confirmation; the audit log keeps a copy.

The steps are: spool the audit entries; delete the dead letters; write the entries and the statuses of the messages in
one transaction. If this is interrupted, the next session looks which dead letters exist and writes both.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from nomnom.envelope import new_message_id
from nomnom.inspection.dead_letters import read_dead_letter
from nomnom.inspection.jetstream.messages import StoredMessage, read_many
from nomnom.stream_changes import delete_message
from nomnom.tasks import finish
from nomnom_control.session.audit import Action, Entry, Ledger
from nomnom_control.session.audit.effects import DELETED
from nomnom_control.session.dead_letters.publication import CHUNK, all_of, dead_letter_headers
from nomnom_control.session.dead_letters.replay import digest

if TYPE_CHECKING:
    from nomnom_control.session.pipeline import Pipeline

KEPT_PAYLOAD = 8 * 1024
"""The audit log keeps at most this many bytes of the payload of a deleted dead letter."""


@dataclass(slots=True)
class Deletion:
    """A run of deletions and its progress. ``gone`` counts those that did not exist any more."""

    pipeline: Pipeline = field(repr=False)
    sequences: Sequence[int] = field(repr=False)
    selection: str = ""
    keep_payloads: bool = True
    run: str = field(default_factory=new_message_id)
    deleted: int = 0
    gone: int = 0

    async def finish(self, progress: Callable[[int, int], None] | None = None) -> None:
        """Delete. Cancellation takes effect between dead letters.

        Raises DatabaseUnavailable before anything is deleted; NatsUnavailable or AuditPending during the run.
        """
        async with self.pipeline.audit.ledger() as ledger:
            for start in range(0, len(self.sequences), CHUNK):
                await finish(self._delete(self.sequences[start : start + CHUNK], ledger))
                if progress is not None:
                    progress(self.deleted + self.gone, len(self.sequences))

    async def _delete(self, sequences: Sequence[int], ledger: Ledger) -> None:
        stream, nats = self.pipeline.streams.dead_stream, self.pipeline.nats
        messages = await read_many(nats, stream, sequences)
        self.gone += len(sequences) - len(messages)
        entries = {sequence: self._entry(message) for sequence, message in messages.items()}
        await ledger.prepare(list(entries.values()))
        outcomes = await all_of(delete_message(nats, stream, sequence) for sequence in entries)
        corrections: list[Entry] = []
        problem: Exception | None = None
        for entry, outcome in zip(entries.values(), outcomes, strict=True):
            if outcome is True:
                self.deleted += 1
            elif isinstance(outcome, Exception):
                problem = problem or outcome
                corrections.append(replace(entry, result=entry.unconfirmed))
            else:
                self.gone += 1
                corrections.append(replace(entry, result="gone"))
        self.pipeline.dead_letters.index.forget(
            sequence for sequence, outcome in zip(entries, outcomes, strict=True) if not isinstance(outcome, Exception)
        )
        await ledger.write(corrections)
        if problem is not None:
            raise problem

    def _entry(self, message: StoredMessage) -> Entry:
        dead_letter = read_dead_letter(message)
        detail: dict[str, Any] = {
            "selection": self.selection,
            "letter": {
                "subject": message.subject,
                "headers": dead_letter_headers(message),
                "digest": digest(message.payload),
            },
            "size": message.size,
        }
        if self.keep_payloads:
            detail["letter"]["payload"] = base64.b64encode(message.payload[:KEPT_PAYLOAD]).decode()
            detail["letter"]["payload_cut"] = message.size > KEPT_PAYLOAD
        message_id = None if dead_letter.envelope_problem else dead_letter.message_id
        return Entry(
            Action.DELETE,
            DELETED,
            entity=dead_letter.entity,
            message_id=message_id,
            sequence=dead_letter.sequence,
            detail=detail,
            run=self.run,
        )
