"""Components of the worker that need no server: deliveries, batches, acknowledgements, settings."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.aio.msg import Msg

from nomnom.envelope import Envelope, Reason, copy_id, headers, ingest_subject, new_message_id
from nomnom.grammar import Grammar
from nomnom.positions import position_of
from nomnom.schema import load_schema, parse_schema
from nomnom.settings import SettingsError, WorkerSettings
from nomnom_worker.batches import Batch, Writes, distinct, writes_of
from nomnom_worker.deliveries import Delivery, Reader
from nomnom_worker.link import nak

ORDER = "O|123|456|F|123.45|2024-01-01|urgent|clerk1|1|comment"
TPCH = load_schema("tpch")
DECIMAL = parse_schema(
    "schema: s\nentities:\n"
    "  - {name: t, tag: T, key: [a, b], fields: [{name: a, type: 'decimal(5,2)'}, {name: b, type: bigint}]}"
)
NOW = datetime(2024, 1, 1, tzinfo=UTC)


def message(payload: bytes = ORDER.encode(), number: int = 1, long: bool = False, **changes: Any) -> Msg:
    """A delivery of an order, with the short or the long form of ack subject."""
    message_id = new_message_id()
    where = "hub.abc.MESSAGES" if long else "MESSAGES"
    reply = f"$JS.ACK.{where}.workers.{number}.77.5.1700000000000000000.9" + (".xyz" if long else "")
    given = {"subject": ingest_subject("orders", message_id), "headers": headers(1), "data": payload}
    return Msg(_client=None, reply=reply, **{**given, **changes})


@pytest.mark.parametrize("long", [False, True])
def test_both_forms_of_ack_subjects_are_parsed(long: bool) -> None:
    readings = Reader(Grammar(TPCH), 3).read([message(long=long), message(long=long, number=2)], 1)
    assert [each.number for each in readings.valid] == [1, 2]
    assert (readings.redeliveries, readings.pending) == (1, 9)
    assert {each.position for each in readings.valid} == {position_of(1, 77)}
    assert {each.envelope.position for each in readings.valid} == {position_of(1, 77)}


@pytest.mark.parametrize("long", [False, True])
def test_malformed_message_gets_the_same_envelope_for_each_delivery(long: bool) -> None:
    reader = Reader(Grammar(TPCH), 3)
    strange = [reader.read([message(long=long, number=number, subject="messages.ingest.x")], 1) for number in (1, 9)]
    first, second = (each.failures[0] for each in strange)
    assert first.reason is Reason.ENVELOPE
    assert first.delivery.message_id == copy_id(position_of(1, 77))
    assert first.delivery.envelope == second.delivery.envelope
    assert first.delivery.envelope.received_at == datetime.fromtimestamp(1_700_000_000, UTC)


def test_often_redelivered_messages_are_not_parsed() -> None:
    readings = Reader(Grammar(TPCH), 3).read([message(number=2), message(number=3), message(b"\xff", number=4)], 1)
    assert [each.number for each in readings.valid] == [2]
    assert [(each.number, each.records) for each in readings.redelivered] == [(3, []), (4, [])]


@given(st.lists(st.binary(max_size=60), max_size=8))
def test_no_message_is_lost_whatever_its_payload(payloads: list[bytes]) -> None:
    readings = Reader(Grammar(TPCH), 3).read([message(each) for each in payloads], 1)
    assert len(readings.valid) + len(readings.failures) == len(payloads)


def delivery(text: str, received: int, position: int = 0) -> Delivery:
    """A parsed delivery, received this many microseconds after NOW."""
    envelope = Envelope(new_message_id(), "orders", NOW + timedelta(microseconds=received), position=position)
    return Delivery("", text.encode(), 1, envelope, Grammar(TPCH).parse(text), position)


@pytest.mark.parametrize("legacy", [False, True])
@given(given_rows=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3)), max_size=30), data=st.data())
def test_statement_has_the_last_accepted_row_of_each_key_sorted_by_key(
    legacy: bool, given_rows: list[tuple[int, int]], data: st.DataObject
) -> None:
    """By position, whatever the clocks said; by time if the messages of an earlier version have none."""
    numbers = st.permutations(range(1, len(given_rows) + 1))
    positions = [0] * len(given_rows) if legacy else data.draw(numbers)
    deliveries = [
        delivery(ORDER.replace("123|", f"{key}|", 1), received, position)
        for (key, received), position in zip(given_rows, positions, strict=True)
    ]
    batch = Batch(deliveries, writes_of(TPCH))
    expected: dict[int, tuple[Any, ...]] = {}
    for (key, _), each in zip(given_rows, deliveries, strict=True):
        envelope = each.envelope
        mine = (envelope.position, envelope.received_at, envelope.message_id)
        expected[key] = max(mine, expected.get(key, mine))
    sent: dict[Any, tuple[Any, ...]] = {}
    for statement in batch.statements:
        times, ids, places = statement.columns[-3:]
        sent = dict(zip(statement.columns[0], zip(places, times, ids, strict=True), strict=True))
        assert list(statement.columns[0]) == sorted(statement.columns[0])
    assert sent == expected
    assert batch.offered == len(given_rows)
    ids = [each for together in batch.claims[0] for each in together.split(",") if each]
    assert sorted(ids) == sorted(each.message_id for each in deliveries)


def test_equal_decimal_keys_are_merged() -> None:
    writes = Writes(DECIMAL.entity("t"))
    keys = ["1.0", "1.00", "01", "-1", "10"]
    rows = [(key, 1, NOW, str(at), position_of(1, at)) for at, key in enumerate(keys, 1)]
    ((_, arranged),) = writes.arrange(rows)
    assert [row[0] for row in arranged] == ["-1", "01", "10"]


def test_later_line_wins_within_a_message() -> None:
    text = "\n".join(
        [ORDER, *(f"OLI|1|{part}|1|1|1|0|0|N|O|2024-01-01|2024-01-01|2024-01-01|D|S|c" for part in (1, 2))]
    )
    batch = Batch([delivery(text, 0)], writes_of(TPCH))
    lines = batch.statements[-1]
    assert list(lines.columns[1]) == [2]


def test_rows_without_key_have_a_separate_statement() -> None:
    line = "OLI|1|7|1|1|1|0|0|N|O|2024-01-01|2024-01-01|2024-01-01|D|S|c"
    batch = Batch([delivery(line, 0), delivery(line, 0)], writes_of(TPCH))
    (statement,) = batch.statements
    assert not statement.keyed
    assert len(statement.columns[0]) == 2
    assert list(statement.columns[-2]) == sorted(statement.columns[-2])


def test_tables_are_written_in_schema_order() -> None:
    line = "OLI|1|7|1|1|1|0|0|N|O|2024-01-01|2024-01-01|2024-01-01|D|S|c"
    batch = Batch([delivery(f"{ORDER}\n{line}", 0), delivery("R|1|EUROPE|c", 0)], writes_of(TPCH))
    tables = [each.table.entity.table for each in batch.statements]
    order = [each.table for each in TPCH]
    assert tables == sorted(tables, key=order.index)
    assert len(tables) == 3


@given(st.lists(st.sampled_from("abc")))
def test_distinct(names: list[str]) -> None:
    first, rest = distinct(names, str)
    assert list(first) == list(dict.fromkeys(names))
    assert sorted([*first, *rest]) == sorted(names)


def test_nak_delay_is_in_nanoseconds() -> None:
    assert nak() == b"-NAK"
    assert nak(1.5) == b'-NAK {"delay": 1500000000}'


@pytest.mark.parametrize(
    ("name", "value"),
    [("MAX_DELIVER", "0"), ("BATCH_SIZE", "many"), ("BATCH_BYTES", "1000"), ("WORKER_HEALTH_PORT", "70000")],
)
def test_invalid_setting_is_named_in_the_error(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name):
        WorkerSettings.from_environment({name: value})


def test_settings_from_environment_variables() -> None:
    settings = WorkerSettings.from_environment({"MAX_DELIVER": "5", "BATCH_SIZE": "50", "POLL_INTERVAL_MS": "20"})
    assert (settings.max_deliver, settings.batch_size, settings.poll_interval_ms) == (5, 50, 20)
    assert WorkerSettings.from_environment({}).max_deliver == 3
