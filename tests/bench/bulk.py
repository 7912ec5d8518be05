"""All eight tables of TPC-H by ``nomnom ingest`` into the pipeline of ``nomnom up``, and by psql's ``\\copy``."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import psutil

from nomnom.schema import Entity, load_schema
from nomnom.tables import Table, quote
from nomnom_control.environments.local.processes import ChildProcess
from tests.bench.figures import Report
from tests.bench.harness import Harness, free_port, run, tool

_LAST = "SELECT l_orderkey FROM lineitem LIMIT 1"
"""A row of the last file."""
_DONE = "SELECT count(*) FROM message_status WHERE status = 'completed'"
_PEER = "peer"
"""The schema with the tables of the peer."""


async def measure(stage: Harness, report: Report, options: argparse.Namespace) -> None:
    """Seconds until all records of the files are committed, v. \\copy of them; rows that differ; processes."""
    entities = list(load_schema("tpch"))
    folder = stage.folder / "tpch"
    await run(_program("tpchgen-cli"), "-s", str(options.scale), "--output-dir", str(folder))
    files = {each: folder / f"{each.name}.tbl" for each in entities}
    lines = {each: _prepare(path) for each, path in files.items()}
    total = sum(lines.values())
    ours: list[float] = []
    theirs: list[float] = []
    for number in range(options.rounds):
        home = stage.folder / f"home-{number}"
        command = [_program("nomnom"), "up", "--dir", str(home), "--min", "1", "--max", "2"]
        ports = ["--api-port", "--dashboard-port", "--nats-port", "--postgres-port"]
        given = [text for name in ports for text in (name, str(free_port()))]
        pipeline = ChildProcess("nomnom", [*command, *given], stage.folder / f"nomnom-{number}.log", {})
        await pipeline.start()
        try:
            url = await _database_url(pipeline)
            if not number:
                report.title(f"bulk: {total:,} records of eight tables, fsynced; 1 to 2 workers")
            database = await asyncpg.connect(url)
            theirs.append(await _copy(database, url, files))
            before = _processes(pipeline)
            started = time.perf_counter()
            for each, path in files.items():
                await run(_program("nomnom"), "ingest", "--dir", str(home), "--entity", each.name, str(path))
            accepted = time.perf_counter() - started
            async with asyncio.timeout(3600):
                while await database.fetchval(_LAST) is None or await _lag(home):
                    await asyncio.sleep(0.5)
            ours.append(time.perf_counter() - started)
            assert await database.fetchval(_DONE) == total
            after = _processes(pipeline)
            differing = {each.name: await _differing(database, each) for each in entities}
            print(f"  round {number + 1}: accepted in {accepted:.1f} s, committed in {ours[-1]:.1f} s; "
                  f"\\copy {theirs[-1]:.1f} s; rows that differ: {sum(differing.values())}", flush=True)  # fmt: skip
            if any(differing.values()):
                raise RuntimeError(f"rows differ: {differing}")
            _report(report, before, after, total)
            await database.close()
        finally:
            await pipeline.stop(60)
    report.compare("bulk", ours, {"copy": theirs}, "s")


def _program(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


def _prepare(path: Path) -> int:
    """Write a copy without trailing separators, which \\copy does not accept; returns the number of lines."""
    text = path.read_text()
    path.with_suffix(".csv").write_text(text.replace("|\n", "\n"))
    return text.count("\n")


async def _database_url(root: ChildProcess) -> str:
    """What the workers connect to, once they run."""
    async with asyncio.timeout(120):
        while True:
            for each in psutil.Process(root.pid).children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    if _component(each) == "worker":
                        return each.environ()["DATABASE_URL"]
            if root.exit_code is not None:
                raise root.failure()
            await asyncio.sleep(0.2)


async def _lag(home: Path) -> int:
    status = json.loads(await run(_program("nomnom"), "status", "--dir", str(home), "--json"))
    return int(status["lag"])


async def _copy(database: asyncpg.Connection, url: str, files: dict[Entity, Path]) -> float:
    """Seconds of \\copy into tables with the same columns and primary keys."""
    await database.execute(f"DROP SCHEMA IF EXISTS {_PEER} CASCADE; CREATE SCHEMA {_PEER}")
    commands: list[str] = []
    for entity, path in files.items():
        table = Table(entity)
        columns = ", ".join(f"{quote(each.name)} {table.column_type(each)}" for each in entity.fields)
        key = "UNIQUE" if entity.keyless_allowed else "PRIMARY KEY"
        await database.execute(f"CREATE TABLE {_PEER}.{table.name} ({columns}, {key} ({table.key}))")
        commands += ["-c", f"\\copy {_PEER}.{table.name} FROM '{path.with_suffix('.csv')}' WITH (DELIMITER '|')"]
    started = time.perf_counter()
    await run(tool("psql", "apt-get install postgresql-client"), url, "-v", "ON_ERROR_STOP=1", *commands)
    return time.perf_counter() - started


async def _differing(database: asyncpg.Connection, entity: Entity) -> int:
    """Rows that only one of the two has."""
    columns = ", ".join(quote(each.name) for each in entity.fields)
    ours, theirs = (f"SELECT {columns} FROM {each}{quote(entity.table)}" for each in ("", f"{_PEER}."))
    found = await database.fetchval(
        f"SELECT count(*) FROM (({ours} EXCEPT ALL {theirs}) UNION ALL ({theirs} EXCEPT ALL {ours})) AS differing"
    )
    return int(str(found))


@dataclass
class _Usage:
    seconds: float = 0.0
    resident: int = 0


def _processes(root: ChildProcess) -> dict[str, _Usage]:
    """Processor seconds and resident bytes of the descendants of a process, by component."""
    found: defaultdict[str, _Usage] = defaultdict(_Usage)
    for each in psutil.Process(root.pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess), each.oneshot():
            usage, times = found[_component(each)], each.cpu_times()
            usage.seconds += times.user + times.system
            usage.resident += each.memory_info().rss
    return found


def _component(process: psutil.Process) -> str:
    command = " ".join(process.cmdline())
    for name in ("nats-server", "nomnom_api", "nomnom_worker", "nomnom_dashboard", "nomnom_housekeeper"):
        if name in command:
            return name.removeprefix("nomnom_")
    return "postgres" if "postgres" in command else "supervisor"


def _report(report: Report, before: dict[str, _Usage], after: dict[str, _Usage], total: int) -> None:
    for name, usage in sorted(after.items()):
        seconds = (usage.seconds - before.get(name, _Usage()).seconds) / total * 1e6
        figures = {"seconds_per_million": seconds, "resident": usage.resident}
        text = f"{seconds:.1f} s of processor time per million records, {usage.resident / 2**20:.0f} MiB resident"
        report.line(f"bulk: {name}", figures, text)
