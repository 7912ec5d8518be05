"""The response types of the ingest API, except problems."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

Timestamp = Annotated[datetime, Meta(tz=True)]
MessageId = Annotated[str, Meta(extra_json_schema={"format": "uuid"})]


class Receipt(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The message is stored in the stream. ``duplicate``: it was already stored under the same Idempotency-Key."""

    message_id: MessageId
    status: Literal["accepted"]
    timestamp: Timestamp
    """When the API received the message: UTC, microseconds."""
    duplicate: bool = False


class BatchIds(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """All lines are accepted. ``ids`` are the message IDs of the non-blank lines, in order."""

    count: int
    ids: list[MessageId]
    duplicates: int = 0
    """Lines that were accepted before, under the same key; absent if there are none."""


class BatchSummary(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """All lines are accepted. Contains the first and the last message ID only."""

    count: int
    first_id: MessageId
    last_id: MessageId
    duplicates: int = 0


class AcceptedLine(Struct, frozen=True):
    """A line that is accepted. Lines count from 1, including blank ones."""

    line: int
    id: MessageId


class LineProblem(Struct, frozen=True):
    """Non-blank lines from ``line`` to ``last_line`` that were not accepted, for the same reason.

    If ``last_line`` is null, the problem extends to the end of the body, which was not read. With the code
    ``unconfirmed``, the lines may or may not be stored; with any other code they are not stored.
    """

    line: int
    last_line: int | None
    status: int
    code: str
    detail: str


class PartialBatch(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Some lines were not accepted. Non-blank lines that are not part of a problem are stored in the stream."""

    count: int
    """Number of accepted lines."""
    duplicates: int = 0
    problems: list[LineProblem]
    accepted: list[AcceptedLine] | None = None
    """The accepted lines; absent with ``ids=none``."""


class FieldProblem(Struct, frozen=True):
    """A problem with a message. Lines and positions count from 1; the tag has position 0."""

    line: int
    field: str | None
    position: int | None
    expected: str
    found: str


class ParsedRecord(Struct, frozen=True):
    """A parsed record. Decimals are strings, to keep them exact."""

    entity: str
    fields: dict[str, Any]


class Validation(Struct, frozen=True):
    """The result of validating a message; nothing is published."""

    valid: bool
    entity: str
    subject: str
    """The subject that the message would be published to."""
    records: list[ParsedRecord]
    problems: list[FieldProblem]


class MessageState(Struct, frozen=True, kw_only=True):
    """The status of a message."""

    message_id: MessageId
    status: Literal["accepted", "processing", "completed", "failed", "dlq", "deleted", "purged", "expired"]
    entity: str | None
    received_at: Timestamp | None
    processed_at: Timestamp | None = None
    """When a worker set the status, or when the message was removed: deleted, purged or expired."""
    retry_count: int = 0
    error: str | None = None
    superseded: bool = False
    note: str | None = None
    """What could not be determined, and why."""


class Alive(Struct, frozen=True):
    """The process is running."""

    status: Literal["alive"]


class Check(Struct, frozen=True):
    """Whether a dependency is available and usable."""

    ok: bool
    detail: str


class Readiness(Struct, frozen=True):
    """``ready``: all dependencies are available. ``degraded``: messages are accepted, some statuses are unavailable.

    ``unavailable``: messages cannot be accepted. ``stopping``: the API is shutting down.
    """

    status: Literal["ready", "degraded", "unavailable", "stopping"]
    jetstream: Check
    database: Check
