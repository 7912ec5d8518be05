"""Headers of NATS messages: the shorter way gives what nats-py gives."""

# pyright: reportPrivateUsage=false
from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from nats.aio.client import Client

from nomnom.connections.client import FastClient

NAMES = st.text(st.characters(codec="ascii", exclude_characters="\r\n"), max_size=8)
VALUES = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=12)
USUAL = st.tuples(
    st.sampled_from(["Nomnom-Received-At", "Nats-Msg-Id", "x"]), st.just(": "), st.text("ab 1:-", max_size=9)
)
LINES = st.lists(USUAL | st.tuples(NAMES, st.sampled_from([": ", ":", ":  ", "", " : "]), VALUES), max_size=4)


async def parsed(kind: type[Client], headers: bytes) -> dict[str, str] | None:
    client = kind()
    problems: list[Exception] = []

    async def note(error: Exception) -> None:
        problems.append(error)

    client._error_cb = note
    found = await client._process_headers(headers)
    assert not problems
    return found


@given(LINES, st.sampled_from(["NATS/1.0", "NATS/1.0 404", "NATS/1.0 100 Idle Heartbeat"]))
@example([("a", ": ", "b ")], "NATS/1.0")
@example([("a", ": ", "b"), ("a", ": ", "c")], "NATS/1.0")
@example([], "NATS/1.0")
async def test_headers_are_those_of_nats_py(lines: list[tuple[str, str, str]], begin: str) -> None:
    text = "".join(f"{each}\r\n" for each in [begin, *("".join(line) for line in lines)]) + "\r\n"
    expected = await parsed(Client, text.encode())
    assert await parsed(FastClient, text.encode()) == expected


@pytest.mark.parametrize("headers", [b"", None])
async def test_messages_without_headers(headers: bytes) -> None:
    assert await parsed(FastClient, headers) is None
