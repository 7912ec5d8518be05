"""Dead letters: paging, finding, grouping, dry run, deletion."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from conftest import LINE, ORDER, Deployment
from nomnom.envelope import DEAD, Reason
from nomnom.inspection.dead_letters import Filter, GroupBy
from nomnom.message_status import CLAIM
from nomnom.streams import ensure_streams
from nomnom_control.session import dead_letters as module
from nomnom_control.session.audit import Action
from nomnom_control.session.dead_letters import Edit, NotConfirmed, Outcome, Page, Prediction
from nomnom_control.session.pipeline import Pipeline
from operator_session import BROKEN, ERROR, RECEIVED, bury, bury_many, open_session, stored


@pytest.fixture
async def session(deployment: Deployment, tmp_path: Path) -> AsyncIterator[Pipeline]:
    async with open_session(deployment, tmp_path) as pipeline:
        yield pipeline


def sequences(page: Page) -> list[int]:
    return [each.sequence for each in page.dead_letters]


async def test_dead_letter_has_all_properties(deployment: Deployment, session: Pipeline) -> None:
    failed = datetime(2026, 5, 6, 7, 8, 9, 123456, UTC)
    error = "line 1, field o_comment (9): expected at most 79 characters, found 'Grüße, 世界…'"
    payload = "O|Grüße"
    sequence, message_id = await bury(deployment, payload, error=error, failed_at=failed, replays=2, attempts=5)
    dead_letter = await session.dead_letters.dead_letter(sequence)
    assert dead_letter is not None
    assert (dead_letter.sequence, dead_letter.message_id, dead_letter.entity) == (sequence, message_id, "orders")
    assert (dead_letter.reason, dead_letter.error, dead_letter.attempts, dead_letter.replays) == ("record", error, 5, 2)
    assert (dead_letter.received_at, dead_letter.failed_at) == (RECEIVED, failed)
    assert (dead_letter.text, dead_letter.size) == (payload, len(payload.encode()))
    assert await session.dead_letters.dead_letter(sequence + 1) is None
    assert [each.message_id for each in await session.dead_letters.find(message_id)] == [message_id]
    consumers = await deployment.jetstream.consumers_info(session.streams.dead_stream)
    assert consumers == []


@pytest.mark.parametrize("near", [2000, -1], ids=["from the index", "directly from the stream"])
async def test_paging_in_both_directions_over_gaps(
    deployment: Deployment, session: Pipeline, monkeypatch: pytest.MonkeyPatch, near: int
) -> None:
    monkeypatch.setattr(module, "_NEAR", near)
    await bury_many(deployment, [BROKEN] * 60)
    for sequence in [*range(11, 41), 60]:
        await deployment.jetstream.delete_msg(session.streams.dead_stream, sequence)
    existing = [*range(1, 11), *range(41, 60)]
    dead_letters = session.dead_letters

    newest = await dead_letters.page(limit=12)
    assert sequences(newest) == existing[:-13:-1]
    assert (newest.matching, newest.total, newest.older) == (29, 29, True)
    older = await dead_letters.page(before=newest.dead_letters[-1].sequence, limit=12)
    assert sequences(older) == existing[-13:-25:-1]
    assert (older.older, older.newer) == (True, True)
    last = await dead_letters.page(before=older.dead_letters[-1].sequence, limit=12)
    assert sequences(last) == existing[4::-1]
    assert (last.older, last.newer) == (False, True)
    assert sequences(await dead_letters.page(after=older.dead_letters[0].sequence, limit=12)) == existing[:-13:-1]

    oldest = await dead_letters.page(limit=15, newest_first=False)
    assert sequences(oldest) == existing[:15]
    rest = await dead_letters.page(after=oldest.dead_letters[-1].sequence, limit=15, newest_first=False)
    assert sequences(rest) == existing[15:]
    assert (rest.older, rest.newer) == (True, False)
    assert all(each.payload for each in rest.dead_letters)


async def test_empty_stream_is_an_empty_page(session: Pipeline) -> None:
    page = await session.dead_letters.page()
    assert (page.dead_letters, page.matching, page.total, page.older, page.newer) == ((), 0, 0, False, False)
    assert await session.dead_letters.groups() == []


async def test_index_follows_new_and_deleted_dead_letters(deployment: Deployment, session: Pipeline) -> None:
    dead_letters, stream = session.dead_letters, session.streams.dead_stream
    await bury_many(deployment, [BROKEN] * 10)
    assert (await dead_letters.page(limit=3)).matching == 10
    await bury(deployment)
    await deployment.jetstream.delete_msg(stream, 5)
    await deployment.jetstream.delete_msg(stream, 11)
    await deployment.jetstream.delete_msg(stream, 1)
    assert await dead_letters.matching(Filter()) == [2, 3, 4, 6, 7, 8, 9, 10]
    await deployment.jetstream.purge_stream(stream)
    assert await dead_letters.matching(Filter()) == []
    await bury(deployment)
    assert await dead_letters.matching(Filter()) == [12]
    await deployment.jetstream.delete_stream(stream)
    await ensure_streams(session.nats, session.streams)
    await bury_many(deployment, ["another", "stream"])
    assert [each.text for each in (await dead_letters.page()).dead_letters] == ["stream", "another"]


async def test_large_payloads_are_not_cached(deployment: Deployment, session: Pipeline) -> None:
    large = "O|" + "x" * 900_000
    sequence, _ = await bury(deployment, large + "needle")
    await bury(deployment, large)
    page = await session.dead_letters.page()
    assert [each.size for each in page.dead_letters] == [len(large), len(large) + 6]
    kept = session.dead_letters.index.get(sequence)
    assert kept is not None
    assert kept.payload is None
    assert page.dead_letters[1].text == large + "needle"
    assert await session.dead_letters.matching(Filter(payload="NEEDLE")) == [sequence]


async def test_scan_in_steps(deployment: Deployment, session: Pipeline) -> None:
    await bury_many(deployment, [BROKEN] * 1200)
    seen: list[tuple[int, int]] = []
    parts = 0
    while not await session.dead_letters.scan(within=0.000001, progress=lambda known, of: seen.append((known, of))):
        parts += 1
        page = await session.dead_letters.page(Filter(reasons=("record",)), limit=1, within=0.000001)
        assert page.scanned <= 1200
    assert parts >= 1
    assert len(await session.dead_letters.matching(Filter())) == 1200
    assert {of for _, of in seen} == {1200}
    assert [known for known, _ in seen] == sorted(known for known, _ in seen)


async def test_filters(deployment: Deployment, session: Pipeline) -> None:
    start = datetime(2026, 3, 1, tzinfo=UTC)
    first_id = str(uuid.uuid4())  # ids of the same millisecond may have the same prefix
    one, _ = await bury(deployment, "O|1|alpha", message_id=first_id, failed_at=start)
    two, _ = await bury(
        deployment, "C|2|Beta", entity="customer", error="Expected ÄPFEL", failed_at=start + timedelta(1)
    )
    three, _ = await bury(
        deployment, b"\xff\xfe gamma", reason=Reason.DATA, error="numeric overflow 77", failed_at=start + timedelta(2)
    )
    for text, expected in (
        ("", [one, two, three]),
        ("entity:customer", [two]),
        ("entity:customer entity:orders", [one, two, three]),
        ("reason:data", [three]),
        ("äpfel", [two]),
        ("payload:beta", [two]),
        ("payload:gamma", [three]),
        (r"regex:yes 'error:overflow \d+$'", [three]),
        (f"id:{first_id.upper()}", [one]),
        (f"id:{first_id[:23]}", [one]),
        ("since:2026-03-02T00:00:00+00:00", [two, three]),
        ("until:2026-03-02T00:00:00+00:00", [one]),
        ("since:2026-03-02T00:00:00+00:00 until:2026-03-03T00:00:00+00:00 entity:customer", [two]),
        ("entity:nation", []),
    ):
        wanted = Filter.parse(text)
        assert await session.dead_letters.matching(wanted) == expected, text
        assert await session.dead_letters.matching(Filter.parse(wanted.describe())) == expected, text
    page = await session.dead_letters.page(Filter(entities=("orders",)), limit=1)
    assert (sequences(page), page.matching, page.total, page.older) == ([three], 2, 3, True)


async def test_group_by_reason_entity_and_kind_of_error(deployment: Deployment, session: Pipeline) -> None:
    errors = [f"line {n}, field o_custkey (2): expected a whole number, found 'x{n}|N#'" for n in range(5)]
    for error in errors:
        await bury(deployment, error=error)
    await bury(deployment, error="connection to Nowhere (12)", reason=Reason.DATA, entity="customer")
    dead_letters = session.dead_letters
    assert [(each.key, each.count) for each in await dead_letters.groups()] == [("record", 5), ("data", 1)]
    by_entity = await dead_letters.groups(GroupBy.ENTITY)
    assert [(each.key, each.count) for each in by_entity] == [("orders", 5), ("customer", 1)]
    kinds = await dead_letters.groups(GroupBy.ERROR)
    assert [each.count for each in kinds] == [5, 1]
    for kind, expected in zip(kinds, ([1, 2, 3, 4, 5], [6]), strict=True):
        assert await dead_letters.matching(kind.filter) == expected
    assert (await dead_letters.groups(GroupBy.REASON, Filter(entities=("customer",))))[0].key == "data"


async def predictions(session: Pipeline, *, edit: Edit | None = None, deep: bool = False) -> list[Prediction]:
    return [each async for part in session.dead_letters.dry_run(Filter(), edit, deep=deep) for each in part]


async def test_dry_run_predicts_the_replay(deployment: Deployment, session: Pipeline) -> None:
    later = ORDER.replace("O|123", "O|500")
    insert = "INSERT INTO orders SELECT 500, 1, 'F', 1, now(), 'a', 'b', 1, 'c', $1, gen_random_uuid()"
    await deployment.database.execute(insert, datetime.now(UTC))
    await bury(deployment)
    await bury(deployment, ORDER)
    await bury(deployment, later)
    _, done = await bury(deployment, ORDER.replace("O|123", "O|600"))
    await deployment.database.execute(CLAIM, [done], ["orders"], [RECEIVED], [0], [0])
    await bury(deployment, ORDER.replace("O|123", "O|700"), reason=Reason.DATA, error="no luck")
    await bury(deployment, ORDER.replace("O|123", "O|500") + "\n" + LINE)
    await bury(deployment, b"\xff")
    await bury(deployment, "nonsense")

    found = await predictions(session)
    assert [each.outcome for each in found] == [
        Outcome.FAILS,
        Outcome.COMPLETES,
        Outcome.SUPERSEDED,
        Outcome.ALREADY,
        Outcome.UNDETERMINED,
        Outcome.COMPLETES,
        Outcome.FAILS,
        Outcome.FAILS,
    ]
    assert found[0].detail == f"fails the same way: {ERROR}"
    assert found[0].problems[0].field == "o_orderdate"
    assert "1 of 2 rows are older than existing ones" in found[5].detail
    assert found[7].entity_changed

    fixed = await predictions(session, edit=Edit(fields={"o_orderdate": "2024-12-01"}))
    assert [each.outcome for each in fixed[:2]] == [Outcome.COMPLETES, Outcome.COMPLETES]
    assert [each.outcome for each in fixed[6:]] == [Outcome.IMPOSSIBLE, Outcome.IMPOSSIBLE]


async def test_deep_dry_run_uses_postgresql_and_changes_nothing(deployment: Deployment, session: Pipeline) -> None:
    await deployment.database.execute("ALTER TABLE orders ADD CONSTRAINT positive CHECK (o_custkey > 0)")
    await bury(
        deployment, ORDER.replace("|456|", "|-1|"), reason=Reason.DATA, error='violates check constraint "positive"'
    )
    await bury(deployment, ORDER, reason=Reason.DATA)
    await bury(deployment, LINE)
    shallow = await predictions(session)
    assert [each.outcome for each in shallow] == [Outcome.UNDETERMINED, Outcome.UNDETERMINED, Outcome.COMPLETES]
    deep = await predictions(session, deep=True)
    assert [each.outcome for each in deep] == [Outcome.FAILS, Outcome.COMPLETES, Outcome.COMPLETES]
    assert "positive" in deep[0].detail
    assert await deployment.database.fetchval("SELECT count(*) FROM orders") == 0
    assert await deployment.database.fetchval("SELECT count(*) FROM lineitem") == 0

    # The dry run does not wait long for a row that a worker is writing.
    await deployment.database.execute("BEGIN")
    await deployment.database.execute("LOCK TABLE orders IN ACCESS EXCLUSIVE MODE")
    try:
        locked = await predictions(session, deep=True)
    finally:
        await deployment.database.execute("ROLLBACK")
    assert [each.outcome for each in locked] == [Outcome.UNDETERMINED, Outcome.UNDETERMINED, Outcome.COMPLETES]


async def test_delete_only_the_confirmed_number(deployment: Deployment, session: Pipeline) -> None:
    dead_letters = session.dead_letters
    buried = await bury_many(deployment, [BROKEN] * 5)
    kept, _ = await bury(deployment, entity="customer")
    orders = Filter(entities=("orders",))
    seen = len(await dead_letters.matching(orders))
    late, _ = await bury(deployment)
    with pytest.raises(NotConfirmed, match="5 dead letters were confirmed, but 6 are"):
        await dead_letters.delete(orders, expected_count=seen)
    with pytest.raises(NotConfirmed, match="2 dead letters were confirmed, but 1 are"):
        await dead_letters.delete([kept, 99], expected_count=2)
    assert await dead_letters.matching(Filter()) == [*range(1, 8)]

    progress: list[tuple[int, int]] = []
    done = await dead_letters.delete(orders, expected_count=6, progress=lambda *now: progress.append(now))
    assert (done.deleted, done.gone, progress) == (6, 0, [(6, 6)])
    assert [each.seq for each in await stored(deployment, session.streams.dead_stream)] == [kept]
    assert await dead_letters.matching(Filter()) == [kept]
    entries = await session.audit.read(run=done.run)
    assert {each.message_id for each in entries if each.sequence != late} == {message_id for _, message_id in buried}
    assert {(each.action, each.result, each.actor) for each in entries} == {(Action.DELETE, "deleted", "tester@here")}
    dead_letter = entries[0].detail["letter"]
    assert dead_letter["headers"]["Nomnom-Error"] == ERROR
    assert entries[0].detail["selection"] == "entity:orders"


async def test_concurrent_deletion_and_replay(deployment: Deployment, session: Pipeline) -> None:
    await bury_many(deployment, [ORDER] * 300)
    replay = await session.dead_letters.replay(Filter())
    deletion = session.dead_letters.delete(Filter(), expected_count=300)
    progress, deleted = await asyncio.gather(replay.finish(), deletion)
    published = await stored(deployment, session.streams.stream)
    assert await stored(deployment, session.streams.dead_stream) == []
    assert progress.done == 300
    assert deleted.deleted + len(published) >= 300
    assert deleted.deleted + deleted.gone == 300


async def test_dead_letter_with_foreign_subject(deployment: Deployment, session: Pipeline) -> None:
    ack = await deployment.jetstream.publish(f"{DEAD}.strange", b"what is this")
    page = await session.dead_letters.page()
    assert [(each.sequence, each.reason, each.text) for each in page.dead_letters] == [
        (ack.seq, "unknown", "what is this")
    ]
    assert page.dead_letters[0].envelope_problem
    assert [each.outcome for each in await predictions(session)] == [Outcome.IMPOSSIBLE]
    progress = await (await session.dead_letters.replay(Filter())).finish()
    assert progress.last[0].result == "failed"
    assert "post its payload" in progress.last[0].detail
    assert (await session.dead_letters.delete([ack.seq], expected_count=1)).deleted == 1
