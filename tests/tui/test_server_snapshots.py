"""Snapshots of the stream, consumer and database screens with fixed data, at both sizes."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest
from textual.pilot import Pilot

from conftest import LINE, ORDER
from nomnom.envelope import Status, to_microseconds
from nomnom.grammar import Grammar
from nomnom.inspection.entities import Count, EntityReport, RowPage
from nomnom.inspection.jetstream import ConsumerReport, MessagePage, Position, StoredMessage, StreamReport, StreamState
from nomnom.inspection.statuses import StatusCount
from nomnom.receipts import HourCount
from nomnom.schema import load_schema
from nomnom_tui.app.application import NomnomApp
from nomnom_tui.screens.consumers import ConsumersView
from tui.fakes import MOMENT, FakePipeline, FakeSession
from tui.snapshots import compare
from tui.test_snapshots import LARGE, MIDDLE, SMALL, drawn, frozen_app, frozen_clock, settled

__all__ = ["frozen_clock"]
"""A fixture of the other snapshots, needed here too."""

SCHEMA = load_schema("tpch")
SERVER = {"_nats.ver": "2.15.1", "_nats.level": "5", "_nats.req.level": "0"}
LATE = {"pause_until": (MOMENT + timedelta(minutes=8, seconds=42)).isoformat()}


class FakeJetStream:
    """Two streams, one consumer, and messages derived from their sequence."""

    def __init__(self) -> None:
        self.paused = False

    async def streams(self) -> list[StreamReport]:
        return [_stream("MESSAGES", "workqueue", 48_210, 12_400_000), _stream("MESSAGESDLQ", "limits", 42, 990_000_000)]

    async def stream(self, name: str) -> StreamReport:
        return next(each for each in await self.streams() if each.name == name)

    async def consumers(self, stream: str) -> list[ConsumerReport]:
        return [await self.consumer(stream, "workers")] if stream == "MESSAGES" else []

    async def consumer(self, stream: str, name: str) -> ConsumerReport:
        config: dict[str, Any] = {
            "durable_name": "workers",
            "description": "consumer of the workers",
            "filter_subject": "messages.ingest.>",
            "deliver_policy": "all",
            "ack_policy": "explicit",
            "ack_wait": 30_000_000_000,
            "replay_policy": "instant",
            "max_deliver": -1,
            "max_ack_pending": 50_000,
            "max_waiting": 512,
            "num_replicas": 1,
            "metadata": SERVER,
        }
        return ConsumerReport(
            stream,
            name,
            MOMENT - timedelta(days=9),
            {**config, **LATE} if self.paused else config,
            Position(120_400, 118_000, MOMENT),
            Position(119_900, 117_500, MOMENT),
            num_ack_pending=500,
            num_redelivered=12,
            num_waiting=3,
            num_pending=47_710,
            paused=self.paused,
            pause_remaining=522_000_000_000 if self.paused else 0,
            ts=MOMENT,
        )

    async def messages(self, stream: str, *, limit: int, newest_first: bool = False, **_: object) -> MessagePage:
        state = (await self.stream(stream)).state
        last = state.last_seq
        found = tuple(_message(stream, sequence) for sequence in range(last, last - min(limit, state.messages), -1))
        return MessagePage(found, state, newest_first, more=True)

    async def peek(self, stream: str, sequence: int) -> StoredMessage:
        return _message(stream, sequence)


class FakeEntities:
    """Counts of all entities, and a page of orders."""

    async def reports(self) -> list[EntityReport]:
        return [EntityReport(each, Count(5 * 7**at, exact=at < 6), 57_344 * 4**at) for at, each in enumerate(SCHEMA)]

    async def rows(self, entity: str, **_: object) -> RowPage:
        kind = SCHEMA.entity(entity)
        names = (*(each.name for each in kind.fields), "received_at", "message_id")
        return RowPage(kind, names, tuple(_row(number) for number in range(1, 101)), next="more", previous=None)


class FakeStatuses:
    """Two days with a few failures."""

    async def counts(self) -> list[StatusCount]:
        return [
            StatusCount(Status.PROCESSING, 0, exact=True),
            StatusCount(Status.COMPLETED, 1_234_567, exact=False),
            StatusCount(Status.FAILED, 3, exact=True),
            StatusCount(Status.DLQ, 42, exact=True),
        ]

    async def by_hour(self, hours: int) -> list[HourCount]:
        found: list[HourCount] = []
        for ago in range(hours):
            hour = MOMENT - timedelta(hours=ago)
            found.append(
                HourCount(hour, Status.COMPLETED, int(30_000 * (1.1 + math.sin(ago / 3.5))), 17 if ago == 4 else 0)
            )
            if ago in (0, 5, 6, 7):
                found.append(HourCount(hour, Status.DLQ, 3 + 5 * ago, 0))
        return [*found, HourCount(MOMENT, Status.FAILED, 3, 0)]


class FakeServerPipeline(FakePipeline):
    """The pipeline for these screens."""

    def __init__(self) -> None:
        super().__init__()
        self.grammar = Grammar(SCHEMA)
        self.jetstream, self.entities, self.statuses = FakeJetStream(), FakeEntities(), FakeStatuses()


def _stream(name: str, retention: str, messages: int, size: int) -> StreamReport:
    config = {
        "name": name,
        "description": "accepted messages, not yet written",
        "subjects": ["messages.ingest.>" if retention == "workqueue" else "messages.dlq.>"],
        "num_replicas": 1,
        "storage": "file",
        "compression": "none",
        "retention": retention,
        "discard": "new",
        "duplicate_window": 120_000_000_000,
        "allow_direct": True,
        "max_msgs": -1,
        "max_bytes": 1024**3,
        "max_age": 86_400_000_000_000,
        "max_msg_size": 1_114_112,
        "max_consumers": -1,
        "sealed": False,
        "metadata": SERVER,
    }
    last = 165_710 if retention == "workqueue" else 42
    state = StreamState(
        messages,
        size,
        last - messages + 1,
        MOMENT - timedelta(minutes=3),
        last,
        MOMENT,
        1 if last > 42 else 0,
        messages,
    )
    return StreamReport(config, MOMENT - timedelta(days=9), state, ts=MOMENT)


def _message(stream: str, sequence: int) -> StoredMessage:
    dead = stream.endswith("DLQ")
    payload = ORDER.replace("|123|", f"|{sequence}|")
    if dead:
        payload = payload.replace("2024-01-01", "2024-13-01")
    elif sequence % 7 == 0:
        payload += "\n" + LINE
    identity = f"0190a5c2-7d{sequence % 100:02}-7c3a-9a51-{sequence:012}"
    headers: Mapping[str, str] = {
        "Nats-Msg-Id": identity,
        "Nomnom-Received-At": str(to_microseconds(MOMENT) - sequence),
        **({"Nomnom-Reason": "record", "Nomnom-Attempts": "3"} if dead else {}),
    }
    subject = f"messages.{'dlq' if dead else 'ingest'}.orders.{identity}"
    stored = MOMENT - timedelta(seconds=(165_710 - sequence) / 250 if not dead else 42 - sequence)
    return StoredMessage(stream, sequence, subject, stored, headers, payload.encode())


def _row(number: int) -> Mapping[str, Any]:
    return {
        "o_orderkey": number,
        "o_custkey": number * 37 % 1500,
        "o_orderstatus": "FOP"[number % 3],
        "o_totalprice": f"{number * 1234.56:.2f}",
        "o_orderdate": (MOMENT - timedelta(days=number)).date(),
        "o_orderpriority": "3-MEDIUM",
        "o_clerk": f"Clerk#{number % 1000:09}",
        "o_shippriority": 0,
        "o_comment": "carefully final deposits sleep",
        "received_at": MOMENT,
        "message_id": f"0190a5c2-7d00-7c3a-9a51-{number:012}",
    }


def server_app(*, paused: bool = False) -> NomnomApp:
    """Return the app on the fake pipeline."""
    app = frozen_app()
    assert isinstance(app.session, FakeSession)
    app.session.fake = FakeServerPipeline()
    app.session.fake.jetstream.paused = paused
    return app


async def show(pilot: Pilot[int], keys: str) -> None:
    """Press these keys and wait until everything is drawn."""
    for key in keys.split():
        await pilot.press(key)
    await drawn(pilot)


@pytest.mark.parametrize("size", [SMALL, LARGE], ids=["80x24", "200x60"])
async def test_screens(size: tuple[int, int]) -> None:
    app = server_app()
    async with app.run_test(size=size) as pilot:
        await settled(pilot)
        for name, keys in (
            ("streams", "3"),
            ("stream-messages", "3 enter"),
            ("consumers", "4"),
            ("entities", "9"),
            ("entity-rows", "9 g j j j j j j enter"),
        ):
            await pilot.press(keys.split()[0])
            view = app.screen
            if isinstance(view, ConsumersView):
                view._readings["MESSAGES", "workers"] = _readings()
            await show(pilot, " ".join(keys.split()[1:]))
            compare(app, f"{name}-{size[0]}x{size[1]}")
            while len(app.screen_stack) > 1:
                await pilot.press("escape")


async def test_details_and_states() -> None:
    app = server_app()
    async with app.run_test(size=MIDDLE) as pilot:
        await settled(pilot)
        for name, keys in (
            ("message-record", "3 j enter enter"),
            ("message-hex", "x"),
            ("purge", "escape escape P"),
            ("row", "escape 9 g j j j j j j enter enter"),
            ("pause", "4 p"),
        ):
            await show(pilot, keys)
            compare(app, name)


async def test_paused_consumer() -> None:
    app = server_app(paused=True)
    async with app.run_test(size=MIDDLE) as pilot:
        await settled(pilot)
        await show(pilot, "4")
        compare(app, "consumer-paused")


def _readings() -> deque[tuple[Any, int, int, int]]:
    return deque(
        (
            (MOMENT - timedelta(seconds=ago), int(50_000 * (1 + math.sin(ago / 60)) / 2), 500 * (ago % 40 < 30), 12)
            for ago in range(598, 0, -2)
        ),
        maxlen=600,
    )
