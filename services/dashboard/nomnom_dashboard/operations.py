"""The operations of the query API: path, parameters, response type and handler, in one table.

Routes and OpenAPI document are both generated from it, so they cannot disagree.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from msgspec import Struct

from nomnom.account import read_account
from nomnom.connections.errors import RequestError
from nomnom.connections.monitor import read_all
from nomnom.connections.postgres import Database
from nomnom.connections.writing import FILL
from nomnom.envelope import parse_message_id
from nomnom.grammar import Grammar, Problem, RecordError
from nomnom.inspection.cursors import read_cursor
from nomnom.inspection.dead_letters import DeadLetterIndex, Filter, read_dead_letter
from nomnom.inspection.entities import Entities
from nomnom.inspection.jetstream import JetStream
from nomnom.layout import Row, lay_out
from nomnom.schema import Schema
from nomnom.streams import StreamSettings
from nomnom_dashboard import answers, queries
from nomnom_dashboard.dead_letters import list_dead_letters, shown_dead_letter
from nomnom_dashboard.entities import list_entities, list_rows
from nomnom_dashboard.errors import InvalidQueryError, NotFoundError, UnavailableError
from nomnom_dashboard.messages import Messages, text
from nomnom_dashboard.overview import Overview

RESERVED = frozenset({"account", "entities", "messages", "dlq", "stats", "stream", "health"})
"""Paths below /api that are not available as shortcuts to the rows of an entity."""


_MONITOR = 1.0


@dataclass(frozen=True)
class Sources:
    """The data sources of the operations."""

    database: Database
    jetstream: JetStream
    streams: StreamSettings
    schema: Schema
    grammar: Grammar
    entities: Entities
    messages: Messages
    dead_letters: DeadLetterIndex
    overview: Overview
    monitor: str
    """URLs of nats-server's monitoring ports."""


