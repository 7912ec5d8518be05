"""Latency of every dashboard request at ten thousand and at ten million rows, and the ratio."""

from __future__ import annotations

import argparse
import asyncio
import time
from statistics import median, quantiles
from typing import Any

import asyncpg
import httpx

from tests.bench.figures import Report
from tests.bench.harness import Harness, free_port

SMALL, LARGE = 10_000, 10_000_000
_REPEATS = 60
_FILL = """
INSERT INTO message_status (message_id, entity_type, status, received_at, processed_at, retry_count, error_message)
SELECT ('0198c9bb' || lpad(to_hex(n), 24, '0'))::uuid,
       CASE WHEN n % 1000003 = 7 THEN 'region' ELSE 'orders' END,
       CASE WHEN n % 100 = 0 THEN 'dlq' WHEN n % 1000 = 1 THEN 'failed' ELSE 'completed' END,
       at, at + interval '20 ms' * (1 + n % 97), 0,
       CASE WHEN n % 100 = 0 THEN 'line 1, field o_totalprice (4): expected a decimal number, found ''x''' END
FROM generate_series($1::bigint, $2::bigint) AS n,
     LATERAL (SELECT $3::timestamptz - interval '24 hours' * (1 - n / $4::float8)) AS moment (at)
"""
_FILL_ORDERS = """
INSERT INTO orders
SELECT n, n % 150000, 'O', n % 500000, date '1992-01-01' + (n % 2400)::int, '3-MEDIUM', 'Clerk#' || n % 1000, 0,
       'carefully final deposits sleep furiously', $3::timestamptz - interval '24 hours' * (1 - n / $4::float8),
       ('0198c9bb' || lpad(to_hex(n), 24, '0'))::uuid
FROM generate_series($1::bigint, $2::bigint) AS n
"""
_STEP = 250_000


async def measure(stage: Harness, report: Report, options: argparse.Namespace) -> None:
    """Send the same requests to a small and a large database; the ratio is that of the medians."""
    found: dict[int, dict[str, float]] = {}
    for rows in (SMALL, LARGE):
        report.title(f"dashboard: {rows:,} messages and {rows:,} orders, the last a moment ago")
        await _fill(stage.postgres.url, rows)
        found[rows] = await _ask(stage, report, rows)
    report.title(f"dashboard: median at {LARGE:,} rows / median at {SMALL:,} rows")
    for path, seconds in found[LARGE].items():
        ratio = seconds / found[SMALL][path]
        report.line(f"dashboard ratio: {path}", ratio, f"{ratio:.2f}")


async def _fill(url: str, rows: int) -> None:
    connection: Any = await asyncpg.connect(url)
    try:
        await connection.execute("TRUNCATE message_status, orders")
        now = await connection.fetchval("SELECT now()")
        for begin in range(1, rows + 1, _STEP):
            end = min(begin + _STEP - 1, rows)
            await connection.execute(_FILL, begin, end, now, float(rows))
            await connection.execute(_FILL_ORDERS, begin, end, now, float(rows))
        # The state after autovacuum of a table with continuous writes.
        await connection.execute("VACUUM ANALYZE message_status")
        await connection.execute("VACUUM ANALYZE orders")
    finally:
        await connection.close()


async def _ask(stage: Harness, report: Report, rows: int) -> dict[str, float]:
    port = free_port()
    message = f"0198c9bb-0000-0000-0000-{rows // 2:012x}"
    paths = {
        "stats, 5 minutes": "/api/stats",
        "stats, 24 hours": "/api/stats?window=24h",
        "entities": "/api/entities",
        "orders by key": "/api/orders?limit=100",
        "orders by key, last": "/api/orders?limit=100&sort=-o_orderkey",
        "orders of one key": f"/api/orders?filter=o_orderkey:eq:{rows // 2}",
        "orders by a column without index": "/api/orders?filter=o_totalprice:eq:77",
        "messages": "/api/messages?limit=100",
        "messages failed": "/api/messages?limit=100&status=failed",
        "messages dead": "/api/messages?limit=100&status=dlq",
        "messages of an hour ago": f"/api/messages?limit=100&until={_ago(3600)}",
        "messages of a rare entity": "/api/messages?limit=10&entity=region",
        "message by id prefix": f"/api/messages?id={message[:36]}",
        "one message with its rows": f"/api/messages/{message}",
    }
    found: dict[str, float] = {}
    async with (
        stage.running(
            f"dashboard-{rows}",
            "-m",
            "nomnom_dashboard",
            wait_for=port,
            NOMNOM_DASHBOARD_PORT=str(port),
            NOMNOM_DASHBOARD_HOST="127.0.0.1",
        ),
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as client,
    ):
        begun = time.perf_counter()
        while (await client.get("/api/stats")).json().get("counts") is None:
            await asyncio.sleep(0.05)
        first = time.perf_counter() - begun
        report.line(f"dashboard {rows}: first counts", first, f"{first * 1000:.0f} ms after the start")
        await asyncio.sleep(8)
        for name, path in paths.items():
            taken: list[float] = []
            for _ in range(_REPEATS):
                begun = time.perf_counter()
                answer = await client.get(path)
                taken.append(time.perf_counter() - begun)
                if answer.status_code != 200:
                    raise RuntimeError(f"{path}: {answer.status_code} {answer.text}")
            found[name] = median(taken)
            high = quantiles(taken, n=100)[98]
            report.line(
                f"dashboard {rows}: {name}", taken, f"median {found[name] * 1000:.2f} ms, p99 {high * 1000:.2f} ms"
            )
    return found


def _ago(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - seconds))
