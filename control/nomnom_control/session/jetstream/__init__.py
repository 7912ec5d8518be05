"""Inspect JetStream, and pause, resume and purge; no message is consumed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from nomnom.inspection import jetstream
from nomnom.inspection.jetstream import ConsumerReport, checked
from nomnom_control.errors import ControlError
from nomnom_control.session.audit import Action, Entry
from nomnom_control.session.jetstream.changes import purge
from nomnom_control.session.jetstream.pausing import pause_consumer, resume_consumer

if TYPE_CHECKING:
    from nomnom_control.session.pipeline import Pipeline

FOREVER = timedelta(days=365 * 10)
"""Duration of a pause without an end."""


class NotConfirmed(ControlError):  # noqa: N818
    """The confirmation of a destructive operation does not match what would be lost."""


class JetStream(jetstream.JetStream):
    """Reads JetStream, and pauses, resumes and purges; each change leaves an entry in the audit log."""

    def __init__(self, pipeline: Pipeline) -> None:
        super().__init__(pipeline.nats)
        self._pipeline = pipeline

    async def pause(self, stream: str, consumer: str, until: datetime | None = None) -> ConsumerReport:
        """Stop deliveries until ``until`` (default: ten years), also across restarts. Requires nats-server 2.11."""
        end = until or datetime.now(UTC) + FOREVER
        if end <= datetime.now(UTC):
            raise ControlError(f"a pause until {end.isoformat()} has ended already")
        report = await pause_consumer(self, stream, consumer, end)
        await self._note_pause(stream, consumer, Action.PAUSE, end)
        return report

    async def resume(self, stream: str, consumer: str) -> ConsumerReport:
        """Resume deliveries."""
        report = await resume_consumer(self, stream, consumer)
        await self._note_pause(stream, consumer, Action.RESUME, None)
        return report

    async def purge(self, stream: str, *, confirm: str) -> int:
        """Delete every message of a stream; ``confirm`` must be its name. Returns how many were deleted."""
        if confirm != stream:
            raise NotConfirmed(f"stream {stream} is not purged: the confirmation must be its name, found {confirm!r}")
        before = (await self.stream(stream)).state
        purged = await purge(self.nats, checked(stream))
        detail = {
            "messages": before.messages,
            "bytes": before.bytes,
            "last_sequence": before.last_seq,
        }
        await self._pipeline.audit.note(
            [Entry(Action.PURGE, f"purged {purged:,} messages", detail=detail, entity=stream)]
        )
        return purged

    async def _note_pause(self, stream: str, consumer: str, action: Action, until: datetime | None) -> None:
        detail = {"consumer": consumer, "until": until}
        await self._pipeline.audit.note([Entry(action, "done", detail=detail, entity=stream)])
