"""Message IDs, subjects, headers and exact times."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nomnom.envelope import (
    from_microseconds,
    headers,
    idempotent_message_id,
    ingest_subject,
    new_message_id,
    parse_message_id,
    read_envelope,
    replay_headers,
    to_microseconds,
)


def test_new_message_ids_are_uuidv7_and_sort_by_time() -> None:
    ids = [new_message_id() for _ in range(2000)]
    assert {uuid.UUID(each).version for each in ids} == {7}
    assert ids == sorted(ids)
    assert len(set(ids)) == len(ids)


@given(st.text(), st.text(), st.text(), st.text())
def test_idempotent_message_ids(caller: str, key: str, other_caller: str, other_key: str) -> None:
    created = idempotent_message_id(caller, key)
    assert uuid.UUID(created).version == 5
    assert created == idempotent_message_id(caller, key)
    same = (caller, key) == (other_caller, other_key)
    assert (created == idempotent_message_id(other_caller, other_key)) == same


@pytest.mark.parametrize("text", ["", "x", "123", "{01890a5d-ac96-774b-bcce-b302099a8057", "messages.>"])
def test_invalid_message_ids_are_none(text: str) -> None:
    assert parse_message_id(text) is None


def test_ingest_subject_contains_entity_and_message_id() -> None:
    message_id = new_message_id()
    assert ingest_subject("orders", message_id) == f"messages.ingest.orders.{message_id}"


@given(st.integers(0, 253_402_300_799_999_999))
def test_times_keep_their_microseconds(microseconds: int) -> None:
    assert to_microseconds(from_microseconds(microseconds)) == microseconds


def test_envelope_is_parsed_from_subject_and_headers() -> None:
    message_id = new_message_id()
    given_headers = headers(1_700_000_000_123_456)
    assert "Nats-Msg-Id" not in given_headers
    assert headers(5, message_id)["Nats-Msg-Id"] == message_id
    read = read_envelope(ingest_subject("orders", message_id), given_headers)
    assert (read.message_id, read.entity) == (message_id, "orders")
    assert to_microseconds(read.received_at) == 1_700_000_000_123_456


@given(st.binary(), st.binary())
def test_replay_increments_the_count_and_is_deduplicated_by_payload(payload: bytes, other: bytes) -> None:
    message_id = new_message_id()
    subject = ingest_subject("orders", message_id)
    envelope = read_envelope(subject, headers(5))
    replay = replay_headers(envelope, payload)
    again = read_envelope(subject, replay)
    assert (again.message_id, again.received_at, again.replays) == (message_id, envelope.received_at, 1)
    assert (replay_headers(envelope, other)["Nats-Msg-Id"] == replay["Nats-Msg-Id"]) == (payload == other)
    assert replay["Nats-Msg-Id"] != message_id
