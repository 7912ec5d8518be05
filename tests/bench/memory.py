"""Memory under a steady load: resident size of api and worker, sampled over minutes."""

from __future__ import annotations

import argparse
import asyncio
from statistics import median

import psutil

from tests.bench.figures import Report
from tests.bench.harness import Harness, free_port, orders, run, tool

_RATE = 2000
_SAMPLE = 5.0


async def measure(stage: Harness, report: Report, options: argparse.Namespace) -> None:
    """Memory is stable if the medians of the second and the last fifth are equal within noise."""
    vegeta = tool("vegeta", "go install github.com/tsenart/vegeta/v12@latest")
    seconds = options.minutes * 60
    report.title(f"memory: {_RATE:,} messages/s for {options.minutes:g} minutes")
    port = free_port()
    body, targets = stage.folder / "order", stage.folder / "targets"
    body.write_text(next(orders(1)))
    targets.write_text(f"POST http://127.0.0.1:{port}/api/ingest/message\nContent-Type: text/plain\n@{body}\n")
    async with (
        stage.running(
            "api", "-m", "nomnom_api", wait_for=port, NOMNOM_API_PORT=str(port), NOMNOM_API_HOST="127.0.0.1"
        ) as api,
        stage.running("worker", "-m", "nomnom_worker", WORKER_HEALTH_PORT=str(free_port())) as worker,
    ):
        processes = {"api": psutil.Process(api.pid), "worker": psutil.Process(worker.pid)}
        sizes: dict[str, list[float]] = {name: [] for name in processes}
        attack = ["attack", f"-rate={_RATE}", f"-duration={seconds:g}s", f"-targets={targets}", "-max-workers=64"]
        load = asyncio.create_task(run(vegeta, *attack, "-output=/dev/null"))
        while not load.done():
            for name, process in processes.items():
                sizes[name].append(process.memory_info().rss / 2**20)
            await asyncio.wait([load], timeout=_SAMPLE)
        await load
    for name, series in sizes.items():
        fifth = max(1, len(series) // 5)
        early, late = median(series[fifth : 2 * fifth] or series), median(series[-fifth:])
        text = f"{early:.1f} MiB in the second fifth, {late:.1f} MiB in the last, at most {max(series):.1f} MiB"
        report.line(f"memory: {name}", series, text)
