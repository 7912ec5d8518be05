"""What the api answers with, beside problems."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

Moment = Annotated[datetime, Meta(tz=True)]
MessageId = Annotated[str, Meta(extra_json_schema={"format": "uuid"})]


class Receipt(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The message is in the stream, and safe. ``duplicate``: it was before, under the same key."""

    message_id: MessageId
    status: Literal["accepted"]
    timestamp: Moment
    """When the api received it: UTC, microseconds."""
    duplicate: bool = False


class BatchIds(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All lines are in the stream: their number, and the id of each line that is not blank, in order."""

    count: int
    ids: list[MessageId]
    duplicates: int = 0
    """Lines that were in the stream already; absent where there are none."""


class BatchSummary(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All lines are in the stream: their number, and the first and the last id."""

    count: int
    first_id: MessageId
    last_id: MessageId
    duplicates: int = 0


class AcceptedLine(Struct, frozen=True):
    """A line that is in the stream. Lines count from 1, blank ones too."""

    line: int
    id: MessageId


class LineProblem(Struct, frozen=True):
    """Lines that are not known to be in the stream: those from ``line`` to ``last_line`` that are not blank.

    ``last_line`` null: to the end of the body, which was not read further. With the code ``unconfirmed`` they may be
    stored, or not; with any other they are not.
    """

    line: int
    last_line: int | None
    status: int
    code: str
    detail: str


class PartialBatch(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Not all lines are in the stream. A line that is in no problem is in it, unless it is blank."""

    count: int
    """Lines accepted."""
    duplicates: int = 0
    problems: list[LineProblem]
    accepted: list[AcceptedLine] | None = None
    """The accepted lines; absent with ``ids=none``."""


class FieldProblem(Struct, frozen=True):
    """One thing wrong with a message. Lines and fields count from 1; the tag is field 0."""

    line: int
    field: str | None
    position: int | None
    expected: str
    found: str


class ParsedRecord(Struct, frozen=True):
    """A record as it would be stored. Decimals are text, exact."""

    entity: str
    fields: dict[str, Any]


class Validation(Struct, frozen=True):
    """What would happen to a message; nothing was published."""

    valid: bool
    entity: str
    subject: str
    """The subject it would be published on."""
    records: list[ParsedRecord]
    problems: list[FieldProblem]


class MessageState(Struct, frozen=True, kw_only=True):
    """Where a message is."""

    message_id: MessageId
    status: Literal["accepted", "processing", "completed", "failed", "dlq"]
    entity: str | None
    received_at: Moment | None
    processed_at: Moment | None = None
    retry_count: int = 0
    error: str | None = None
    superseded: bool = False
    note: str | None = None
    """What could not be looked up, where that leaves something open."""


class Alive(Struct, frozen=True):
    """The process runs."""

    status: Literal["alive"]


class Check(Struct, frozen=True):
    """Whether a server answers, and can do what it is asked for."""

    ok: bool
    detail: str


class Readiness(Struct, frozen=True):
    """``ready``: all is there. ``degraded``: messages are taken, the status of some cannot be told.

    ``unavailable``: nothing can be taken. ``stopping``: the api is on its way down.
    """

    status: Literal["ready", "degraded", "unavailable", "stopping"]
    jetstream: Check
    database: Check
