"""End to end: from the batch request to the last committed row, and the latency at a moderate rate."""

from __future__ import annotations

import argparse
import asyncio
import json
import time

import asyncpg

from tests.bench.figures import Report
from tests.bench.harness import Harness, free_port, orders, run, tool

_PERCENTILES = """
SELECT count(*) AS messages,
       percentile_cont(array[0.5, 0.99]) WITHIN GROUP (ORDER BY extract(epoch FROM processed_at - received_at) * 1000)
         AS latency
FROM message_status WHERE status = 'completed' AND received_at >= now() - interval '1 hour'
"""
_DONE = "SELECT count(*) FROM message_status WHERE status = 'completed'"


async def measure(stage: Harness, report: Report, options: argparse.Namespace) -> None:
    """Records/s through API, stream, one worker and database; then the latency from accepted to completed."""
    port, count = free_port(), options.messages
    curl = tool("curl", "apt-get install curl")
    vegeta = tool("vegeta", "go install github.com/tsenart/vegeta/v12@latest")
    file = stage.folder / "orders.txt"
    database = await asyncpg.connect(stage.postgres.url)
    async with (
        stage.running("api", "-m", "nomnom_api", wait_for=port, NOMNOM_API_PORT=str(port), NOMNOM_API_HOST="127.0.0.1"),
        stage.running("worker", "-m", "nomnom_worker", WORKER_HEALTH_PORT=str(free_port())),
    ):
        report.title(f"pipeline: {count:,} records in one batch, one api, one worker, until all are committed")
        speeds: list[float] = []
        for number in range(options.rounds):
            await database.execute("TRUNCATE orders, message_status")
            file.write_text("\n".join(orders(count, first=1 + number * count)))
            started = time.perf_counter()
            request = ["-sS", "--fail", "-XPOST", "-HContent-Type: text/plain", "-T", str(file)]
            answer = json.loads(await run(curl, *request, f"http://127.0.0.1:{port}/api/ingest/batch?ids=none"))
            assert answer["count"] == count, answer
            await _until(database, count)
            speeds.append(count / (time.perf_counter() - started))
        report.compare("pipeline", speeds, {}, "records/s")

        for rate in (100, 1000):
            await database.execute("TRUNCATE orders, message_status")
            targets = stage.folder / "targets"
            url = f"http://127.0.0.1:{port}/api/ingest/message"
            body = stage.folder / "order"
            body.write_text(next(orders(1)))
            targets.write_text(f"POST {url}\nContent-Type: text/plain\n@{body}\n")
            attack = ["attack", f"-rate={rate}", f"-duration={options.seconds * 2:g}s", f"-targets={targets}"]
            await run(vegeta, *attack, f"-output={stage.folder / 'attack.bin'}")
            sent = round(rate * options.seconds * 2)
            await _until(database, sent)
            row = await database.fetchrow(_PERCENTILES)
            assert row is not None
            p50, p99 = row["latency"]
            text = f"{row['messages']:,} messages: p50 {p50:.1f} ms, p99 {p99:.1f} ms"
            report.line(f"pipeline: accepted to completed at {rate}/s", {"p50": p50, "p99": p99}, text)
    await database.close()


async def _until(database: asyncpg.Connection, count: int) -> None:
    async with asyncio.timeout(300):
        while await database.fetchval(_DONE) < count:
            await asyncio.sleep(0.02)
