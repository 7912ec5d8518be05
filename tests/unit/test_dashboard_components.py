"""Components of the dashboard that need no server."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nomnom.layout import lay_out
from nomnom.schema import load_schema
from nomnom.settings import DashboardSettings, SettingsError
from nomnom_dashboard.access import Access
from nomnom_dashboard.application import Dashboard
from nomnom_dashboard.broadcast import Broadcast
from nomnom_dashboard.errors import UnauthorizedError
from nomnom_dashboard.operations import payload_line
from nomnom_dashboard.throughput import STEP, Throughput, percentiles

SCHEMA = load_schema("tpch")


def step(seconds: float) -> int:
    """The latency step of a duration, computed as in the SQL statement."""
    return math.floor(math.log(max(seconds, 0.001)) / STEP)


@given(st.lists(st.floats(min_value=0.001, max_value=100_000), min_size=1, max_size=200))
def test_percentiles_are_within_five_percent(values: list[float]) -> None:
    steps: dict[int, int] = {}
    for value in values:
        steps[step(value)] = steps.get(step(value), 0) + 1
    ordered = sorted(values)
    for found, share in zip(percentiles(steps), (0.5, 0.95, 0.99), strict=True):
        assert found == pytest.approx(ordered[math.ceil(len(ordered) * share) - 1], rel=0.0501)


def test_unknown_buckets_are_null_instead_of_zero() -> None:
    throughput = Throughput()
    throughput.replace(1000, 1020, [(1000, "completed", step(0.5), 30), (1010, "dlq", 0, 5)], [(1000, 40)])
    unknown, known = throughput.points(940, 1060, 60)
    assert (unknown.accepted, unknown.completed, unknown.p50) == (None, None, None)
    assert (known.accepted, known.completed, known.dead) == (2.0, 1.5, 0.25)
    assert known.p50 == pytest.approx(0.5, rel=0.0501)


def test_buckets_are_replaced_and_expire() -> None:
    throughput = Throughput()
    throughput.replace(1000, 1020, [(1000, "completed", 0, 30)], [(1000, 30)])
    throughput.replace(1000, 1010, [(1000, "completed", 0, 31)], [(1000, 31)])
    assert throughput.latency(1020, 20).messages == 31
    throughput.forget(1020)
    assert throughput.latency(1020, 20).messages == 0
    assert throughput.known == {1010}


async def collect(stream: AsyncGenerator[bytes], count: int) -> list[bytes]:
    return [await anext(stream) for _ in range(count)]


async def test_slow_client_skips_to_the_newest_event() -> None:
    broadcast = Broadcast(heartbeat=5)
    broadcast.publish("snapshot", 1, {"n": 1})
    stream = cast("AsyncGenerator[bytes]", broadcast.events())
    assert await collect(stream, 2) == [b"retry: 2000\n\n", b'event: snapshot\nid: 1\ndata: {"n":1}\n\n']
    for number in range(2, 100):
        broadcast.publish("snapshot", number, {"n": number})
    assert await anext(stream) == b'event: snapshot\nid: 99\ndata: {"n":99}\n\n'
    assert broadcast.clients == 1
    await stream.aclose()
    assert broadcast.clients == 0


async def test_heartbeats_and_close() -> None:
    broadcast = Broadcast(heartbeat=0.01)
    stream = cast("AsyncGenerator[bytes]", broadcast.events())
    assert await collect(stream, 3) == [b"retry: 2000\n\n", b": alive\n\n", b": alive\n\n"]
    broadcast.close()
    assert [part async for part in stream] == []
    assert [part async for part in broadcast.events()] == [b"retry: 2000\n\n"]


def test_required_authentication_must_be_configured() -> None:
    given = {"NOMNOM_DASHBOARD_AUTH_REQUIRED": "true"}
    with pytest.raises(SettingsError, match="authentication is required but not configured"):
        Dashboard(DashboardSettings.from_environment(given))
    Dashboard(DashboardSettings.from_environment({**given, "NOMNOM_DASHBOARD_TOKENS": "a-good-token"}))


@given(st.binary(max_size=60))
def test_only_valid_credentials_are_accepted(header: bytes) -> None:
    access = Access(["a-good-token"], ("ann", "secret"))
    if header.lower().split() != [b"bearer", b"a-good-token"]:
        with pytest.raises(UnauthorizedError):
            access.check(header)
    access.check(b"Bearer a-good-token")
    Access([], None).check(None)


@given(st.text(alphabet="O|\\a漢1é", min_size=1, max_size=30))
def test_a_payload_line_keeps_every_character(line: str) -> None:
    [row] = lay_out(line, SCHEMA)
    fields = payload_line(row).fields
    assert "|".join(each.text for each in fields) == line
    assert [each.name for each in fields][:1] == ["tag"]


def test_escaped_separators_do_not_split_a_field() -> None:
    [row] = lay_out(r"R|1|a\|b\\|c|", SCHEMA)
    assert [(each.name, each.text) for each in payload_line(row).fields] == [
        ("tag", "R"), ("r_regionkey", "1"), ("r_name", r"a\|b\\"), ("r_comment", "c"), (None, ""),
    ]  # fmt: skip
