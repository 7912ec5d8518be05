"""The account of ten million messages: how long it takes, and when a removed row is named."""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time

import asyncpg

from nomnom.account import Verifier, read_account, read_balance
from nomnom.connections.nats import NatsConnection
from nomnom.connections.postgres import Database
from nomnom.inspection.jetstream import JetStream
from nomnom.settings.streams import StreamSettings
from tests.bench.figures import Report
from tests.bench.harness import Harness

_MESSAGES = 10_000_000
_PENDING = 10_000
_INSERT = """
INSERT INTO message_status (message_id, entity_type, status, received_at, processed_at, superseded, stream_position)
SELECT lpad(to_hex(at), 32, '0')::uuid, 'orders',
       CASE WHEN at % 1000 = 0 THEN 'deleted' ELSE 'completed' END,
       clock_timestamp() - interval '1 day' + (at || ' ms')::interval, clock_timestamp(), at % 500 = 1,
       1::bigint << 48 | at
FROM generate_series($1::bigint, $2::bigint) AS given (at)
"""


def _add(report: Report, name: str, seconds: float) -> None:
    report.line(f"account: {name}", seconds, f"{seconds:.2f} s")


async def measure(stage: Harness, report: Report, options: argparse.Namespace) -> None:
    """Generate rows, then measure the account, a verification, and how soon a deleted row is named."""
    report.title("The account of 10 million messages")
    connection = await asyncpg.connect(stage.postgres.url)
    await connection.execute("SET synchronous_commit = off")
    step = 500_000
    for start in range(1, _MESSAGES + 1, step):
        await connection.execute(_INSERT, start, start + step - 1)
    await connection.execute("VACUUM ANALYZE message_status")
    # The stream continues where the rows end.
    await stage.jetstream._api_request("$JS.API.STREAM.PURGE.MESSAGES", f'{{"seq": {_MESSAGES + 1}}}'.encode())
    await stage.fill([b"O|1|2|O|1.00|2024-01-01|1|c|0|x"] * _PENDING)
    streams = StreamSettings()
    nats = NatsConnection(stage.nats.url, "bench")
    database = Database(stage.postgres.url, application="bench")
    jetstream = JetStream(nats)
    verifier = Verifier(database, jetstream, streams)
    begun = time.monotonic()
    result = await verifier.verify_all()
    _add(report, "first verification of 10 million messages", time.monotonic() - begun)
    assert result.unexplained == 0, result
    times: list[float] = []
    for _ in range(options.rounds):
        begun = time.monotonic()
        await Verifier(database, jetstream, streams).verify_newest(None)
        account = await read_account(database, jetstream, streams)
        times.append(time.monotonic() - begun)
    assert (account.accepted, account.pending) == (_MESSAGES + _PENDING, _PENDING), account
    _add(report, "nomnom account", statistics.median(times))
    begun = time.monotonic()
    await verifier.verify_all()
    _add(report, "verification of all", time.monotonic() - begun)
    await connection.execute("DELETE FROM message_status WHERE stream_position = 1::bigint << 48 | 1234567")
    begun = time.monotonic()
    while not (await read_balance(database, streams)).unexplained:
        await verifier.verify(2.0)
        await asyncio.sleep(5)
    _add(report, "a deleted row is named after", time.monotonic() - begun)
    await connection.close()
    await nats.close()
    await database.close()
