"""Identity: ids that sort by time, ids made from keys, subjects, and times without loss."""

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


def test_new_ids_are_of_version_7_and_sort_by_time() -> None:
    ids = [new_message_id() for _ in range(2000)]
    assert {uuid.UUID(each).version for each in ids} == {7}
    assert ids == sorted(ids)
    assert len(set(ids)) == len(ids)


@given(st.text(), st.text(), st.text(), st.text())
def test_a_key_is_one_message_of_one_caller(caller: str, key: str, other_caller: str, other_key: str) -> None:
    made = idempotent_message_id(caller, key)
    assert uuid.UUID(made).version == 5
    assert made == idempotent_message_id(caller, key)
    same = (caller, key) == (other_caller, other_key)
    assert (made == idempotent_message_id(other_caller, other_key)) == same


@pytest.mark.parametrize("text", ["", "x", "123", "{01890a5d-ac96-774b-bcce-b302099a8057", "messages.>"])
def test_what_is_no_id_is_none(text: str) -> None:
    assert parse_message_id(text) is None


def test_a_subject_names_entity_and_message() -> None:
    message_id = new_message_id()
    assert ingest_subject("orders", message_id) == f"messages.ingest.orders.{message_id}"


@given(st.integers(0, 253_402_300_799_999_999))
def test_a_moment_keeps_its_microseconds(moment: int) -> None:
    assert to_microseconds(from_microseconds(moment)) == moment


def test_an_envelope_is_read_from_its_headers() -> None:
    message_id = new_message_id()
    given_headers = headers(message_id, 1_700_000_000_123_456)
    assert given_headers["Nats-Msg-Id"] == message_id
    read = read_envelope(ingest_subject("orders", message_id), given_headers)
    assert (read.message_id, read.entity) == (message_id, "orders")
    assert to_microseconds(read.received_at) == 1_700_000_000_123_456


@given(st.binary(), st.binary())
def test_a_replay_is_one_replay_more_and_known_by_its_payload(payload: bytes, other: bytes) -> None:
    message_id = new_message_id()
    subject = ingest_subject("orders", message_id)
    envelope = read_envelope(subject, headers(message_id, 5))
    replay = replay_headers(envelope, payload)
    again = read_envelope(subject, replay)
    assert (again.message_id, again.received_at, again.replays) == (message_id, envelope.received_at, 1)
    assert (replay_headers(envelope, other)["Nats-Msg-Id"] == replay["Nats-Msg-Id"]) == (payload == other)
    assert replay["Nats-Msg-Id"] != message_id
