"""The reason of an outage, and the health that nats-server reports."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nomnom.connections.monitor import read_all, read_health
from nomnom.connections.outage import Outage
from nomnom_worker.database import Fault, fault_of


def test_first_reason_is_logged_and_kept() -> None:
    outage = Outage("not connected yet")
    assert outage.report("connection refused")
    for reason in ("starting up", "connection refused", "timed out", "starting up"):
        assert not outage.report(reason)
        assert outage.reason == "connection refused"
    assert outage.end()
    assert not outage.end()
    assert outage.reason is None


def test_reason_that_is_repeated_replaces_the_first() -> None:
    outage = Outage()
    outage.report("connection refused")
    assert [outage.report("disk full") for _ in range(5)] == [False, False, True, False, False]
    assert outage.reason == "disk full"


@given(st.lists(st.sampled_from("abc"), min_size=1))
def test_reason_changes_only_to_one_that_was_found_three_times_in_a_row(reasons: list[str]) -> None:
    outage, before = Outage(), None
    for at, each in enumerate(reasons):
        logged = outage.report(each)
        assert logged == (outage.reason != before)
        if logged and at:
            assert reasons[at - 2 : at + 1] == [each] * 3
        before = outage.reason


@pytest.mark.parametrize(
    ("code", "function", "fault"),
    [
        ("22003", None, Fault.DATA),
        ("P0001", "exec_stmt_raise", Fault.DATA),
        ("BR001", "exec_stmt_raise", Fault.DATA),
        ("53100", "exec_stmt_raise", Fault.DATA),
        ("53100", "mdextend", Fault.SERVER),
        ("57P01", "ProcessInterrupts", Fault.SERVER),
        ("57014", "ProcessInterrupts", Fault.UNCERTAIN),
        ("25006", None, Fault.SERVER),
        ("40P01", None, Fault.CONFLICT),
        ("42501", None, Fault.UNCERTAIN),
        ("42703", None, Fault.UNCERTAIN),
        ("XX000", None, Fault.UNCERTAIN),
        ("BR001", None, Fault.UNCERTAIN),
    ],
)
def test_fault_of_an_error(code: str, function: str | None, fault: Fault) -> None:
    fields = {"S": "ERROR", "C": code, "M": "text", **({"R": function} if function else {})}
    assert fault_of(asyncpg.PostgresError.new(fields)) is fault


async def _respond(response: bytes, *, silent: bool = False) -> tuple[asyncio.Server, str]:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if silent:
            await reader.read()
        writer.write(response)
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    return server, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize(
    ("response", "problem", "cannot_write"),
    [
        (b'HTTP/1.0 200 OK\r\n\r\n{"status":"ok"}', None, False),
        (
            b'HTTP/1.0 503 Service Unavailable\r\n\r\n{"status":"unavailable","error":"stream write error: full"}',
            "stream write error: full",
            True,
        ),
        (
            b'HTTP/1.0 503 Service Unavailable\r\n\r\n{"status":"unavailable","error":"catching up"}',
            "catching up",
            False,
        ),
        (b"HTTP/1.0 503 Service Unavailable\r\n\r\nnot JSON", "/healthz has status 503", False),
    ],
)
async def test_health_of_nats_server(response: bytes, problem: str | None, cannot_write: bool) -> None:
    server, url = await _respond(response)
    async with server:
        health = await read_health(url, 2)
    assert (health.problem, health.cannot_write, health.known) == (problem, cannot_write, True)


async def test_silent_monitoring_port_is_unknown_and_no_failed_write() -> None:
    server, url = await _respond(b"", silent=True)
    async with server:
        health = await read_health(url, 0.2)
    assert not health.known
    assert not health.cannot_write
    assert "no response in time" in (health.problem or "")


async def test_no_monitoring_port_has_no_health() -> None:
    assert await read_all("", 1) == []
