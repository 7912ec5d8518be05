"""Dead letters, read by sequence and without a consumer: reading changes nothing."""

from nomnom.inspection.dead_letters.dead_letter import DeadLetter, read_dead_letter
from nomnom.inspection.dead_letters.filters import Filter, FilterError, Group, GroupBy, group, parse_moment
from nomnom.inspection.dead_letters.index import DeadLetterIndex, window

__all__ = [
    "DeadLetter",
    "DeadLetterIndex",
    "Filter",
    "FilterError",
    "Group",
    "GroupBy",
    "group",
    "parse_moment",
    "read_dead_letter",
    "window",
]
