"""Ranges of integers: both ends included, ascending and disjoint."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

Range: TypeAlias = tuple[int, int]


def size_of(ranges: Iterable[Range]) -> int:
    """How many integers the ranges hold."""
    return sum(high - low + 1 for low, high in ranges)


def intersect(one: Sequence[Range], other: Sequence[Range]) -> list[Range]:
    """What two sequences of ranges have in common."""
    found: list[Range] = []
    at = 0
    for low, high in one:
        while at < len(other) and other[at][1] < low:
            at += 1
        index = at
        while index < len(other) and other[index][0] <= high:
            found.append((max(low, other[index][0]), min(high, other[index][1])))
            index += 1
    return found


def subtract(ranges: Sequence[Range], removed: Sequence[Range]) -> list[Range]:
    """The ranges without what is in the removed ones."""
    found: list[Range] = []
    for low, high in ranges:
        start = low
        for cut_low, cut_high in intersect([(low, high)], removed):
            if cut_low > start:
                found.append((start, cut_low - 1))
            start = cut_high + 1
        if start <= high:
            found.append((start, high))
    return found


def join(values: Iterable[int]) -> list[Range]:
    """Ascending integers as ranges."""
    found: list[Range] = []
    for value in values:
        if found and found[-1][1] == value - 1:
            found[-1] = (found[-1][0], value)
        else:
            found.append((value, value))
    return found
