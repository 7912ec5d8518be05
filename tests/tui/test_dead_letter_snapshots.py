"""Snapshots of the dead letter and message screens with fixed data, at both sizes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from textual.pilot import Pilot

from conftest import LINE, ORDER
from nomnom.envelope import Status
from nomnom.grammar import Grammar
from nomnom.inspection.dead_letters import DeadLetter, Filter, Group, GroupBy
from nomnom.inspection.history import Operation
from nomnom.inspection.jetstream import StreamState
from nomnom.inspection.statuses import MessageStatus
from nomnom.schema import load_schema
from nomnom_control.session.audit import Action, Record
from nomnom_control.session.dead_letters import Outcome, Page, Prediction, diff, validate
from nomnom_control.session.messages import State
from nomnom_tui.app.application import NomnomApp
from tui.fakes import MOMENT, FakePipeline, FakeSession
from tui.snapshots import compare
from tui.test_snapshots import LARGE, SMALL, drawn, frozen_app, frozen_clock

__all__ = ["frozen_clock"]
"""A fixture of the other snapshots, needed here too."""

SCHEMA = load_schema("tpch")
GRAMMAR = Grammar(SCHEMA)
_FAULTS = (
    ("2024-01-01", "2024-02-30"),
    ("123.45", "123.4567"),
    ("|F|", "|OPEN|"),
    ("O|", "ORD|"),
)


class FakeIndex:
    """A complete index."""

    complete = True
    state = StreamState(messages=1240)

    def __len__(self) -> int:
        return self.state.messages


class FakeDeadLetters:
    """Forty dead letters of four kinds."""

    def __init__(self) -> None:
        self.index = FakeIndex()

    async def page(self, selection: Filter, **_: object) -> Page:
        dead_letters = tuple(_dead_letter(sequence) for sequence in range(1240, 1200, -1))
        return Page(dead_letters, 1240 if selection.empty else 912, 1240, 1240, True, True, older=True, newer=False)

    async def dead_letter(self, sequence: int) -> DeadLetter:
        return _dead_letter(sequence)

    async def groups(self, by: GroupBy, selection: Filter, **_: object) -> list[Group]:
        newest, oldest = MOMENT - timedelta(seconds=3), MOMENT - timedelta(hours=7)
        return [
            Group(by, _dead_letter(at).error, count, oldest, newest, at, Filter(error="x"))
            for at, count in ((1236, 911), (1237, 240), (1238, 77), (1239, 12))
        ]

    async def dry_run(self, selection: list[int], *_: object, **__: object) -> AsyncIterator[list[Prediction]]:
        yield [
            Prediction(each, _dead_letter(each).message_id, outcome, detail, "orders")
            for each, outcome, detail in zip(
                selection,
                (Outcome.FAILS, Outcome.COMPLETES, Outcome.SUPERSEDED),
                ("fails the same way: " + _dead_letter(selection[0]).error, "", "a newer row exists"),
                strict=False,
            )
        ]

    def validate(self, payload: bytes) -> Any:
        return validate(payload, GRAMMAR)

    def diff(self, before: bytes, after: bytes) -> Any:
        return diff(before, after, SCHEMA)


class FakeAudit:
    """Three audit entries."""

    async def history(self, *_: object) -> list[Operation]:
        return []

    async def read(self, **_: object) -> list[Record]:
        entries = (
            (Action.UNDO, "undone", {}),
            (Action.REPLAY, "replayed", {"changes": "o_orderdate: '2024-02-30' → '2024-02-29'"}),
            (Action.DELETE, "deleted", {}),
        )
        return [
            Record(
                action, result, "orders", _dead_letter(7 + at).message_id, 7 + at, None, detail, "run", "event",
                MOMENT - timedelta(minutes=at), "ada@ops", "", 90 - at,
            )
            for at, (action, result, detail) in enumerate(entries)
        ]  # fmt: skip


class FakeStatuses:
    """Messages of every status."""

    async def recent(self, *_: object, **__: object) -> list[MessageStatus]:
        statuses = (Status.COMPLETED, Status.COMPLETED, Status.FAILED, Status.COMPLETED, Status.DLQ)
        return [_status(at, statuses[at % len(statuses)]) for at in range(60)]


class FakeMessages:
    """One message that failed."""

    async def state(self, message_id: str) -> State:
        at = MOMENT - timedelta(seconds=4)
        return State(message_id, Status.DLQ, "orders", at, MOMENT, 3, _dead_letter(4).error)


class FakeDeadLetterPipeline(FakePipeline):
    """The pipeline for these screens."""

    def __init__(self) -> None:
        super().__init__()
        self.schema, self.grammar = SCHEMA, GRAMMAR
        self.dead_letters, self.audit = FakeDeadLetters(), FakeAudit()
        self.statuses, self.messages = FakeStatuses(), FakeMessages()


def _dead_letter(sequence: int) -> DeadLetter:
    before, after = _FAULTS[sequence % len(_FAULTS)]
    payload = f"{ORDER.replace('|123|', f'|{sequence}|', 1).replace(before, after, 1)}\n{LINE}".encode()
    found = validate(payload, GRAMMAR)
    identity = f"0190a5c2-7d{sequence % 100:02}-7c3a-9a51-{sequence:012}"
    at = MOMENT - timedelta(seconds=7 * (1240 - sequence))
    error = "; ".join(str(each) for each in found.problems)
    entity = "unknown" if after == "ORD|" else "orders"
    return DeadLetter(
        sequence, f"messages.dlq.{entity}.{identity}", identity, entity, "record", error, 3,
        at - timedelta(seconds=4), at, 1 if sequence % 9 == 0 else 0, at, len(payload), payload,
    )  # fmt: skip


def _status(at: int, status: Status) -> MessageStatus:
    received = MOMENT - timedelta(seconds=at)
    error = _dead_letter(4 + at).error if status in (Status.FAILED, Status.DLQ) else None
    return MessageStatus(
        message_id=f"0190a5c2-7d{at:02}-7c3a-9a51-{at:012}",
        entity="orders",
        status=status,
        received_at=received,
        processed_at=received + timedelta(milliseconds=12 + at),
        retry_count=2 if error else 0,
        error=error,
        superseded=at == 3,
        replays=0,
    )


def dead_letter_app() -> NomnomApp:
    """Return the app on the fake pipeline."""
    app = frozen_app()
    assert isinstance(app.session, FakeSession)
    app.session.fake = FakeDeadLetterPipeline()
    return app


async def show(pilot: Pilot[int], keys: str) -> None:
    """Press these keys one at a time and wait until everything is drawn."""
    for key in keys.split():
        await pilot.press(key)
        await drawn(pilot)


@pytest.mark.parametrize("size", [SMALL, LARGE], ids=["80x24", "200x60"])
@pytest.mark.parametrize(("name", "keys"), [("dead-letters", "5"), ("messages", "7"), ("dead-letter-editor", "5 e")])
async def test_screens(size: tuple[int, int], name: str, keys: str) -> None:
    app = dead_letter_app()
    async with app.run_test(size=size) as pilot:
        await drawn(pilot)
        await show(pilot, keys)
        compare(app, f"{name}-{size[0]}x{size[1]}")


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("dead-letter", "5 enter"),
        ("dead-letter-groups", "5 b"),
        ("dead-letter-dry-run", "5 space space space d"),
        ("dead-letter-filter", "5 slash e n t i t y colon o r d e r s"),
        ("dead-letter-fix", "5 m"),
        ("audit", "5 a"),
        ("delete-dead-letters", "5 X"),
        ("post", "7 n ctrl+n ctrl+n ctrl+n ctrl+n ctrl+n ctrl+n"),
        ("message", "7 enter"),
    ],
)
async def test_details(name: str, keys: str) -> None:
    app = dead_letter_app()
    async with app.run_test(size=(120, 32)) as pilot:
        await drawn(pilot)
        await show(pilot, keys)
        compare(app, name)
