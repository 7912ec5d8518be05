"""Filters, groups and windows over dead letters; number formats."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nomnom.inspection.dead_letters import DeadLetter, Filter, FilterError, GroupBy, group, parse_moment, window
from nomnom.inspection.dead_letters.filters import error_shape
from nomnom.presentation.figures import count, duration, limit, size, size_limit

NOW = datetime(2026, 1, 2, 12, tzinfo=UTC)


def dead_letter(sequence: int, error: str) -> DeadLetter:
    return DeadLetter(sequence, "", f"id{sequence}", "orders", "record", error, 3, NOW, NOW, 0, NOW, 1, b"x")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("reason:none", "'none' is not a reason"),
        ("since:yesterday", "is not a valid time"),
        ("regex:yes error:(", "is not a valid regular expression"),
        ('error:"open', "No closing quotation"),
    ],
)
def test_invalid_filters_are_rejected(text: str, problem: str) -> None:
    with pytest.raises(FilterError, match=problem):
        Filter.parse(text)


def test_time_without_a_zone_is_rejected() -> None:
    with pytest.raises(FilterError, match="has no zone"):
        Filter(since=datetime(2026, 1, 1))  # noqa: DTZ001


def test_words_without_a_name_filter_by_error() -> None:
    assert Filter.parse("expected a 'whole number' http://x") == Filter(error="expected a whole number http://x")
    assert Filter.parse("").empty


def test_durations_are_subtracted_from_now() -> None:
    assert parse_moment("90s", NOW) == NOW - timedelta(seconds=90)
    assert parse_moment("2h", NOW) == NOW - timedelta(hours=2)
    assert parse_moment("2026-01-02T12:00:00Z") == NOW
    assert parse_moment("2026-01-02T12:00").tzinfo is not None


@given(st.lists(st.text(max_size=40), min_size=1, max_size=20))
def test_filter_of_an_error_group_matches_its_members(errors: list[str]) -> None:
    one_line = [" ".join(each.split()) for each in errors]
    dead_letters = [dead_letter(number, error) for number, error in enumerate(one_line)]
    groups = asyncio.run(group(dead_letters, GroupBy.ERROR))
    assert sum(each.count for each in groups) == len(dead_letters)
    for each in groups:
        matches = each.filter.matcher()
        members = {one.sequence for one in dead_letters if error_shape(one.error) == each.key}
        assert members <= {one.sequence for one in dead_letters if matches(one)}


@given(
    st.sets(st.integers(1, 60)),
    st.one_of(st.none(), st.integers(0, 61)),
    st.one_of(st.none(), st.integers(0, 61)),
    st.integers(1, 20),
    st.booleans(),
)
def test_window_is_nearest_to_its_bound(
    existing: set[int],
    after: int | None,
    before: int | None,
    limit_: int,
    newest_first: bool,
) -> None:
    sequences = sorted(existing)
    within = [each for each in sequences if (after is None or each > after) and (before is None or each < before)]
    chosen, older, newer = window(sequences, after, before, limit_, newest_first=newest_first)
    from_below = before is None and (after is not None or not newest_first)
    assert chosen == (within[:limit_] if from_below else within[-limit_:])
    if chosen:
        assert older == (chosen[0] != sequences[0])
        assert newer == (chosen[-1] != sequences[-1])


def test_number_formats() -> None:
    assert [duration(each) for each in (None, 0, 0.25, 12.5, 65, 3600, 90061, -5)] == [
        "–",
        "0s",
        "250ms",
        "12.5s",
        "1m 5s",
        "1h",
        "1d 1h",
        "-5s",
    ]
    assert [size(each) for each in (0, 1023, 1024, 1024**3, 5 * 1024**4)] == [
        "0 B",
        "1023 B",
        "1.0 KiB",
        "1.0 GiB",
        "5.0 TiB",
    ]
    assert (count(1234567), limit(-1), limit(10_000), size_limit(0)) == (
        "1,234,567",
        "unlimited",
        "10,000",
        "unlimited",
    )
