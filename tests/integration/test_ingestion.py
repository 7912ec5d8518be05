"""Ingest files with ``nomnom ingest``: resume, repeat, partial rejection; each line becomes exactly one message."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from program_harness import Program, started, until

from conftest import ORDER
from nomnom.schema import load_schema
from nomnom_cli.exit_codes import Exit
from nomnom_control.environments.local.environment import LocalEnvironment
from nomnom_control.sending.files import Sending


def order(key: int) -> str:
    return ORDER.replace("O|123|", f"O|{key}|")


@pytest.fixture(scope="module")
def nomnom() -> Iterator[Program]:
    # No power is cut here, and a single nats-server empties its stream several times as fast.
    variables = {"NOMNOM_NATS_SYNC_INTERVAL": "2m"}
    with started("ingestion", "--min", "1", "--max", "1", variables=variables) as program:
        yield program


def query(nomnom: Program, statement: str, *arguments: object) -> Any:
    async def fetch() -> Any:
        ends = await LocalEnvironment(nomnom.folder).endpoints()
        connection = await asyncpg.connect(ends.database)
        try:
            return await connection.fetchval(statement, *arguments)
        finally:
            await connection.close()

    with asyncio.Runner() as runner:
        return runner.run(fetch())


def stored(nomnom: Program) -> int:
    """The number of messages ever accepted."""
    return nomnom.read("account")["accepted"]


def written(nomnom: Program, first: int, count: int) -> bool:
    """Wait until the orders are written and nothing is pending; whether each has its own message."""
    between = "FROM orders WHERE o_orderkey BETWEEN $1 AND $2"
    until(lambda: query(nomnom, f"SELECT count(*) {between}", first, first + count - 1) == count, 90)
    until(lambda: nomnom.read("status")["lag"] == 0)
    return query(nomnom, f"SELECT count(DISTINCT message_id) {between}", first, first + count - 1) == count


def start(nomnom: Program, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "nomnom_cli.program", "ingest", *arguments],
        env=nomnom.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def offsets(nomnom: Program) -> set[str]:
    return {each.read_text() for each in (nomnom.folder / "ingestion").glob("*.json")}


def await_chunk(nomnom: Program, running: subprocess.Popen[str], seen: set[str]) -> None:
    """Wait until one more chunk of lines is acknowledged."""
    deadline = time.monotonic() + 30
    while offsets(nomnom) == seen and running.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_killed_ingestion_is_resumed(nomnom: Program, tmp_path: Path) -> None:
    """Kills happen between or within chunks; each line still becomes exactly one message."""
    file, first, count = tmp_path / "big.tbl", 100_000, 90_000
    with file.open("w") as target:
        target.writelines(f"{order(key).removeprefix('O|')}|\n" for key in range(first, first + count))
    before = stored(nomnom)
    for _ in range(2):
        seen = offsets(nomnom)
        running = start(nomnom, str(file), "--entity", "O")
        await_chunk(nomnom, running, seen)
        running.send_signal(signal.SIGKILL)
        running.communicate(timeout=10)
        assert running.returncode == -signal.SIGKILL
    last = nomnom.read("ingest", str(file), "--entity", "O")
    assert last["resumed"]
    assert last["lines"] == count
    assert last["accepted"] < count
    # Repeated chunks are deduplicated by JetStream.
    assert stored(nomnom) == before + count
    assert written(nomnom, first, count)
    assert "already sent completely" in nomnom("ingest", str(file), "--entity", "O")


def test_interrupted_ingestion_says_how_to_resume(nomnom: Program, tmp_path: Path) -> None:
    # Two and a half chunks: the rest after the first one takes long enough to be interrupted.
    file, first, count = tmp_path / "interrupted", 500_000, 90_000
    file.write_text("\n".join(order(key) for key in range(first, first + count)))
    running = start(nomnom, str(file))
    await_chunk(nomnom, running, offsets(nomnom))
    running.send_signal(signal.SIGINT)
    _, problems = running.communicate(timeout=30)
    assert running.returncode == Exit.INTERRUPTED
    assert "run the same command to resume" in problems
    assert "Traceback" not in problems
    nomnom("ingest", str(file))
    assert written(nomnom, first, count)


@pytest.mark.parametrize(("part", "first"), [("nomnom_api", 300_000), ("nats-server", 400_000)])
def test_ingestion_survives_killed_servers(nomnom: Program, tmp_path: Path, part: str, first: int) -> None:
    file, count = tmp_path / "file", 45_000
    file.write_text("\n".join(order(key) for key in range(first, first + count)))
    before, seen = stored(nomnom), offsets(nomnom)
    running = start(nomnom, str(file), "--json")
    await_chunk(nomnom, running, seen)
    [server] = [each for each in nomnom.processes() if any(part in word for word in each.cmdline()[:3])]
    os.kill(server.pid, signal.SIGKILL)
    output, problems = running.communicate(timeout=90)
    assert running.returncode == 0, problems
    assert json.loads(output)["accepted"] == count
    assert stored(nomnom) == before + count
    assert written(nomnom, first, count)


def test_rejected_lines_are_reported_and_saved(nomnom: Program, tmp_path: Path) -> None:
    file, rejects = tmp_path / "mixed", tmp_path / "rejects"
    long = order(9300).replace("comment", "x" * 1_100_000)
    file.write_bytes("\n".join([order(9301), "", long, order(9302)]).encode() + b"\nO|\xff\n")
    sent = nomnom.read("ingest", str(file), "--rejects", str(rejects), code=Exit.PARTLY)
    assert (sent["accepted"], sent["refused"], sent["lines"]) == (2, 2, 5)
    assert [(each["line"], each["last_line"]) for each in sent["refusals"]] == [(3, 3), (5, 5)]
    assert rejects.read_bytes() == f"{long}\n".encode() + b"O|\xff\n"
    output = nomnom("ingest", str(file), "--restart", code=Exit.PARTLY)
    assert f"{file}:5: the line is not UTF-8" in output
    assert "2 duplicates" in output


def test_lines_that_the_api_did_not_read_are_sent_again(nomnom: Program, tmp_path: Path) -> None:
    """The API stops reading a batch with too many faults; the records after them are sent in another batch."""
    file, rejects, faults = tmp_path / "faulty", tmp_path / "rejects", 10_500
    file.write_bytes(b"\xff\n" * faults + f"{order(9310)}\n{order(9311)}\n".encode())
    before = stored(nomnom)
    sent = nomnom.read("ingest", str(file), "--rejects", str(rejects), code=Exit.PARTLY)
    assert (sent["accepted"], sent["refused"], sent["lines"]) == (2, faults, faults + 2)
    assert rejects.read_bytes() == b"\xff\n" * faults
    assert stored(nomnom) == before + 2


def test_chunks_respect_the_limit_of_the_api(nomnom: Program, tmp_path: Path) -> None:
    file, first, count = tmp_path / "limited", 600_000, 3_000
    file.write_text("\n".join(order(key) for key in range(first, first + count)))
    nomnom("config", "api", "NOMNOM_API_BATCH_MAX_BODY=65536")
    try:
        sent = nomnom.read("ingest", str(file))
    finally:
        nomnom("config", "api", "NOMNOM_API_BATCH_MAX_BODY=")
    assert (sent["accepted"], sent["duplicates"], sent["refused"]) == (count, 0, 0)
    assert written(nomnom, first, count)


def test_compressed_files_and_standard_input(nomnom: Program, tmp_path: Path) -> None:
    file = tmp_path / "orders.gz"
    with gzip.open(file, "wt") as compressed:
        compressed.write(f"{order(9320)}\n{order(9321)}\n")
    assert nomnom.read("ingest", str(file))["accepted"] == 2
    assert "2 accepted" in nomnom("ingest", "-", given=f"{order(9322)}\n{order(9323)}\n")
    assert nomnom.read("ingest", "-", given="\n\n")["accepted"] == 0
    (tmp_path / "broken.gz").write_bytes(file.read_bytes()[:-12])
    assert "cannot read" in nomnom("ingest", str(tmp_path / "broken.gz"), code=Exit.FAILED)


async def test_ingest_all_tables_of_tpchgen(nomnom: Program, tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("tpchgen-cli")
    command = [program, "-s", "0.001", "--output-dir", tmp_path]
    await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True, timeout=60)
    ends = await LocalEnvironment(nomnom.folder).endpoints()
    sending = Sending(ends.api, ends.api_token, tmp_path / "checkpoints")
    keys: dict[str, int] = {}
    for entity in load_schema("tpch"):
        file = tmp_path / f"{entity.table}.tbl"
        rows = [line.split("|") for line in file.read_text().splitlines()]
        # At this small scale, some keys of partsupp occur twice.
        keys[entity.table] = len({tuple(row[entity.index[name]] for name in entity.key) for row in rows})
        last = [each async for each in sending.send(file, entity.tag)][-1]
        assert (last.accepted, last.refused) == (len(rows), 0)
    connection = await asyncpg.connect(ends.database)
    try:
        for table, count in keys.items():
            condition = "WHERE o_clerk LIKE 'Clerk#%'" if table == "orders" else ""
            for _ in range(300):
                found = await connection.fetchval(f"SELECT count(*) FROM {table} {condition}")
                if found == count:
                    break
                await asyncio.sleep(0.2)
            assert found == count
    finally:
        await connection.close()
    assert not nomnom.read("dlq", "ls")


def test_invalid_input_is_rejected(nomnom: Program, tmp_path: Path) -> None:
    assert "no files given" in nomnom("ingest", code=Exit.USAGE)
    assert "unknown entity" in nomnom("ingest", "-", "--entity", "nothing", code=Exit.FAILED, given="")
    (tmp_path / "empty").touch()
    assert "0 accepted" in nomnom("ingest", str(tmp_path / "empty"))
    assert "cannot read" in nomnom("ingest", str(tmp_path), code=Exit.FAILED)
