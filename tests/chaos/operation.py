"""One operation in a process of its own, which a test kills at a step: ``python -m tests.chaos.operation NAME``.

The addresses are in NATS_URL and DATABASE_URL, the folder of the audit spool in CHAOS_SPOOL.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from nomnom.envelope import ingest_subject, replay_headers
from nomnom.schema import load_schema
from nomnom.settings import Settings
from nomnom.setup import set_up
from nomnom.stream_changes import delete_message, publish
from nomnom_control.environments import Endpoints
from nomnom_control.session.dead_letters import Edit, Filter
from nomnom_control.session.dead_letters.undo import Undo, UndoResult
from nomnom_control.session.pipeline import Pipeline
from nomnom_housekeeper.archive import DeadLetterArchive
from nomnom_housekeeper.expiry import MessageExpiry
from nomnom_housekeeper.metrics import Metrics

_UNUSED = "http://127.0.0.1:9"


async def replay(pipeline: Pipeline) -> None:
    """Replay all dead letters unchanged."""
    await (await pipeline.dead_letters.replay(Filter())).finish()


async def fix(pipeline: Pipeline) -> None:
    """Replay all dead letters with a valid date."""
    await (await pipeline.dead_letters.replay(Filter(), Edit(fields={"o_orderdate": "2024-01-01"}))).finish()


async def undo(pipeline: Pipeline) -> None:
    """Undo all replays that were not undone."""
    records = await pipeline.audit.replays_to_undo()
    done = await Undo(pipeline).undo(records)
    if unfinished := [each for each in done if each.result not in (UndoResult.UNDONE, UndoResult.TOO_LATE)]:
        raise SystemExit(f"not undone: {unfinished}")


async def delete(pipeline: Pipeline) -> None:
    """Delete all dead letters."""
    selected = await pipeline.dead_letters.matching(Filter())
    await pipeline.dead_letters.delete(selected, expected_count=len(selected))


async def fix_carelessly(pipeline: Pipeline) -> None:
    """A control: like ``fix``, but each dead letter is deleted before it is published again."""
    stream = pipeline.streams.dead_stream
    for sequence in await pipeline.dead_letters.matching(Filter()):
        dead_letter = await pipeline.dead_letters.dead_letter(sequence)
        assert dead_letter is not None
        payload = dead_letter.payload.replace(b"2024-02-30", b"2024-01-01")
        await delete_message(pipeline.nats, stream, sequence)
        headers = replay_headers(dead_letter.envelope, payload)
        await publish(pipeline.nats, ingest_subject(dead_letter.entity, dead_letter.message_id), payload, headers)


async def expire(pipeline: Pipeline) -> None:
    """Move all messages of the stream to the dead letters, as a housekeeper does with those past the maximum age."""
    metrics = Metrics()
    await MessageExpiry(pipeline.nats, pipeline.database, pipeline.streams, metrics, schema=pipeline.schema).run()


async def archive(pipeline: Pipeline) -> None:
    """Move all dead letters past the maximum age to the archive."""
    await DeadLetterArchive(pipeline.nats, pipeline.database, pipeline.streams, Metrics()).run()


OPERATIONS: dict[str, Callable[[Pipeline], Awaitable[object]]] = {
    "replay": replay,
    "fix": fix,
    "undo": undo,
    "delete": delete,
    "fix-carelessly": fix_carelessly,
    "expire": expire,
    "archive": archive,
}


async def main(name: str) -> None:
    """Run one operation."""
    settings = Settings.from_environment()
    if name == "setup":
        await set_up(settings)
        return
    where = Endpoints(api=_UNUSED, nats=settings.nats_url, nats_monitor=_UNUSED, database=settings.database_url)
    spool = Path(os.environ["CHAOS_SPOOL"])
    schema = load_schema(settings.nomnom_schema)
    async with Pipeline(where, schema, settings.streams, actor="chaos@here", spool=spool) as pipeline:
        await OPERATIONS[name](pipeline)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
