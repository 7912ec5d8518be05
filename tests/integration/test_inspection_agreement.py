"""Control and the dashboard report the same dead letters, groups and filter results for the same stream."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from conftest import Deployment
from dashboard_process import Dashboard, running
from nomnom.envelope import DEAD, Reason, dead_subject, new_message_id
from nomnom.inspection.dead_letters import DeadLetter, Filter, GroupBy
from nomnom_control.session.pipeline import Pipeline
from operator_session import bury, bury_many, open_session

FAILED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SELECTIONS: Sequence[tuple[dict[str, str], Filter]] = (
    ({}, Filter()),
    ({"reason": "data"}, Filter(reasons=("data",))),
    ({"reason": "unknown"}, Filter(reasons=("unknown",))),
    ({"entity": "customer"}, Filter(entities=("customer",))),
    ({"entity": "orders", "reason": "record"}, Filter(entities=("orders",), reasons=("record",))),
    ({"text": "OVERFLOW"}, Filter(text="overflow")),
    ({"text": "straße"}, Filter(text="STRASSE")),
    ({"text": "nothing like it"}, Filter(text="nothing like it")),
)


async def fill(deployment: Deployment) -> str:
    """Dead letters of several kinds, some of them malformed; returns the message id of one."""
    for number in range(5):
        await bury(deployment, error=f"expected a date, found '{number}'", failed_at=FAILED + timedelta(hours=number))
    _, message_id = await bury(deployment, reason=Reason.DATA, error="numeric overflow", replays=2, attempts=4)
    await bury(deployment, b"\xff\xfe", entity="customer", reason=Reason.DATA, error="Straße: no such street")
    await bury(deployment, "C|1", entity="customer", error="x" * 700 + " overflow")
    malformed: Sequence[tuple[str, dict[str, str] | None]] = (
        (dead_subject("orders", new_message_id()), None),
        (f"{DEAD}.orders.no-uuid", {"Nomnom-Reason": "data", "Nomnom-Error": "numeric overflow"}),
        (f"{DEAD}.customer.{new_message_id()}", {"Nomnom-Received-At": "soon", "Nomnom-Attempts": "many"}),
        (f"{DEAD}.alone", {"Nomnom-Failed-At": "9" * 30, "Nomnom-Attempts": "-1"}),
        (f"{DEAD}.a.b.c.d", {"Nomnom-Failed-At": "-5", "Nomnom-Error": ""}),
    )
    for subject, headers in malformed:
        await deployment.jetstream.publish(subject, b"?", headers=headers)
    return message_id


def described(dead_letter: DeadLetter) -> dict[str, Any]:
    """What the API returns of a dead letter that control has read."""
    malformed = bool(dead_letter.envelope_problem)
    return {
        "sequence": dead_letter.sequence,
        "message_id": None if malformed else dead_letter.message_id,
        "entity": dead_letter.entity,
        "reason": dead_letter.reason,
        "error": dead_letter.error[:500],
        "attempts": dead_letter.attempts or None,
        "replays": dead_letter.replays,
        "received_at": None if malformed else dead_letter.received_at,
        "failed_at": dead_letter.failed_at,
        "stored_at": dead_letter.stored_at,
        "size": dead_letter.size,
    }


def read(answer: dict[str, Any]) -> dict[str, Any]:
    """An API's dead letter with its times as times."""
    times = ("received_at", "failed_at", "stored_at")
    return {name: datetime.fromisoformat(value) if name in times and value else value for name, value in answer.items()}


