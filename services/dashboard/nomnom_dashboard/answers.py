"""What the query API answers, as types: the OpenAPI document and the page's own types are made from them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta, Struct

from nomnom_dashboard.flow import Latency, Point

Scalar = int | float | str | bool | None
"""A value of a row: decimals, dates and whole numbers beyond 2^53 as text, exact."""


class Alive(Struct, frozen=True):
    """The process runs."""

    status: Literal["alive", "ready"]


class SourceState(Struct, frozen=True):
    """Whether PostgreSQL or NATS answers; ``detail`` says why not."""

    ok: bool
    detail: str


class Dependency(Struct, frozen=True):
    """One thing that the pipeline or the dashboard depends on."""

    name: str
    ok: bool
    detail: str
    seconds: float | None = None
    """How long it took to answer."""


class Health(Struct, frozen=True):
    """``ok``: all answer. ``degraded``: something needs a look. ``down``: PostgreSQL or NATS is away."""

    status: Literal["ok", "degraded", "down"]
    dependencies: list[Dependency]


class Count(Struct, frozen=True):
    """A number of rows; from 100,000 on it is an estimate of PostgreSQL."""

    value: int
    exact: bool


class Counts(Struct, frozen=True):
    """Messages by status: ``accepted`` wait in the stream, ``processing`` are with a worker; null without NATS."""

    accepted: Count | None
    processing: Count | None
    completed: Count
    failed: Count
    dlq: Count
    total: Count
    """Messages that have a status row: all but those accepted or in their first processing."""


class Rates(Struct, frozen=True):
    """Messages a second over the last seconds; null while NATS is away or has been watched for too short a time."""

    accepted: float | None
    completed: float | None
    dead: float | None


class Lag(Struct, frozen=True):
    """What the workers have yet to do."""

    waiting: int
    """Not delivered yet."""
    processing: int
    """Delivered, and not answered yet."""
    total: int
    redelivered: int
    oldest_seconds: float | None
    """Age of the oldest message in the stream; null when it is empty."""
    bytes: int
    max_bytes: int | None
    """How much the stream holds, and may hold before it refuses; null: no limit."""
    paused: bool


class Workers(Struct, frozen=True):
    """The workers that are connected to the database, and their unanswered requests for messages."""

    connected: int
    pulls: int | None


class MessageSummary(Struct, frozen=True):
    """A message as its status row tells it."""

    message_id: str
    entity: str
    status: Literal["processing", "completed", "failed", "dlq"]
    received_at: datetime
    processed_at: datetime | None
    seconds: float | None
    """From accepted to processed."""
    attempts: int
    """Failed attempts since it was accepted, or last replayed."""
    error: str | None
    superseded: bool
    replays: int


class Snapshot(Struct, frozen=True, kw_only=True):
    """The pipeline now. A part whose source is away is null; ``database`` and ``nats`` say why."""

    sequence: int
    at: datetime
    schema: str
    database: SourceState
    nats: SourceState
    counts: Counts | None
    rates: Rates
    lag: Lag | None
    workers: Workers | None
    latency: Latency | None
    dead_letters: int | None
    """Messages in the dead-letter stream now: those replayed or deleted are not among them."""
    point: Point
    """The newest live sample."""
    newest: list[MessageSummary] | None


class Stats(Snapshot, frozen=True, kw_only=True):
    """The snapshot, and how it came about: a series over the window asked for."""

    window: str
    step: int
    """Seconds from one point to the next; the newest points of the 5 m window are live samples, closer together."""
    points: list[Point]
    complete_from: datetime | None
    """Since when the series is known; it is read in the background after a start. Null: nothing yet."""


class MessageList(Struct, frozen=True):
    """Messages, the newest first. ``next`` continues; ``searched_to`` says how far back this answer looked."""

    messages: list[MessageSummary]
    next: str | None
    searched_to: datetime | None


class Event(Struct, frozen=True):
    """One thing that happened to a message."""

    at: datetime
    event: Literal["accepted", "attempt_failed", "completed", "superseded", "dead_letter", "operator"]
    detail: str


class Row(Struct, frozen=True):
    """One row of an entity's table, and which message wrote it last."""

    values: dict[str, Scalar]
    message_id: str
    received_at: datetime


class WrittenRows(Struct, frozen=True):
    """The rows of one entity that still carry a message's id: those that no later message overwrote."""

    entity: str
    table: str
    rows: list[Row]
    complete: bool


class MessageDetail(Struct, frozen=True):
    """All that is known of one message."""

    message_id: str
    entity: str
    status: Literal["accepted", "processing", "completed", "failed", "dlq"]
    received_at: datetime
    processed_at: datetime | None
    seconds: float | None
    attempts: int
    error: str | None
    superseded: bool
    replays: int
    timeline: list[Event]
    rows: list[WrittenRows]
    payload: str | None
    """Its text, while a stream holds it (waiting, or as a dead letter)."""
    dead_letter: int | None
    """Its sequence in the dead-letter stream, where it is one."""
    notes: list[str]
    """What could not be looked up, and why."""


class DeadLetter(Struct, frozen=True):
    """A message that could not be processed. Null: its headers are malformed and do not say it."""

    sequence: int
    message_id: str | None
    entity: str
    reason: str
    error: str
    attempts: int | None
    replays: int
    received_at: datetime | None
    failed_at: datetime | None
    stored_at: datetime
    size: int
    """Bytes of its payload."""


class DeadLetterGroup(Struct, frozen=True):
    """The dead letters of one reason and entity."""

    reason: str
    entity: str
    dead_letters: int
    newest_at: datetime
    newest_error: str


class DeadLetterList(Struct, frozen=True):
    """Dead letters, the newest first, and all that match by reason and entity."""

    dead_letters: list[DeadLetter]
    next: str | None
    total: int
    """Dead letters in the stream."""
    matching: int
    groups: list[DeadLetterGroup]
    older: int
    """How many of the oldest are neither listed nor counted here: see NOMNOM_DASHBOARD_LETTERS."""


class FieldProblem(Struct, frozen=True):
    """One thing wrong with a record; line and position count from 1."""

    line: int
    field: str | None
    position: int | None
    expected: str
    found: str


class DeadLetterDetail(Struct, frozen=True):
    """A dead letter with its payload and what the schema finds wrong with it."""

    dead_letter: DeadLetter
    payload: str
    text: bool
    """Whether the payload is UTF-8; else unreadable bytes are shown as U+FFFD."""
    problems: list[FieldProblem]


class Column(Struct, frozen=True):
    """A column of an entity."""

    name: str
    title: str
    type: str
    numeric: bool
    nullable: bool
    key: bool
    sortable: bool
    """Whether rows can be sorted by it at the table's present size."""


class EntitySummary(Struct, frozen=True):
    """A kind of record."""

    name: str
    title: str
    tag: str
    table: str
    parent: str | None
    rows: Count
    bytes: int
    """Size of its table with indexes, as PostgreSQL has it on disk."""


class EntityList(Struct, frozen=True):
    """The kinds of record of this deployment."""

    schema: str
    title: str
    entities: list[EntitySummary]


class EntityRows(Struct, frozen=True):
    """Rows of one entity, in the order asked for. ``next`` continues; with ``searched`` less than a page was found."""

    entity: EntitySummary
    columns: list[Column]
    sort: str
    rows: list[Row]
    next: str | None
    searched: int | None
    """How many rows were looked at where a filter needed a search, and found too few: ``next`` goes on searching."""


Limit = Annotated[int, Meta(ge=1, le=500, description="How many to answer, 1 to 500.")]
