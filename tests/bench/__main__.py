"""Compares nomnom with ceilings measured on the same machine in the same run: ``python -m tests.bench [PART …]``.

Every part alternates nomnom and its peer for several rounds and prints medians and their ratio, since machines are
shared and their speed drifts. Needs `wrk`, `curl` and `h2load` (of Debian's wrk, curl, nghttp2-client); `vegeta` (a
Go program) for fixed rates.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

from tests.bench import (
    account,
    api,
    bulk,
    dashboard,
    dead_letters,
    durable,
    memory,
    page,
    pipeline,
    screen,
    tables,
    worker,
)
from tests.bench.figures import Report
from tests.bench.harness import Harness

PARTS: dict[str, Callable[[Harness, Report, argparse.Namespace], Awaitable[None]]] = {
    "api": api.measure_messages,
    "rate": api.measure_fixed_rate,
    "clients": api.measure_many_clients,
    "batch": api.measure_batch,
    "worker": worker.measure,
    "pipeline": pipeline.measure,
    "letters": dead_letters.measure,
    "durable": durable.measure,
    "memory": memory.measure,
    "dashboard": dashboard.measure,
    "page": page.measure,
    "screen": screen.measure,
    "tables": tables.measure,
    "account": account.measure,
    "bulk": bulk.measure,
}
_LONG = ("memory", "dashboard", "page", "screen", "tables", "account", "bulk")


async def main() -> None:
    """Run the given parts; by default those that do not take long."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help=f"default: all but {', '.join(_LONG)}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0, help="length of one round of requests")
    parser.add_argument("--messages", type=int, default=60_000, help="messages in one round of a worker")
    parser.add_argument("--rate", type=int, default=10_000, help="requests/s of the fixed-rate part")
    parser.add_argument("--minutes", type=float, default=10.0, help="length of the memory part")
    parser.add_argument("--rows", type=int, default=100_000_000, help="rows of the large table")
    parser.add_argument("--scale", type=float, default=0.1, help="scale factor of the files of TPC-H")
    parser.add_argument("--json", type=Path, help="write all figures here too")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="nomnom-bench-"))
    folder.chmod(0o755)
    report = Report()
    try:
        for name in options.parts or [part for part in PARTS if part not in _LONG]:
            async with Harness(folder / name) as stage:
                await PARTS[name](stage, report, options)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if options.json:
        options.json.write_text(json.dumps(report.figures, indent=2))


asyncio.run(main())