async def compare(session: Pipeline, dashboard: Dashboard, query: dict[str, str], wanted: Filter) -> None:
    answer = await dashboard.get("/api/dlq", limit=500, **query)
    page = await session.dead_letters.page(wanted, limit=500)
    assert [read(each) for each in answer["dead_letters"]] == [described(each) for each in page.dead_letters], query
    assert (answer["matching"], answer["total"]) == (page.matching, page.total), query
    groups = await session.dead_letters.groups(GroupBy.KIND, wanted)
    assert [
        (each["reason"], each["entity"], each["dead_letters"], datetime.fromisoformat(each["newest_at"]))
        for each in answer["groups"]
    ] == [(*each.filter.reasons, *each.filter.entities, each.count, each.newest) for each in groups], query
    assert sum(each.count for each in groups) == page.matching


@pytest.mark.parametrize("deleted", [False, True])
async def test_the_same_stream_is_reported_alike(deployment: Deployment, tmp_path: Path, deleted: bool) -> None:
    message_id = await fill(deployment)
    async with open_session(deployment, tmp_path) as session, running(deployment.environment, tmp_path) as dashboard:
        await dashboard.until("/api/dlq", lambda found: found["total"] == 13)
        await session.dead_letters.scan()
        if deleted:
            for sequence in (1, 4, 9):
                await deployment.jetstream.delete_msg(deployment.streams.dead_stream, sequence)
            await dashboard.until("/api/dlq", lambda found: found["total"] == 10)
        for query, wanted in (*SELECTIONS, ({"text": message_id[:13].upper()}, Filter(text=message_id[:13]))):
            await compare(session, dashboard, query, wanted)
        everything = await session.dead_letters.page(limit=500)
        assert sum(bool(each.envelope_problem) for each in everything.dead_letters) == (4 if deleted else 5)
        for dead_letter in everything.dead_letters:
            shown = await dashboard.get(f"/api/dlq/{dead_letter.sequence}")
            assert read(shown["dead_letter"]) == described(dead_letter)


async def test_groups_by_kind_are_those_by_reason_and_entity(deployment: Deployment, tmp_path: Path) -> None:
    await fill(deployment)
    async with open_session(deployment, tmp_path) as session:
        groups = await session.dead_letters.groups(GroupBy.KIND)
        assert [(each.key, each.count) for each in groups][:2] == [("record orders", 5), ("data orders", 2)]
        for each in groups:
            assert len(await session.dead_letters.matching(each.filter)) == each.count
        for by in (GroupBy.REASON, GroupBy.ENTITY):
            expected = Counter[str]()
            for each in groups:
                expected[each.filter.reasons[0] if by is GroupBy.REASON else each.filter.entities[0]] += each.count
            assert {each.key: each.count for each in await session.dead_letters.groups(by)} == expected


async def test_the_dashboard_keeps_only_the_newest(deployment: Deployment, tmp_path: Path) -> None:
    stream = deployment.streams.dead_stream
    await bury_many(deployment, ["O|x"] * 130, error="old")
    environment = {**deployment.environment, "NOMNOM_DASHBOARD_DEAD_LETTERS": "100"}
    async with running(environment, tmp_path) as dashboard:
        first = await dashboard.until("/api/dlq", lambda found: found["total"] == 130)
        assert (first["matching"], first["older"], first["groups"][0]["dead_letters"]) == (100, 30, 100)
        assert (await dashboard.get("/api/dlq", limit=500))["dead_letters"][-1]["sequence"] == 31
        await bury_many(deployment, ["O|x"] * 5, error="new")
        await deployment.jetstream.delete_msg(stream, 100)
        await deployment.jetstream.delete_msg(stream, 1)
        later = await dashboard.until("/api/dlq", lambda found: found["total"] == 133)
        listed = (await dashboard.get("/api/dlq", limit=500))["dead_letters"]
        assert [each["sequence"] for each in listed] == [each for each in range(135, 35, -1) if each != 100]
        assert (later["matching"], later["older"]) == (99, 34)
        assert (await dashboard.get("/api/dlq", text="NEW"))["matching"] == 5
        await deployment.jetstream.purge_stream(stream)
        assert (await dashboard.until("/api/dlq", lambda found: found["total"] == 0))["dead_letters"] == []
