"""Replay of dead letters: order, crashes, limits, edits; no message is lost or duplicated."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from nats.js.api import RawStreamMsg

from conftest import ORDER, Deployment, free_port
from nomnom.connections.errors import DatabaseUnavailable, NatsUnavailable, NotSetUp
from nomnom.envelope import (
    MSG_ID,
    RECEIVED_AT,
    Envelope,
    dead_subject,
    ingest_subject,
    new_message_id,
    replay_headers,
    to_microseconds,
)
from nomnom.inspection.dead_letters import Filter
from nomnom.inspection.jetstream import StreamFull
from nomnom.message_status import CLAIM
from nomnom.tables import Table
from nomnom_control.errors import ControlError
from nomnom_control.session.audit import Action, AuditPending
from nomnom_control.session.dead_letters import Edit, EditError, Replay, ReplayProgress, Result
from nomnom_control.session.pipeline import Pipeline
from operator_session import BROKEN, RECEIVED, bury, bury_many, open_session, stored

ALL = Filter()


@pytest.fixture
async def session(deployment: Deployment, tmp_path: Path) -> AsyncIterator[Pipeline]:
    async with open_session(deployment, tmp_path) as pipeline:
        yield pipeline


async def live(deployment: Deployment) -> list[RawStreamMsg]:
    return await stored(deployment, deployment.streams.stream)


async def dead(deployment: Deployment) -> list[RawStreamMsg]:
    return await stored(deployment, deployment.streams.dead_stream)


def spooled(folder: Path) -> list[Path]:
    """Spool files with entries that are not in PostgreSQL."""
    return list(folder.rglob("*.jsonl"))


def message_id(message: RawStreamMsg) -> str:
    return str(message.subject).rpartition(".")[2]


async def test_replay_publishes_the_message(deployment: Deployment, session: Pipeline) -> None:
    sequence, identity = await bury(deployment, replays=1)
    progress = await (await session.dead_letters.replay([sequence])).finish()
    (message,) = await live(deployment)
    assert (message.subject, message.data) == (ingest_subject("orders", identity), BROKEN.encode())
    expected = replay_headers(Envelope(identity, "orders", RECEIVED, 1), BROKEN.encode())
    assert message.headers == expected
    assert expected[RECEIVED_AT] == str(to_microseconds(RECEIVED))
    assert await dead(deployment) == []
    assert (progress.counts, progress.done) == ({Result.REPLAYED: 1}, 1)
    (entry,) = await session.audit.read(message_id=identity)
    assert (entry.actor, entry.action, entry.result) == ("tester@here", Action.REPLAY, "replayed")
    assert (entry.sequence, entry.run) == (sequence, progress.run)
    assert entry.detail["stream_sequence"] == message.seq
    assert entry.detail["edited"] is False


async def test_dead_letters_that_arrive_during_a_replay_are_kept(deployment: Deployment, session: Pipeline) -> None:
    await bury_many(deployment, [BROKEN] * 100)
    replay = await session.dead_letters.replay(ALL, concurrency=10)
    parts = 0
    async for progress in replay:
        parts += 1
        assert len(progress.last) == 10
        assert progress.done == parts * 10
        await bury(deployment, ORDER)
    assert replay.progress.counts == {Result.REPLAYED: 100}
    assert len(await live(deployment)) == 100
    left = await dead(deployment)
    assert len(left) == 10
    assert [each.text for each in (await session.dead_letters.page(limit=99)).dead_letters] == [ORDER] * 10


async def test_replay_matching_dead_letters(deployment: Deployment, session: Pipeline) -> None:
    await bury(deployment)
    _, wanted = await bury(deployment, "C|1", entity="customer")
    replay = await session.dead_letters.replay(Filter(entities=("customer",)))
    assert (await replay.finish()).counts == {Result.REPLAYED: 1}
    assert [message_id(each) for each in await live(deployment)] == [wanted]
    assert len(await dead(deployment)) == 1


async def test_deleted_dead_letters_are_reported_as_gone(deployment: Deployment, session: Pipeline) -> None:
    sequence, _ = await bury(deployment)
    await bury(deployment)
    assert await session.dead_letters.scan()
    await deployment.jetstream.delete_msg(session.streams.dead_stream, sequence)
    progress = await (await session.dead_letters.replay([sequence, sequence + 1, 77])).finish()
    assert progress.counts == {Result.GONE: 2, Result.REPLAYED: 1}
    assert len(await live(deployment)) == 1


async def test_replay_with_edit(deployment: Deployment, session: Pipeline) -> None:
    sequence, identity = await bury(deployment, BROKEN.replace("comment", r"a\|b"))
    edit = Edit(fields={"O.o_orderdate": "2024-12-31", "o_clerk": "x|y"}, replacements=((r"\burgent\b", "5-LOW"),))
    progress = await (await session.dead_letters.replay([sequence], edit)).finish()
    assert progress.counts == {Result.REPLAYED: 1}
    (message,) = await live(deployment)
    assert message.data == rb"O|123|456|F|123.45|2024-12-31|5-LOW|x\|y|1|a\|b"
    (entry,) = await session.audit.read(message_id=identity)
    assert entry.detail["edited"] is True
    assert "o_orderdate: '2024-13-01' → '2024-12-31'" in entry.detail["changes"]


async def test_edit_can_change_the_entity(deployment: Deployment, session: Pipeline) -> None:
    sequence, identity = await bury(deployment, "X|1|AFRICA|hot", entity="unknown")
    await (await session.dead_letters.replay([sequence], Edit(payload=b"R|1|AFRICA|hot"))).finish()
    (message,) = await live(deployment)
    assert message.subject == ingest_subject("region", identity)


async def test_inapplicable_edit_keeps_the_dead_letter(deployment: Deployment, session: Pipeline) -> None:
    await bury(deployment)
    await bury(deployment, "C|1", entity="customer")
    replay = await session.dead_letters.replay(ALL, Edit(fields={"o_orderdate": "2024-12-31"}))
    assert (await replay.finish()).counts == {Result.REPLAYED: 1, Result.FAILED: 1}
    assert [each.detail for each in replay.failures] == ["no line of the payload has the field o_orderdate"]
    assert [each.data for each in await dead(deployment)] == [b"C|1"]
    with pytest.raises(ControlError, match="one edited payload for 2 dead letters"):
        await session.dead_letters.replay([1, 2], Edit(payload=b"O|1"))
    with pytest.raises(EditError, match="invalid group reference"):
        Edit(replacements=(("a", r"\9"),))


async def test_rate_limit(deployment: Deployment, session: Pipeline) -> None:
    await bury_many(deployment, [BROKEN] * 30)
    replay = await session.dead_letters.replay(ALL, rate=40)
    progress = await replay.finish()
    # 30 dead letters in batches of 8: at 40/s, the last batch must not start before 24 are due.
    assert progress.seconds >= 24 / 40
    assert progress.done == 30
    with pytest.raises(ControlError, match="expected more than 0"):
        await session.dead_letters.replay(ALL, rate=0)


async def test_cancelled_replay_can_be_resumed(deployment: Deployment, session: Pipeline) -> None:
    buried = await bury_many(deployment, [BROKEN] * 400)
    replay = await session.dead_letters.replay(ALL, concurrency=20)
    seen: list[ReplayProgress] = []
    enough = asyncio.Event()

    async def run() -> None:
        async for progress in replay:
            seen.append(progress)
            if len(seen) == 3:
                enough.set()

    task = asyncio.create_task(run())
    await enough.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    done = replay.progress.done
    assert 60 <= done < 400
    published, left = await live(deployment), await dead(deployment)
    assert (len(published), len(left)) == (done, 400 - done)
    assert {message_id(each) for each in published}.isdisjoint(message_id(each) for each in left)
    entries = await session.audit.read(run=replay.run, limit=1000)
    assert sum(each.result == "replayed" for each in entries) == done
    assert [each.result for each in entries if each.message_id is None] == [f"stopped: {done} of 400"]

    again = await (await session.dead_letters.replay(ALL)).finish()
    assert again.counts == {Result.REPLAYED: 400 - done}
    assert Counter(message_id(each) for each in await live(deployment)) == Counter(each for _, each in buried)


@pytest.mark.parametrize("inside_window", [True, False])
async def test_interrupted_run_is_completed_by_the_next(
    deployment: Deployment, session: Pipeline, *, inside_window: bool
) -> None:
    sequence, identity = await bury(deployment)
    headers = replay_headers(Envelope(identity, "orders", RECEIVED), BROKEN.encode())
    if not inside_window:
        headers[MSG_ID] += ".another"  # not in JetStream's duplicate window any more
    await deployment.jetstream.publish(ingest_subject("orders", identity), BROKEN.encode(), headers=headers)
    progress = await (await session.dead_letters.replay([sequence])).finish()
    assert progress.counts == {Result.REPLAYED: 1}
    assert progress.last[0].detail == "published by an earlier run"
    assert len(await live(deployment)) == 1
    assert await dead(deployment) == []
    assert len(await session.audit.read(message_id=identity)) == 1


async def test_pending_replay_with_another_payload_is_reported(deployment: Deployment, session: Pipeline) -> None:
    sequence, identity = await bury(deployment)
    headers = replay_headers(Envelope(identity, "orders", RECEIVED), BROKEN.encode())
    await deployment.jetstream.publish(ingest_subject("orders", identity), BROKEN.encode(), headers=headers)
    replay = await session.dead_letters.replay([sequence], Edit(payload=ORDER.encode()))
    assert (await replay.finish()).counts == {Result.FAILED: 1}
    assert "an earlier replay with another payload is pending" in replay.failures[0].detail
    assert (len(await live(deployment)), len(await dead(deployment))) == (1, 1)


async def test_processed_message_is_not_published_again(deployment: Deployment, session: Pipeline) -> None:
    """A run was interrupted before it deleted the dead letter, and a worker processed the message meanwhile."""
    sequence, identity = await bury(deployment)
    await deployment.database.execute(CLAIM, [identity], ["orders"], [RECEIVED], [1], [0])
    edited = await session.dead_letters.replay([sequence], Edit(payload=ORDER.encode()))
    assert (await edited.finish()).counts == {Result.FAILED: 1}
    assert "would not be applied" in edited.failures[0].detail
    progress = await (await session.dead_letters.replay([sequence])).finish()
    assert progress.counts == {Result.ALREADY: 1}
    assert (await live(deployment), await dead(deployment)) == ([], [])
    (entry,) = await session.audit.read(message_id=identity)
    assert entry.result == "already replayed"


async def test_edited_message_that_was_written_is_not_published_again(
    deployment: Deployment, session: Pipeline
) -> None:
    """The run that edited it was interrupted before it deleted the dead letter; the same edit completes it."""
    sequence, identity = await bury(deployment)
    await deployment.database.execute(CLAIM, [identity], ["orders"], [RECEIVED], [1], [0])
    record = session.grammar.parse(ORDER)[0]
    table = Table(record.entity)
    columns = [[each] for each in (*record.values, RECEIVED, identity, 1)]
    await deployment.database.execute(table.upsert, *table.parameters(columns))
    different = ORDER.replace(str(record.values[1]), "77", 1)
    other = await session.dead_letters.replay([sequence], Edit(payload=different.encode()))
    assert (await other.finish()).counts == {Result.FAILED: 1}
    same = await (await session.dead_letters.replay([sequence], Edit(payload=ORDER.encode()))).finish()
    assert same.counts == {Result.ALREADY: 1}
    assert (await live(deployment), await dead(deployment)) == ([], [])


_RUN = """
import asyncio, sys, msgspec
from pathlib import Path
from nomnom.schema import load_schema
from nomnom.inspection.dead_letters import Filter
from nomnom_control.environments import Endpoints
from nomnom_control.session.pipeline import Pipeline