Handler = Callable[[Sources, Mapping[str, str], Any], Awaitable[Struct]]


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One operation. ``handler`` is None if the application handles it, because the response is not JSON."""

    name: str
    path: str
    summary: str
    tag: str
    query: type[Struct] = queries.NoQuery
    answer: type[Struct] | None = None
    handler: Handler | None = None
    path_parameters: Mapping[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    problems: tuple[int, ...] = (400, 401, 503)
    answers: Mapping[int, str] = field(default_factory=lambda: {200: "Success."})
    media_type: str = "application/json"
    open: bool = False


async def _database_health(sources: Sources) -> str:
    async with sources.database.connection() as connection:
        version = await connection.fetchval("SELECT current_setting('server_version')")
        await connection.execute(FILL)  # fails if the disk is full
    return f"PostgreSQL {version} at {sources.database.address}"


async def _nats_health(sources: Sources) -> str:
    nats = sources.jetstream.nats
    await nats.round_trip()
    servers = await read_all(sources.monitor, _MONITOR)
    if servers and all(each.cannot_write for each in servers):
        raise UnavailableError(f"nats-server cannot write: {servers[0].problem}")
    return f"NATS at {nats.address}"


async def _nats_servers_health(sources: Sources) -> str:
    if not sources.monitor:
        return "not checked: NATS_MONITOR_URL is not set"
    found = await read_all(sources.monitor, _MONITOR)
    if problems := [each.problem for each in found if each.problem]:
        raise UnavailableError("; ".join(problems))
    return f"{len(found)} healthy"


async def _health(sources: Sources, _: Mapping[str, str], __: queries.NoQuery) -> answers.Health:
    jetstream, streams = sources.jetstream, sources.streams

    async def check(name: str, probe: Callable[[], Awaitable[str]]) -> answers.Dependency:
        begun = asyncio.get_running_loop().time()
        try:
            detail = await probe()
        except (UnavailableError, RequestError) as error:
            return answers.Dependency(name, ok=False, detail=str(error))
        return answers.Dependency(name, ok=True, detail=detail, seconds=asyncio.get_running_loop().time() - begun)

    async def tables() -> str:
        await sources.messages.newest(1)
        found = await sources.entities.reports()
        return f"message_status and {len(found)} tables of schema {sources.schema.name}"

    async def stream(name: str) -> str:
        info = await jetstream.stream(name)
        return f"{info.state.messages:,} messages, {info.state.bytes:,} bytes"

    async def consumer() -> str:
        info = await jetstream.consumer(streams.stream, streams.consumer)
        if info.paused:
            raise UnavailableError("paused: no messages are processed")
        return f"{info.num_pending:,} pending, {info.num_ack_pending:,} in progress"

    async def workers() -> str:
        snapshot = sources.overview.last
        connected = snapshot.workers.connected if snapshot and snapshot.workers else None
        lag = snapshot.lag.total if snapshot and snapshot.lag else 0
        if connected is None:
            raise UnavailableError("unknown while PostgreSQL is unavailable")
        if connected == 0 and lag:
            raise UnavailableError(f"no workers connected, {lag:,} messages pending")
        return f"{connected} connected" if connected else "none connected, none needed: no messages are pending"

    found = await asyncio.gather(
        check("PostgreSQL", lambda: _database_health(sources)),
        check("tables", tables),
        check("NATS", lambda: _nats_health(sources)),
        check("NATS servers", lambda: _nats_servers_health(sources)),
        check(f"stream {streams.stream}", lambda: stream(streams.stream)),
        check(f"stream {streams.dead_stream}", lambda: stream(streams.dead_stream)),
        check(f"consumer {streams.consumer}", consumer),
        check("workers", workers),
    )
    down = any(not each.ok for each in found if each.name in ("PostgreSQL", "NATS"))
    return answers.Health("down" if down else "ok" if all(each.ok for each in found) else "degraded", list(found))


async def _stats(sources: Sources, _: Mapping[str, str], query: queries.StatsQuery) -> answers.Stats:
    return sources.overview.stats(query.window)


async def _account(sources: Sources, _: Mapping[str, str], query: queries.AccountQuery) -> answers.Account:
    found = await read_account(sources.database, sources.jetstream, sources.streams, query.since, query.until)
    return msgspec.convert(found, answers.Account, from_attributes=True)


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
        raise UnavailableError("NATS is unavailable: dead letters are stored in a stream")
    # Dead letters counted in the snapshot must be listed too.
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
        raise InvalidQueryError(f"sequence: expected an integer, 1 or greater; found {digits[:60]!r}")
    message = await sources.jetstream.peek(sources.streams.dead_stream, int(digits))
    if message is None:
        raise NotFoundError(f"no dead letter {digits}: it was replayed or deleted, or never existed")
    problems: Sequence[Problem] = ()
    is_text = True
    try:
        sources.grammar.parse(message.payload.decode())
    except UnicodeDecodeError:
        is_text = False
    except RecordError as error:
        problems = error.problems
    payload = text(message.payload)
    return answers.DeadLetterDetail(
        shown_dead_letter(read_dead_letter(message)),
        payload,
        text=is_text,
        lines=[payload_line(each) for each in lay_out(payload, sources.schema, problems)],
        problems=[answers.FieldProblem(*each) for each in problems],
    )


def payload_line(row: Row) -> answers.PayloadLine:
    """The line with its fields as they stand there: joined by bars they are the line again."""
    fields = [
        answers.PayloadField(row.text[each.start : each.end], each.field, each.problem and each.problem.expected)
        for each in row.cells
    ]
    if row.cells[-1].end < len(row.text):
        fields.append(answers.PayloadField("", None, None))  # after the bar that may end a line
    return answers.PayloadLine(row.number, fields)


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
        summary="Liveness of the process",
        tag="service",
        answer=answers.Alive,
        problems=(400,),
        open=True,
    ),
    Operation(
        name="getReady",
        path="/ready",
        summary="Readiness: 503 while the process is shutting down",
        tag="service",
        answer=answers.Alive,
        problems=(400, 503),
        open=True,
    ),
    Operation(
        name="getMetrics",
        path="/metrics",
        summary="Metrics in the Prometheus text format",
        tag="service",
        media_type="text/plain",
        problems=(400,),
        open=True,
    ),
    Operation(
        name="getHealth",
        path="/api/health",
        summary="The health of each dependency",
        tag="service",
        answer=answers.Health,
        handler=_health,
        answers={200: "PostgreSQL and NATS are available.", 503: "PostgreSQL or NATS is unavailable."},
        problems=(400, 401),
    ),
    Operation(
        name="getStats",
        path="/api/stats",
        summary="Counts, rates, lag, workers and latency: current values and time series",
        tag="overview",
        query=queries.StatsQuery,
        answer=answers.Stats,
        handler=_stats,
    ),
    Operation(
        name="getAccount",
        path="/api/account",
        summary="What became of every accepted message, and which are unexplained",
        tag="overview",
        query=queries.AccountQuery,
        answer=answers.Account,
        handler=_account,
    ),
    Operation(
        name="getStream",
        path="/api/stream",
        summary="Current values as server-sent events named `snapshot`, with a Snapshot as data",
        tag="overview",
        media_type="text/event-stream",
        problems=(400, 401),
    ),
    Operation(
        name="getEntities",
        path="/api/entities",
        summary="The entities of the schema, with row counts",
        tag="entities",
        answer=answers.EntityList,
        handler=_entities,
    ),
    _row_operation("getRows", "/api/entities/{name}", "Rows of one entity"),
    Operation(
        name="getMessages",
        path="/api/messages",
        summary="Messages, newest first",
        tag="messages",
        query=queries.MessagesQuery,
        answer=answers.MessageList,
        handler=_messages,
    ),
    Operation(
        name="getMessage",
        path="/api/messages/{id}",
        summary="One message: status, timeline and the rows it wrote",
        tag="messages",
        answer=answers.MessageDetail,
        handler=_message,
        path_parameters={"id": {"type": "string", "format": "uuid"}},
        problems=(400, 401, 404, 503),
    ),
    Operation(
        name="getDeadLetters",
        path="/api/dlq",
        summary="Dead letters, newest first, and grouped by reason and entity",
        tag="dead letters",
        query=queries.DeadLettersQuery,
        answer=answers.DeadLetterList,
        handler=_dead_letters,
    ),
    Operation(
        name="getDeadLetter",
        path="/api/dlq/{sequence}",
        summary="One dead letter, with its payload and schema violations",
        tag="dead letters",
        answer=answers.DeadLetterDetail,
        handler=_dead_letter,
        path_parameters={"sequence": {"type": "integer", "minimum": 1, "maximum": 2**63 - 1}},
        problems=(400, 401, 404, 503),
    ),
)
"""The operations of every deployment, whatever its schema."""


def entity_operations(schema: Schema) -> tuple[Operation, ...]:
    """Operations that list the rows of each entity under its own name, such as /api/orders."""
    return tuple(
        _row_operation(f"get_{each.name}", f"/api/{each.name}", f"Rows of {each.title}", each.name)
        for each in schema
        if each.name not in RESERVED
    )
