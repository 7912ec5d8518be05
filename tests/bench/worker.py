"""Compares one worker process with bare loops over the same stream and tables."""

from __future__ import annotations

import argparse
import asyncio
import time

import asyncpg

from nomnom.grammar import Grammar
from nomnom.schema import load_schema
from tests.bench.figures import Report
from tests.bench.harness import Harness, free_port, orders

_BATCH = 500
_POLL = 0.01


async def measure(stage: Harness, report: Report, options: argparse.Namespace) -> None:
    """Messages/s from the first delivery to the last ack, for the worker and each ceiling."""
    count = options.messages
    report.title(f"worker: {count:,} orders, one process each, {options.rounds} rounds; bare loops at batch {_BATCH}")
    payloads = [line.encode() for line in orders(count)]
    database = await asyncpg.connect(stage.postgres.url)
    speeds: dict[str, list[float]] = {"worker": [], "bare loop": [], "fetch and ack alone": [], "raw COPY": []}
    for _ in range(options.rounds):
        await _fresh(stage, database, payloads)
        async with stage.running(
            "worker", "-m", "nomnom_worker", WORKER_HEALTH_PORT=str(free_port()), WORKER_HEALTH_HOST="127.0.0.1"
        ):
            speeds["worker"].append(await _drained(stage, count))
        written = await database.fetchval("SELECT count(*) FROM orders")
        statuses = await database.fetchval("SELECT count(*) FROM message_status WHERE status = 'completed'")
        assert (written, statuses) == (count, count), (written, statuses)
        for name, loop in (("bare loop", "write"), ("fetch and ack alone", "fetch")):
            await _fresh(stage, database, payloads)
            async with stage.running(loop, "-m", "tests.bench.loops", loop, str(count), str(_BATCH)):
                speeds[name].append(await _drained(stage, count))
        await database.execute("TRUNCATE orders, message_status")
        speeds["raw COPY"].append(await _copy(database, count))
    await database.close()
    report.compare("worker", speeds.pop("worker"), speeds, "messages/s")


async def _fresh(stage: Harness, database: asyncpg.Connection, payloads: list[bytes]) -> None:
    await database.execute("TRUNCATE orders, message_status")
    await database.execute("CHECKPOINT")
    await stage.fill(payloads)


async def _drained(stage: Harness, count: int) -> float:
    """Messages/s between the first delivery and the time when nothing is pending or unacknowledged."""
    started = None
    async with asyncio.timeout(300):
        while True:
            info = await stage.jetstream.consumer_info("MESSAGES", "workers")
            left = (info.num_pending or 0) + (info.num_ack_pending or 0)
            if started is None and (info.num_ack_pending or left < count):
                started = time.perf_counter()
                first = count - left
            if left == 0 and started is not None:
                return (count - first) / (time.perf_counter() - started)
            await asyncio.sleep(_POLL)


async def _copy(database: asyncpg.Connection, count: int) -> float:
    schema = load_schema("tpch")
    grammar = Grammar(schema)
    columns = [each.name for each in schema.entity("orders").fields]
    rows = [tuple(grammar.parse(line)[0].mapping().values()) for line in orders(count)]
    await database.execute("ALTER TABLE orders ALTER received_at SET DEFAULT now()")
    await database.execute("ALTER TABLE orders ALTER message_id SET DEFAULT gen_random_uuid()")
    started = time.perf_counter()
    for start in range(0, count, _BATCH):
        await database.copy_records_to_table("orders", records=rows[start : start + _BATCH], columns=columns)
    return count / (time.perf_counter() - started)
