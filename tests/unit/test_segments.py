"""Segments: what the IDs of their messages say, and what is in their content."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nomnom.envelope import (
    EnvelopeError,
    headers,
    idempotent_message_id,
    is_keyed,
    new_message_id,
    open_message,
    open_segment,
    pending_subject,
    read_envelope,
    segment_in,
    segment_subject,
)
from nomnom.segments import (
    MOST,
    bounds_of,
    fits,
    index_of,
    is_in_segment,
    join,
    keyed_segment_id,
    message_ids,
    new_segment_id,
    segment_of,
    size_of,
)

SIZES = st.integers(1, MOST)


def entity(text: str) -> str:
    return text[:1]


@given(SIZES, st.booleans())
def test_ids_say_their_segment_index_and_size(size: int, keyed: bool) -> None:
    segment_id = keyed_segment_id(idempotent_message_id("a", "k")) if keyed else new_segment_id()
    ids = message_ids(segment_id, size)
    assert len(set(ids)) == size
    assert ids == sorted(ids)
    low, high = bounds_of(segment_id)
    for index, each in enumerate(ids):
        assert uuid.UUID(each).version == 8
        assert uuid.UUID(each).variant == uuid.RFC_4122
        assert (segment_of(each), index_of(each), size_of(each)) == (segment_id, index, size)
        assert is_in_segment(each)
        assert is_keyed(each) == keyed
        assert low <= each <= high


def test_segments_sort_by_time_and_do_not_overlap() -> None:
    segments = [new_segment_id() for _ in range(2000)]
    assert len(set(segments)) == len(segments)
    assert not is_in_segment(new_message_id())
    assert not is_in_segment(idempotent_message_id("a", "k"))


@pytest.mark.parametrize("size", [0, -1, MOST + 1])
def test_size_is_limited(size: int) -> None:
    with pytest.raises(ValueError, match="a segment has 1 to 1000 messages"):
        message_ids(new_segment_id(), size)


@given(st.lists(st.binary().filter(fits), min_size=1, max_size=50))
def test_messages_of_a_segment_are_what_was_joined(payloads: list[bytes]) -> None:
    segment_id = new_segment_id()
    subject = segment_subject("mixed", segment_id, len(payloads))
    envelope = read_envelope(subject, headers(5), position=7)
    opened = open_segment(envelope, join(payloads), entity)
    assert [payload for _, payload in opened] == payloads
    assert [own.message_id for own, _ in opened] == message_ids(segment_id, len(payloads))
    assert {(own.received_at, own.position, own.replays, own.size) for own, _ in opened} == {
        (envelope.received_at, 7, 0, 0)
    }


@given(st.binary())
def test_only_message_of_a_segment_may_contain_anything(payload: bytes) -> None:
    opened = open_message(segment_subject("o", new_segment_id(), 1), headers(5), payload, 7, entity)
    assert opened is not None
    assert [content for _, content in opened] == [payload]


@pytest.mark.parametrize("size", ["0", "1001", "x", "-1", "1.5", "\u0662", ""])
def test_invalid_size_in_the_subject_is_reported(size: str) -> None:
    with pytest.raises(EnvelopeError, match="invalid subject"):
        read_envelope(f"messages.ingest.orders.{new_segment_id()}.{size}", headers(5))
    assert open_message(f"messages.ingest.orders.{new_segment_id()}.{size}", headers(5), b"", 7, entity) is None


def test_content_with_another_number_of_messages_is_reported() -> None:
    envelope = read_envelope(segment_subject("o", new_segment_id(), 3), headers(5))
    with pytest.raises(EnvelopeError, match="has 2 messages; expected 3"):
        open_segment(envelope, b"a\x1eb", entity)


def test_subjects_under_which_a_message_is_pending() -> None:
    segment_id = new_segment_id()
    first = message_ids(segment_id, 12)[5]
    assert pending_subject(first) == f"messages.ingest.*.{segment_id}.*"
    assert segment_in(segment_subject("o", segment_id, 12)) == (segment_id, 12)
    alone = new_message_id()
    assert pending_subject(alone) == f"messages.ingest.*.{alone}"
