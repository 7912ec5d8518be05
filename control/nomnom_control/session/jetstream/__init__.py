"""Inspect JetStream, and pause, resume and purge; no message is consumed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from nomnom.inspection import jetstream
from nomnom.inspection.jetstream import ConsumerReport, checked
from nomnom.positions import register_stream
from nomnom_control.errors import ControlError, NotConfirmed
from nomnom_control.session.audit import Action, Entry
from nomnom_control.session.jetstream.changes import purge
from nomnom_control.session.jetstream.pausing import pause_consumer, resume_consumer
from nomnom_control.session.jetstream.purging import Purge, Report

if TYPE_CHECKING:
    from nomnom_control.session.pipeline import Pipeline

FOREVER = timedelta(days=365 * 10)
"""Duration of a pause without an end."""


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

    async def purge(self, stream: str, *, confirm: str, last: int | None = None, progress: Report | None = None) -> int:
        """Delete the messages of a stream up to sequence ``last``: the last one when the user was asked (default: now).

        ``confirm`` must be the stream's name. Returns how many were deleted. Messages of the pipeline's streams get the
        status ``purged``; raises DatabaseUnavailable, before anything is changed, if that cannot be recorded.
        """
        if confirm != stream:
            raise NotConfirmed(f"stream {stream} is not purged: the confirmation must be its name, found {confirm!r}")
        report = await self.stream(stream)
        end = report.state.last_seq if last is None else min(last, report.state.last_seq)
        streams = self._pipeline.streams
        if stream in (streams.stream, streams.dead_stream):
            return await Purge(self._pipeline, report, end).run(progress)
        purged = await purge(self.nats, checked(stream), end)
        detail = {"messages": report.state.messages, "bytes": report.state.bytes, "last_sequence": end}
        await self._pipeline.audit.note(
            [Entry(Action.PURGE, f"purged {purged:,} messages", detail=detail, entity=stream)]
        )
        return purged

    async def incarnation(self, stream: str) -> int:
        """The number of a stream's incarnation (:mod:`nomnom.positions`). Raises DatabaseUnavailable too."""
        created = (await self.stream(stream)).created
        async with self._pipeline.database.connection() as connection:
            return await register_stream(connection, stream, created)

    async def _note_pause(self, stream: str, consumer: str, action: Action, until: datetime | None) -> None:
        detail = {"consumer": consumer, "until": until}
        await self._pipeline.audit.note([Entry(action, "done", detail=detail, entity=stream)])
