"""A hundred thousand dead letters: duration of each operation, and how long it blocks the event loop."""

from __future__ import annotations

import argparse
import asyncio
import resource
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from statistics import median, quantiles
from time import perf_counter

from nomnom.envelope import Envelope, Reason, dead_headers, dead_subject, new_message_id
from nomnom.inspection.dead_letters import Filter, GroupBy
from nomnom.schema import load_schema
from nomnom_control.environments import Endpoints
from nomnom_control.session.pipeline import Pipeline
from tests.bench.figures import Report
from tests.bench.harness import Harness, orders

_DEAD_LETTERS = 100_000
_REPLAYED = 20_000
_WINDOW = 2000
_TICK = 0.005


async def measure(stage: Harness, report: Report, _: argparse.Namespace) -> None:
    """A hundred thousand dead letters: first page, scan, pages, filters, groups, dry run, replay, undo, deletion."""
    report.title(f"dead letters: {_DEAD_LETTERS:,}")
    await fill(stage)
    endpoints = Endpoints("http://127.0.0.1:9", stage.nats.url, stage.nats.monitor_url, stage.postgres.url)
    async with Pipeline(endpoints, load_schema("tpch"), spool=stage.folder / "audit") as pipeline:
        await pipeline.overview()
        dead_letters = pipeline.dead_letters
        await _time(report, "first page, nothing scanned", dead_letters.page)
        before = _memory()
        await _time(report, "first scan", dead_letters.scan, per=_DEAD_LETTERS)
        report.line("memory of the scan", _memory() - before, f"{(_memory() - before) / 1024:,.0f} MiB")
        await _time(report, "scan again, nothing new", dead_letters.scan)
        await _pages(report, pipeline)
        await _time(report, "filter by error", lambda: dead_letters.matching(Filter.parse("entity:orders expected 17")))
        await _time(report, "filter by payload", lambda: dead_letters.matching(Filter.parse("payload:Clerk#000000017")))
        pattern = Filter.parse(r"regex:yes 'error:found .*-13-1[0-9]'")
        await _time(report, "filter by expression", lambda: dead_letters.matching(pattern))
        await _time(report, "group by reason", dead_letters.groups)
        await _time(report, "group by kind of error", lambda: dead_letters.groups(GroupBy.ERROR))

        part = list(dead_letters.index.sequences[:_REPLAYED])

        async def dry_run() -> None:
            async for _ in dead_letters.dry_run(part):
                pass

        await _time(report, "dry run", dry_run, per=_REPLAYED)
        replay = await dead_letters.replay(part)
        await _time(report, "replay", replay.finish, per=_REPLAYED)
        await _time(report, "undo", lambda: dead_letters.undo(run=replay.run), per=_REPLAYED)
        part = list(dead_letters.index.sequences[:_REPLAYED])
        await _time(report, "delete", lambda: dead_letters.delete(part, expected_count=len(part)), per=_REPLAYED)
        await _time(report, "scan after a deletion", dead_letters.scan)


async def _pages(report: Report, pipeline: Pipeline) -> None:
    times: list[float] = []
    page = await pipeline.dead_letters.page(limit=50)
    for _ in range(300):
        started = perf_counter()
        page = await pipeline.dead_letters.page(before=page.dead_letters[-1].sequence, limit=50)
        times.append(perf_counter() - started)
    p99 = quantiles(times, n=100)[98]
    report.line("page of 50", times, f"{median(times) * 1000:.1f} ms (99th percentile {p99 * 1000:.1f} ms)")


async def _time(report: Report, name: str, work: Callable[[], Awaitable[object]], per: int = 0) -> None:
    async with _ticking() as gaps:
        started = perf_counter()
        await work()
        seconds = perf_counter() - started
    rate = f", {per / seconds:,.0f} letters/s" if per else ""
    worst, late = max(gaps, default=0.0), quantiles(gaps, n=100)[98] if len(gaps) > 10 else max(gaps, default=0.0)
    still = f"event loop late by at most {worst * 1000:.0f} ms, {late * 1000:.0f} ms at the 99th percentile"
    report.line(name, [seconds, late], f"{seconds * 1000:,.0f} ms{rate}; {still}")


@asynccontextmanager
async def _ticking() -> AsyncIterator[list[float]]:
    """Measures the delay of the event loop continuously."""
    gaps: list[float] = []

    async def tick() -> None:
        while True:
            started = perf_counter()
            await asyncio.sleep(_TICK)
            gaps.append(perf_counter() - started - _TICK)

    task = asyncio.create_task(tick())
    await asyncio.sleep(2 * _TICK)
    gaps.clear()
    try:
        yield gaps
        await asyncio.sleep(2 * _TICK)  # include the tick that is late now
    finally:
        task.cancel()


def _memory() -> int:
    """The peak memory of this process in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


async def fill(stage: Harness, dead_letters: int = _DEAD_LETTERS) -> None:
    """Publish ``count`` dead letters like workers."""
    now = datetime.now(UTC)
    waiting: list[Awaitable[object]] = []
    for number, payload in enumerate(orders(dead_letters)):
        bad = payload.replace("-", "-13-", 1)
        error = f"line 1, field o_orderdate (5): expected a date as YYYY-MM-DD, found '{bad.split('|')[5]}'"
        envelope = Envelope(new_message_id(), "customer" if number % 10 == 0 else "orders", now)
        headers = dead_headers(envelope, Reason.DATA if number % 7 == 0 else Reason.RECORD, error, 3, now)
        subject = dead_subject(envelope.entity, envelope.message_id)
        waiting.append(await stage.jetstream.publish_async(subject, bad.encode(), headers=headers))
        if len(waiting) == _WINDOW:
            await asyncio.gather(*waiting)
            waiting.clear()
    await asyncio.gather(*waiting)
