"""The states that every surface shows, each with one sign, one label and one tone."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from nomnom.envelope import Reason, Status

CROSS = "✕"
"""The sign of what is wrong, also beside a single field."""


class Tone(StrEnum):
    """What a colour means. Which colour it is, each surface decides."""

    GOOD = "good"
    WARNING = "warning"
    BAD = "bad"
    ACCENT = "accent"
    MUTED = "muted"


class Mark(NamedTuple):
    """How a state is shown. The sign differs from that of other states, so that colour is never the only difference."""

    sign: str
    label: str
    tone: Tone
    meaning: str = ""
    """What the state means, as the end of a sentence."""

    def __str__(self) -> str:
        return f"{self.sign} {self.label}"


class Health(StrEnum):
    """The state of a component. ``stopped`` is intended (zero desired); ``failed`` is not."""

    HEALTHY = "healthy"
    STARTING = "starting"
    DEGRADED = "degraded"
    STOPPED = "stopped"
    FAILED = "failed"


class Step(StrEnum):
    """The state of one step of a long operation."""

    STARTED = "started"
    OUTPUT = "output"
    DONE = "done"
    SKIPPED = "skipped"
    FAILED = "failed"


STATUSES: dict[Status, Mark] = {
    Status.ACCEPTED: Mark("○", "accepted", Tone.ACCENT, "stored in the stream, waiting for a worker"),
    Status.PROCESSING: Mark("◐", "processing", Tone.ACCENT, "delivered to a worker"),
    Status.COMPLETED: Mark("●", "completed", Tone.GOOD, "written to its table"),
    Status.FAILED: Mark("▲", "failed", Tone.WARNING, "will be retried"),
    Status.DLQ: Mark(CROSS, "dead letter", Tone.BAD, "waiting for an operator"),
    Status.DELETED: Mark("⊘", "deleted", Tone.MUTED, "its dead letter was deleted by an operator"),
    Status.PURGED: Mark("⊖", "purged", Tone.MUTED, "it was purged from the stream by an operator"),
    Status.EXPIRED: Mark("⊝", "expired", Tone.MUTED, "the retention of its dead letter has ended"),
}
SUPERSEDED = Mark("◌", "superseded", Tone.MUTED, "all its rows had already been written by messages received later")
"""Shown instead of ``completed`` for a message whose rows were all older than those in the table."""

HEALTHS: dict[Health, Mark] = {
    Health.HEALTHY: Mark("●", "healthy", Tone.GOOD),
    Health.STARTING: Mark("◐", "starting", Tone.ACCENT),
    Health.DEGRADED: Mark("▲", "degraded", Tone.WARNING),
    Health.STOPPED: Mark("○", "stopped", Tone.MUTED),
    Health.FAILED: Mark(CROSS, "failed", Tone.BAD),
}

STEPS: dict[Step, Mark] = {
    Step.STARTED: Mark("◐", "started", Tone.ACCENT),
    Step.OUTPUT: Mark("◐", "output", Tone.ACCENT),
    Step.DONE: Mark("✓", "done", Tone.GOOD),
    Step.SKIPPED: Mark("·", "skipped", Tone.MUTED),
    Step.FAILED: Mark(CROSS, "failed", Tone.BAD),
}


class Cause(NamedTuple):
    """How the reason of a dead letter is explained."""

    title: str
    description: str


CAUSES: dict[Reason, Cause] = {
    Reason.RECORD: Cause("Invalid record", "The record does not match the schema."),
    Reason.DATA: Cause("Rejected by PostgreSQL", "PostgreSQL cannot store its values."),
    Reason.UNANSWERED: Cause("Not acknowledged", "It appears to crash workers (poison message)."),
    Reason.ENVELOPE: Cause("Invalid envelope", "Its subject or headers are not valid."),
    Reason.KEY_CONFLICT: Cause("Key conflict", "Its Idempotency-Key was used before, with another content."),
    Reason.EXPIRED: Cause("Expired", "No worker processed it in time."),
}
