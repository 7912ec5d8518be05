"""The response types of the query API. The OpenAPI document and the page's types are generated from them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta, Struct

from nomnom.account import Kind
from nomnom_dashboard.throughput import Latency, Point

Scalar = int | float | str | bool | None
"""A value of a row; decimals, dates and integers beyond 2^53 are strings, to keep them exact."""


class Alive(Struct, frozen=True):
    """The state of the process."""

    status: Literal["alive", "ready"]


class SourceState(Struct, frozen=True):
    """Whether PostgreSQL or NATS is available; if not, ``detail`` says why."""

    ok: bool
    detail: str


class Dependency(Struct, frozen=True):
    """A dependency of the pipeline or the dashboard."""

    name: str
    ok: bool
    detail: str
    seconds: float | None = None
    """Response time of the check, in seconds; null if it failed."""


class Health(Struct, frozen=True):
    """``ok``: all healthy. ``degraded``: a dependency is unhealthy. ``down``: PostgreSQL or NATS is unavailable."""

    status: Literal["ok", "degraded", "down"]
    dependencies: list[Dependency]


class Count(Struct, frozen=True):
    """A number of rows; numbers from 100,000 on are estimates by PostgreSQL."""

    value: int
    exact: bool


class Counts(Struct, frozen=True):
    """Messages by status. ``accepted`` (pending) and ``processing`` are null while NATS is unavailable."""

    accepted: Count | None
    processing: Count | None
    completed: Count
    failed: Count
    dlq: Count
    deleted: Count
    purged: Count
    expired: Count
    total: Count
    """Messages with a status row: all except those pending or processed for the first time."""


class Rates(Struct, frozen=True):
    """Messages per second over the last seconds; null if unknown: NATS is unavailable, or too few samples exist."""

    accepted: float | None
    completed: float | None
    dead: float | None


class Lag(Struct, frozen=True):
    """The backlog of the workers, in messages: each of a segment counts."""

    waiting: int
    """Pending: not delivered yet. Estimated, like ``processing``, if only some of several segments were delivered."""
    processing: int
    """Delivered, not acknowledged yet."""
    total: int
    redelivered: int
    oldest_seconds: float | None
    """Age of the oldest message in the stream; null if the stream is empty."""
    bytes: int
    max_bytes: int | None
    """Size limit of the stream; beyond it messages are rejected. Null if there is none."""
    paused: bool


class Workers(Struct, frozen=True):
    """Workers connected to PostgreSQL, and their open pull requests."""

    connected: int
    pulls: int | None


class Balance(Struct, frozen=True):
    """The account at a glance; see ``/api/account``."""

    unexplained: int
    since: datetime | None
    """When the first of them was noticed; null if there is none."""
    verified_at: datetime | None
    """The oldest verification of any part of the account; null if a part was not verified yet."""


class Loss(Struct, frozen=True):
    """Messages of which nothing stored says what became of them."""

    kind: Kind
    """``sequence``: neither in the stream nor in a table. ``rows``: messages of a segment without a row. ``dead
    letter``: it does not exist, but the status of its message is dlq. ``pending``: it is not in the stream, but the
    status of its message is failed or processing."""
    incarnation: int
    """Of the stream; it counts from 1 again if it is created again."""
    first_sequence: int
    last_sequence: int
    messages: int
    """Fewer than the sequences if it is not known which of them are lost."""
    message_id: str | None
    noticed_at: datetime


class Account(Struct, frozen=True, kw_only=True):
    """What became of the messages received in a period. ``accepted`` is the sum of ``completed``, ``dead_letters``,
    ``pending``, ``processing``, ``failed``, ``deleted``, ``purged``, ``expired``, ``retired`` and ``unexplained``."""

    since: datetime | None
    until: datetime | None
    began_at: datetime | None
    """Messages received earlier are not part of the account."""
    accepted: int
    completed: int
    superseded: int
    """Of the completed ones."""
    dead_letters: int
    pending: int
    processing: int
    failed: int
    deleted: int
    purged: int
    expired: int
    retired: int
    """Their rows were dropped at the end of their retention."""
    unexplained: int
    replayed: int
    """Copies of messages, like ``repeated`` and ``removed``: not accepted messages of their own."""
    repeated: int
    removed: int
    waiting_replays: int
    """Of the replayed ones: those that no worker has processed yet."""
    verified_at: datetime | None
    losses: list[Loss]
    """At most 1,000 for each incarnation of the stream."""


class MessageSummary(Struct, frozen=True):
    """The status row of a message."""

    message_id: str
    entity: str
    status: Literal["processing", "completed", "failed", "dlq", "deleted", "purged", "expired"]
    received_at: datetime
    processed_at: datetime | None
    seconds: float | None
    """From accepted to processed."""
    attempts: int
    """Failed attempts since the message was accepted or last replayed."""
    error: str | None
    superseded: bool
    replays: int


class Snapshot(Struct, frozen=True, kw_only=True):
    """The current state of the pipeline. Values from an unavailable source are null; see ``database`` and ``nats``."""

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
    account: Balance | None
    dead_letters: int | None
    """Messages currently in the dead-letter stream, without those replayed or deleted."""
    expiring: str | None
    """A warning if dead letters will be archived soon, because they reach their maximum age; else null."""
    point: Point
    """The newest live sample."""
    newest: list[MessageSummary] | None


class Stats(Snapshot, frozen=True, kw_only=True):
    """The snapshot, with a time series over the requested window."""

    window: str
    step: int
    """Seconds between points; the newest points of the 5m window are live samples, one second apart."""
    points: list[Point]
    complete_from: datetime | None
    """Start of the complete part of the series: older points are loaded in the background. Null: no data yet."""


class MessageList(Struct, frozen=True):
    """Messages, newest first. ``next`` is the cursor of the next page; the search went back to ``searched_to``."""

    messages: list[MessageSummary]
    next: str | None
    searched_to: datetime | None


class Event(Struct, frozen=True):
    """An event in the life cycle of a message."""

    at: datetime
    event: Literal[
        "accepted",
        "attempt_failed",
        "completed",
        "superseded",
        "dead_letter",
        "deleted",
        "purged",
        "expired",
        "operator",
    ]
    detail: str


class Row(Struct, frozen=True):
    """A row of an entity's table, and the message that last wrote it."""

    values: dict[str, Scalar]
    message_id: str
    received_at: datetime