async def main():
    given = msgspec.json.decode(sys.stdin.buffer.readline())
    endpoints = Endpoints("http://127.0.0.1:9", given["nats"], "", given["database"])
    async with Pipeline(endpoints, load_schema("tpch"), spool=Path(given["spool"])) as pipeline:
        async for progress in await pipeline.dead_letters.replay(Filter(), concurrency=16):
            print(progress.done, flush=True)

asyncio.run(main())
"""


async def test_killed_runs_neither_lose_nor_repeat_messages(deployment: Deployment, tmp_path: Path) -> None:
    buried = Counter(each for _, each in await bury_many(deployment, [BROKEN] * 600))
    given = {
        "nats": deployment.settings.nats_url,
        "database": deployment.settings.database_url,
        "spool": str(tmp_path),
    }
    kills = 0
    for pause in (0.0, 0.001, 0.004, 0.009, 0.016):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _RUN, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(msgspec.json.encode(given) + b"\n")
        await process.stdin.drain()
        assert await asyncio.wait_for(process.stdout.readline(), 30)
        await asyncio.sleep(pause)  # kill at a different point of the next batch each time
        process.kill()
        await process.wait()
        kills += 1
        everywhere = {message_id(each) for each in [*await live(deployment), *await dead(deployment)]}
        assert everywhere == set(buried)
    assert kills == 5
    assert len(await dead(deployment)) > 0
    async with open_session(deployment, tmp_path) as session:
        progress = await (await session.dead_letters.replay(ALL)).finish()
        assert Result.FAILED not in progress.counts
        assert Counter(message_id(each) for each in await live(deployment)) == buried
        assert await dead(deployment) == []
        entries = await session.audit.read(action=Action.REPLAY, limit=5000)
        replayed = {each.message_id for each in entries if each.result == "replayed"}
        assert replayed == set(buried)
    assert spooled(tmp_path) == []


async def test_full_stream_stops_the_run(deployment: Deployment, session: Pipeline) -> None:
    buried = await bury_many(deployment, ["O|" + "x" * 2000] * 100)
    config = (await deployment.jetstream.stream_info(session.streams.stream)).config
    await deployment.jetstream.update_stream(config.evolve(max_bytes=60_000))
    replay = await session.dead_letters.replay(ALL, concurrency=10)
    with pytest.raises(StreamFull, match="make room"):
        await replay.finish()
    published, left = await live(deployment), await dead(deployment)
    assert len(published) + len(left) == 100
    assert 0 < len(published) < 60
    assert replay.progress.counts[Result.REPLAYED] == len(published)
    assert {message_id(each) for each in [*published, *left]} == {each for _, each in buried}
    await deployment.jetstream.update_stream(config)
    progress = await (await session.dead_letters.replay(ALL)).finish()
    assert progress.counts == {Result.REPLAYED: len(left)}
    assert len(await live(deployment)) == 100


async def test_replay_requires_the_audit_log(deployment: Deployment, tmp_path: Path) -> None:
    await bury(deployment)
    nowhere = f"postgresql://someone:secret@127.0.0.1:{free_port()}/nomnom"
    async with open_session(deployment, tmp_path, database=nowhere) as session:
        with pytest.raises(DatabaseUnavailable, match="check that it runs") as caught:
            await (await session.dead_letters.replay(ALL)).finish()
        assert "secret" not in str(caught.value)
    await deployment.database.execute("DROP TABLE nomnom_audit")
    async with open_session(deployment, tmp_path) as session:
        with pytest.raises(NotSetUp, match="nomnom setup"):
            await (await session.dead_letters.replay(ALL)).finish()
    assert (len(await live(deployment)), len(await dead(deployment))) == (0, 1)


async def test_audit_entries_are_spooled_if_postgresql_fails_during_a_run(
    deployment: Deployment, session: Pipeline, tmp_path: Path
) -> None:
    await bury_many(deployment, [BROKEN] * 60)
    replay = await session.dead_letters.replay(ALL, concurrency=20)

    async def run() -> None:
        async for progress in replay:
            if progress.done == 20:
                await deployment.database.execute("ALTER TABLE nomnom_audit RENAME TO renamed")

    with pytest.raises(AuditPending, match="20 audit entries"):
        await run()
    assert len(spooled(tmp_path)) == 1
    assert (replay.progress.done, len(replay.unaudited)) == (40, 20)
    assert (len(await live(deployment)), len(await dead(deployment))) == (40, 20)
    await deployment.database.execute("ALTER TABLE renamed RENAME TO nomnom_audit")
    entries = await session.audit.read(run=replay.run)
    assert {each.sequence for each in entries} == set(range(1, 41))
    assert {each.result for each in entries} == {"replayed"}
    assert len(entries) == 40
    assert spooled(tmp_path) == []


async def test_replay_without_nats_changes_nothing(deployment: Deployment, tmp_path: Path) -> None:
    await bury(deployment)
    async with open_session(deployment, tmp_path, nats=f"nats://127.0.0.1:{free_port()}") as session:
        with pytest.raises(NatsUnavailable, match="check that it runs"):
            await session.dead_letters.page()
        with pytest.raises(NatsUnavailable):
            await Replay(session, [1]).finish()
    assert len(await dead(deployment)) == 1


async def test_concurrent_runs_replay_each_dead_letter_once(deployment: Deployment, session: Pipeline) -> None:
    buried = await bury_many(deployment, [BROKEN] * 300)
    first, second = [await session.dead_letters.replay(ALL) for _ in range(2)]
    results = await asyncio.gather(first.finish(), second.finish())
    assert sum(each.counts.get(Result.FAILED, 0) for each in results) == 0
    assert [each.done for each in results] == [300, 300]
    assert Counter(message_id(each) for each in await live(deployment)) == Counter(each for _, each in buried)
    assert await dead(deployment) == []


async def test_audit_log_pages_and_filters(deployment: Deployment, session: Pipeline) -> None:
    started = datetime.now(UTC)
    await bury_many(deployment, [BROKEN] * 25)
    _, customer = await bury(deployment, "C|1", entity="customer")
    run = await (await session.dead_letters.replay([*range(1, 26)])).finish()
    deletion = await session.dead_letters.delete([26], expected_count=1)
    page = await session.audit.read(limit=10)
    pages = [page]
    while page := await session.audit.read(limit=10, before=page[-1].id):
        pages.append(page)
    everything = [each for part in pages for each in part]
    assert [len(each) for each in pages] == [10, 10, 7]
    assert [each.id for each in everything] == sorted((each.id for each in everything), reverse=True)
    assert len(await session.audit.read(run=run.run)) == 26
    assert [each.message_id for each in await session.audit.read(entity="customer")] == [customer]
    assert [each.run for each in await session.audit.read(action=Action.DELETE)] == [deletion.run]
    assert await session.audit.read(actor="nobody") == []
    assert len(await session.audit.read(since=started)) == 27
    assert await session.audit.read(until=started) == []


async def test_binary_payload_is_replayed_unchanged(deployment: Deployment, session: Pipeline) -> None:
    identity = new_message_id()
    sequence, _ = await bury(deployment, b"\xff\x00\xfe", entity="unknown", message_id=identity)
    assert (await (await session.dead_letters.replay([sequence])).finish()).counts == {Result.REPLAYED: 1}
    (message,) = await live(deployment)
    assert (message.subject, message.data) == (ingest_subject("unknown", identity), b"\xff\x00\xfe")
    assert dead_subject("unknown", identity) not in {each.subject for each in await dead(deployment)}
