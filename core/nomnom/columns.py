"""Columns as parameters of a statement: each is one text, which PostgreSQL takes apart into an array.

asyncpg encodes an array element by element, which costs several times what joining their texts costs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_SEPARATOR, _NULL = "\n", "\r"
"""Characters that no value contains (:mod:`nomnom.fields`)."""


def array(number: int, kind: str) -> str:
    """The SQL of the array that parameter ``$number`` contains, with elements of a type."""
    # What is before the first separator is no element: an empty text could be no element or an empty one.
    texts = f"(string_to_array(${number}::text, E'\\n', E'\\r'))[2:]"
    return texts if kind == "text" else f"{texts}::{kind}[]"


def column(values: Sequence[Any]) -> str:
    """The parameter for :func:`array`. Raises ValueError if a value contains a separator."""
    try:
        text = _SEPARATOR.join(values)
    except TypeError:
        text = _SEPARATOR.join([each if type(each) is str else _NULL if each is None else str(each) for each in values])
    if text.count(_SEPARATOR) != max(0, len(values) - 1):
        raise ValueError("a value contains a line break")
    return _SEPARATOR + text if values else ""
