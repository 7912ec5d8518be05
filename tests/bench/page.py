"""The page at ten updates per second under load: late frames and CPU time."""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Iterator
from statistics import median, quantiles

from nomnom.envelope import headers, ingest_subject, new_message_id
from tests.bench.figures import Report
from tests.bench.harness import Harness, free_port, orders
from tests.browser_harness import DESK, build, chromium, window

_RATE = 500
_SECONDS = 20
_WATCH = """
seconds => new Promise(done => {
  const frames = [], tasks = [];
  new PerformanceObserver(list => tasks.push(...list.getEntries().map(each => each.duration)))
    .observe({ type: "longtask" });
  const end = performance.now() + seconds * 1000;
  let last = performance.now();
  const next = now => {
    frames.push(now - last);
    last = now;
    if (now < end) requestAnimationFrame(next); else done({ frames: frames.slice(5), tasks });
  };
  requestAnimationFrame(next);
})
"""


async def measure(stage: Harness, report: Report, _: argparse.Namespace) -> None:
    """Measure long tasks (50 ms or more), frame times (target: 16.7 ms) and CPU usage."""
    report.title(f"page: ten updates a second for {_SECONDS} s, {_RATE} messages/s through one worker")
    port, folder = free_port(), build()
    async with (
        stage.running("worker", "-m", "nomnom_worker", WORKER_HEALTH_PORT=str(free_port())),
        stage.running(
            "dashboard",
            "-m",
            "nomnom_dashboard",
            wait_for=port,
            NOMNOM_DASHBOARD_PORT=str(port),
            NOMNOM_DASHBOARD_HOST="127.0.0.1",
            NOMNOM_DASHBOARD_INTERVAL_MS="100",
            NOMNOM_DASHBOARD_PAGE=str(folder),
        ),
        chromium() as browser,
        window(browser, **DESK) as page,
    ):
        load = asyncio.create_task(_post(stage, orders(_RATE * (_SECONDS + 10))))
        await page.goto(f"http://127.0.0.1:{port}")
        await asyncio.sleep(5)
        session = await page.context.new_cdp_session(page)
        await session.send("Performance.enable")
        before = await _busy(session)
        found = await page.evaluate(_WATCH, _SECONDS)
        busy = (await _busy(session) - before) / _SECONDS
        load.cancel()
        await asyncio.gather(load, return_exceptions=True)
    frames: list[float] = found["frames"]
    report.line("page: frames", frames, f"median {median(frames):.1f} ms, p99 {quantiles(frames, n=100)[98]:.1f} ms")
    report.line("page: long tasks", found["tasks"], f"{len(found['tasks'])} of 50 ms or more")
    report.line("page: busy", busy, f"{busy * 100:.1f} % of a core in the page's own thread")


async def _busy(session: object) -> float:
    metrics = await session.send("Performance.getMetrics")  # type: ignore[attr-defined]
    return next(each["value"] for each in metrics["metrics"] if each["name"] == "TaskDuration")


async def _post(stage: Harness, records: Iterator[str]) -> None:
    begun = time.monotonic()
    for sent, record in enumerate(records):
        message_id = new_message_id()
        await stage.jetstream.publish_async(
            ingest_subject("orders", message_id), record.encode(), headers=headers(time.time_ns() // 1000)
        )
        if (early := begun + sent / _RATE - time.monotonic()) > 0:
            await asyncio.sleep(early)
