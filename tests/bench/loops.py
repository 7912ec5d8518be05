"""The worker's ceilings, each a process: ``python -m tests.bench.loops LOOP COUNT BATCH``.

``write``: fetch, write the same rows (orders and message_status), ack: no parsing, no rules.
``fetch``: fetch and ack alone. The rows are made before the clock starts; the loop runs
until COUNT messages are acked.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime

import asyncpg
import nats
import uvloop
from nats.errors import TimeoutError as NatsTimeoutError

from nomnom.envelope import new_message_id
from nomnom.grammar import Grammar
from nomnom.schema import load_schema
from nomnom.settings import Settings
from nomnom.tables import Table
from tests.bench.harness import orders

STATUS = """
INSERT INTO message_status (message_id, entity_type, status, received_at, processed_at)
SELECT id, 'orders', 'completed', received_at, now()
FROM unnest($1::uuid[], $2::timestamptz[]) AS given (id, received_at)
ON CONFLICT (message_id) DO UPDATE SET status = 'completed'
"""


async def main(loop: str, count: int, batch: int) -> None:
    """Run one loop for ``count`` messages."""
    settings = Settings.from_environment()
    schema = load_schema("tpch")
    grammar, entity = Grammar(schema), schema.entity("orders")
    now = datetime.now(UTC)
    rows = [(*grammar.parse(line)[0].values, now, new_message_id()) for line in orders(count)]
    client = await nats.connect(settings.nats_url)
    jetstream = client.jetstream()
    database = await asyncpg.connect(settings.database_url)
    upsert, status = await database.prepare(Table(entity).upsert), await database.prepare(STATUS)
    subscription = await jetstream.pull_subscribe_bind(settings.nats_consumer, settings.nats_stream)
    done = 0
    while done < count:
        try:
            messages = await subscription.fetch(batch, timeout=1)
        except NatsTimeoutError:
            continue
        if loop == "write":
            columns = [list(column) for column in zip(*rows[done : done + len(messages)], strict=True)]
            async with database.transaction():
                await status.fetch(columns[-1], columns[-2])
                await upsert.fetch(*columns)
        for message in messages:
            await message.ack()
        done += len(messages)
    await client.flush()
    await client.close()
    await database.close()


uvloop.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