class WrittenRows(Struct, frozen=True):
    """Rows of one entity last written by a message; rows overwritten by later messages are not included."""

    entity: str
    table: str
    rows: list[Row]
    complete: bool


class MessageDetail(Struct, frozen=True):
    """A message with its timeline and the rows it wrote."""

    message_id: str
    entity: str
    status: Literal["accepted", "processing", "completed", "failed", "dlq", "deleted", "purged", "expired"]
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
    """The payload, if a stream still holds it: pending or as a dead letter."""
    dead_letter: int | None
    """Its sequence in the dead-letter stream, if it is a dead letter."""
    notes: list[str]
    """Information that could not be read, and why."""


class DeadLetter(Struct, frozen=True):
    """A message that could not be processed and awaits review. Null: its headers are malformed."""

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
    """Size of the payload in bytes."""


class DeadLetterGroup(Struct, frozen=True):
    """Dead letters with the same reason and entity."""

    reason: str
    entity: str
    dead_letters: int
    newest_at: datetime
    newest_error: str


class DeadLetterList(Struct, frozen=True):
    """Dead letters, newest first, and the groups of all that match."""

    dead_letters: list[DeadLetter]
    next: str | None
    total: int
    """Messages in the dead-letter stream."""
    matching: int
    groups: list[DeadLetterGroup]
    older: int
    """Number of oldest dead letters that are not listed, filtered or grouped, because of a limit."""


class FieldProblem(Struct, frozen=True):
    """A problem with a record; lines and positions count from 1."""

    line: int
    field: str | None
    position: int | None
    expected: str
    found: str


class PayloadField(Struct, frozen=True):
    """One field of a payload as it stands there, with its escapes. ``expected`` is null if the field is valid."""

    text: str
    name: str | None
    expected: str | None


class PayloadLine(Struct, frozen=True):
    """One line of a payload, split at its separators; empty lines are left out."""

    number: int
    fields: list[PayloadField]


class DeadLetterDetail(Struct, frozen=True):
    """A dead letter with its payload and its schema violations."""

    dead_letter: DeadLetter
    payload: str
    text: bool
    """Whether the payload is valid UTF-8; if not, invalid bytes are replaced by U+FFFD."""
    lines: list[PayloadLine]
    problems: list[FieldProblem]


class Column(Struct, frozen=True):
    """A column of an entity's table."""

    name: str
    title: str
    type: str
    numeric: bool
    nullable: bool
    key: bool
    sortable: bool
    """Whether rows can be sorted by this column at the current size of the table."""


class EntitySummary(Struct, frozen=True):
    """An entity of the schema, and the number of its rows."""

    name: str
    title: str
    tag: str
    table: str
    parent: str | None
    rows: Count
    bytes: int
    """Size of its table with indexes, as PostgreSQL has it on disk."""


class EntityList(Struct, frozen=True):
    """The entities of the deployment's schema."""

    schema: str
    title: str
    entities: list[EntitySummary]


class EntityRows(Struct, frozen=True):
    """Rows of one entity, sorted. ``next`` is the cursor of the next page."""

    entity: EntitySummary
    columns: list[Column]
    sort: str
    rows: list[Row]
    next: str | None
    searched: int | None
    """Rows scanned, if a filter without index found less than a page; ``next`` continues the scan. Otherwise null."""


Limit = Annotated[int, Meta(ge=1, le=500, description="Maximum number of results, 1 to 500.")]
