"""The operations of the query API: path, parameters, answer and what runs, in one table.

The routes and the OpenAPI document are both made from it, so neither can say what the other does not do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from msgspec import Struct

from nomnom.connections.errors import RequestError
from nomnom.connections.postgres import Database
from nomnom.envelope import parse_message_id
from nomnom.grammar import Grammar, RecordError
from nomnom.inspection.cursors import read_cursor
from nomnom.inspection.dead_letters import DeadLetterIndex, Filter, read_dead_letter
from nomnom.inspection.entities import Entities
from nomnom.inspection.jetstream import JetStream
from nomnom.schema import Schema
from nomnom.streams import StreamSettings
from nomnom_dashboard import answers, queries
from nomnom_dashboard.dead_letters import list_dead_letters, shown_dead_letter
from nomnom_dashboard.entities import list_entities, list_rows
from nomnom_dashboard.errors import InvalidQueryError, NotFoundError, UnavailableError
from nomnom_dashboard.messages import Messages, text
from nomnom_dashboard.overview import Overview

RESERVED = frozenset({"entities", "messages", "dlq", "stats", "stream", "health"})
"""Paths below /api that an entity of the same name does not take."""


@dataclass(frozen=True)
class Sources:
    """What the operations ask."""

    database: Database
    jetstream: JetStream
    streams: StreamSettings
    schema: Schema
    grammar: Grammar
    entities: Entities
    messages: Messages
    dead_letters: DeadLetterIndex
    overview: Overview


Handler = Callable[[Sources, Mapping[str, str], Any], Awaitable[Struct]]


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One operation. ``handler`` is None where the answer is no JSON, and the application gives it."""

    name: str
    path: str
    summary: str
    tag: str
    query: type[Struct] = queries.NoQuery
    answer: type[Struct] | None = None
    handler: Handler | None = None
    path_parameters: Mapping[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    problems: tuple[int, ...] = (400, 401, 503)
    answers: Mapping[int, str] = field(default_factory=lambda: {200: "The answer."})
    media_type: str = "application/json"
    open: bool = False


async def _health(sources: Sources, _: Mapping[str, str], __: queries.NoQuery) -> answers.Health:
    jetstream, streams = sources.jetstream, sources.streams

    async def ask(name: str, question: Callable[[], Awaitable[str]]) -> answers.Dependency:
        begun = asyncio.get_running_loop().time()
        try:
            detail = await question()
        except (UnavailableError, RequestError) as error:
            return answers.Dependency(name, ok=False, detail=str(error))
        return answers.Dependency(name, ok=True, detail=detail, seconds=asyncio.get_running_loop().time() - begun)

    async def database() -> str:
        rows = await sources.database.fetch("SELECT current_setting('server_version') AS version")
        return f"PostgreSQL {rows[0]['version']} at {sources.database.address}"

    async def tables() -> str:
        await sources.messages.newest(1)
        found = await sources.entities.reports()
        return f"message_status and {len(found)} tables of schema {sources.schema.name}"

    async def nats() -> str:
        await jetstream.nats.round_trip()
        return f"NATS at {jetstream.nats.address}"

    async def stream(name: str) -> str:
        info = await jetstream.stream(name)
        return f"{info.state.messages:,} messages, {info.state.bytes:,} bytes"

    async def consumer() -> str:
        info = await jetstream.consumer(streams.stream, streams.consumer)
        if info.paused:
            raise UnavailableError("paused by an operator: nothing is processed")
        return f"{info.num_pending:,} waiting, {info.num_ack_pending:,} in progress"

    async def workers() -> str:
        snapshot = sources.overview.last
        connected = snapshot.workers.connected if snapshot and snapshot.workers else None
        lag = snapshot.lag.total if snapshot and snapshot.lag else 0
        if connected is None:
            raise UnavailableError("unknown: PostgreSQL lists the connected workers, and is unavailable")
        if connected == 0 and lag:
            raise UnavailableError(f"none is connected, and {lag:,} messages wait")
        return f"{connected} connected" if connected else "none, and none is needed: nothing waits"

    found = await asyncio.gather(
        ask("PostgreSQL", database),
        ask("tables", tables),
        ask("NATS", nats),
        ask(f"stream {streams.stream}", lambda: stream(streams.stream)),
        ask(f"stream {streams.dead_stream}", lambda: stream(streams.dead_stream)),
        ask(f"consumer {streams.consumer}", consumer),
        ask("workers", workers),
    )
    down = any(not each.ok for each in found if each.name in ("PostgreSQL", "NATS"))
    return answers.Health("down" if down else "ok" if all(each.ok for each in found) else "degraded", list(found))


async def _stats(sources: Sources, _: Mapping[str, str], query: queries.StatsQuery) -> answers.Stats:
    return sources.overview.stats(query.window)


async def _entities(sources: Sources, _: Mapping[str, str], __: queries.NoQuery) -> answers.EntityList:
    return await list_entities(sources.entities, sources.schema)


async def _rows(sources: Sources, path: Mapping[str, str], query: queries.RowsQuery) -> answers.EntityRows:
    return await list_rows(
        sources.entities,
        sources.schema,
        path["name"],
        limit=query.limit,
        cursor=query.cursor,
        sort=query.sort,
        filters=query.filter,
    )


async def _messages(sources: Sources, _: Mapping[str, str], query: queries.MessagesQuery) -> answers.MessageList:
    return await sources.messages.page(
        limit=query.limit,
        cursor=query.cursor,
        status=query.status,
        entity=query.entity,
        error=query.error,
        since=query.since,
        until=query.until,
        prefix=query.id,
    )


async def _message(sources: Sources, path: Mapping[str, str], _: queries.NoQuery) -> answers.MessageDetail:
    message_id = parse_message_id(path["id"])
    if message_id is None:
        raise InvalidQueryError(f"id: expected a UUID, found {path['id'][:60]!r}")
    return await sources.messages.detail(message_id)


async def _dead_letters(
    sources: Sources, _: Mapping[str, str], query: queries.DeadLettersQuery
) -> answers.DeadLetterList:
    if not sources.overview.nats_answers:
        raise UnavailableError("NATS is unavailable, and the dead letters are in its stream")
    # What the snapshot has counted can be listed, too.
    if sources.overview.dead_letters_changed:
        await sources.dead_letters.refresh()
    wanted = Filter(
        reasons=(query.reason,) if query.reason else (),
        entities=(query.entity,) if query.entity else (),
        text=query.text or "",
    )
    before = read_cursor(query.cursor, int) if query.cursor else None
    return await list_dead_letters(sources.dead_letters, wanted, before, query.limit)


async def _dead_letter(sources: Sources, path: Mapping[str, str], _: queries.NoQuery) -> answers.DeadLetterDetail:
    digits = path["sequence"]
    if not (digits.isascii() and digits.isdecimal() and 0 < int(digits) < 2**63):
        raise InvalidQueryError(f"sequence: expected a whole number from 1 on, found {digits[:60]!r}")
    message = await sources.jetstream.peek(sources.streams.dead_stream, int(digits))
    if message is None:
        raise NotFoundError(f"no dead letter {digits}: it was replayed or deleted, or never existed")
    shown = shown_dead_letter(read_dead_letter(message))
    try:
        readable = message.payload.decode()
    except UnicodeDecodeError:
        return answers.DeadLetterDetail(shown, text(message.payload), text=False, problems=[])
    problems: list[answers.FieldProblem] = []
    try:
        sources.grammar.parse(readable)
    except RecordError as error:
        problems = [answers.FieldProblem(*each) for each in error.problems]
    return answers.DeadLetterDetail(shown, text(message.payload), text=True, problems=problems)


def _row_operation(name: str, path: str, summary: str, entity: str | None = None) -> Operation:
    async def rows(sources: Sources, given: Mapping[str, str], query: queries.RowsQuery) -> answers.EntityRows:
        return await _rows(sources, {"name": entity} if entity else given, query)

    pattern = {"name": {"type": "string", "pattern": r"^[a-z_][a-z0-9_]{0,62}$"}}
    return Operation(
        name=name,
        path=path,
        summary=summary,
        tag="entities",
        query=queries.RowsQuery,
        answer=answers.EntityRows,
        handler=rows,
        path_parameters={} if entity else pattern,
        problems=(400, 401, 503) if entity else (400, 401, 404, 503),
    )


OPERATIONS: tuple[Operation, ...] = (
    Operation(
        name="getAlive",
        path="/health",
        summary="Whether the process runs",
        tag="service",
        answer=answers.Alive,
        problems=(400,),
        open=True,
    ),
    Operation(
        name="getReady",
        path="/ready",
        summary="Whether the process takes requests: not while it stops",
        tag="service",
        answer=answers.Alive,
        problems=(400, 503),
        open=True,
    ),
    Operation(
        name="getMetrics",
        path="/metrics",
        summary="Metrics, as Prometheus reads them",
        tag="service",
        media_type="text/plain",
        problems=(400,),
        open=True,
    ),
    Operation(
        name="getHealth",
        path="/api/health",
        summary="Each dependency, and why it is not well",
        tag="service",
        answer=answers.Health,
        handler=_health,
        answers={200: "PostgreSQL and NATS answer.", 503: "PostgreSQL or NATS is away."},
        problems=(400, 401),
    ),
    Operation(
        name="getStats",
        path="/api/stats",
        summary="Counts, rates, lag, workers and latency, now and over time",
        tag="overview",
        query=queries.StatsQuery,
        answer=answers.Stats,
        handler=_stats,
    ),
    Operation(
        name="getStream",
        path="/api/stream",
        summary="The same as server-sent events: `snapshot`, whose data is a Snapshot",
        tag="overview",
        media_type="text/event-stream",
        problems=(400, 401),
    ),
    Operation(
        name="getEntities",
        path="/api/entities",
        summary="The kinds of record, and how many rows each has",
        tag="entities",
        answer=answers.EntityList,
        handler=_entities,
    ),
    _row_operation("getRows", "/api/entities/{name}", "Rows of one entity"),
    Operation(
        name="getMessages",
        path="/api/messages",
        summary="Messages, the newest first",
        tag="messages",
        query=queries.MessagesQuery,
        answer=answers.MessageList,
        handler=_messages,
    ),
    Operation(
        name="getMessage",
        path="/api/messages/{id}",
        summary="One message: status, timeline, the rows it wrote",
        tag="messages",
        answer=answers.MessageDetail,
        handler=_message,
        path_parameters={"id": {"type": "string", "format": "uuid"}},
        problems=(400, 401, 404, 503),
    ),
    Operation(
        name="getDeadLetters",
        path="/api/dlq",
        summary="Dead letters, the newest first, and by reason",
        tag="dead letters",
        query=queries.DeadLettersQuery,
        answer=answers.DeadLetterList,
        handler=_dead_letters,
    ),
    Operation(
        name="getDeadLetter",
        path="/api/dlq/{sequence}",
        summary="One dead letter with its payload and what is wrong with it",
        tag="dead letters",
        answer=answers.DeadLetterDetail,
        handler=_dead_letter,
        path_parameters={"sequence": {"type": "integer", "minimum": 1, "maximum": 2**63 - 1}},
        problems=(400, 401, 404, 503),
    ),
)
"""What every deployment has."""


def entity_operations(schema: Schema) -> tuple[Operation, ...]:
    """The rows of each entity under its own name: /api/orders, and so on."""
    return tuple(
        _row_operation(f"get_{each.name}", f"/api/{each.name}", f"Rows of {each.title}", each.name)
        for each in schema
        if each.name not in RESERVED
    )
