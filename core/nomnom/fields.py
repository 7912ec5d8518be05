"""Field types: how values are encoded on the wire, validated, bound to statements and stored.

A regular expression checks the syntax of a value first; a conversion then checks its meaning (the date exists, the
number is within range). The same expression matches a single field and, joined with the others, a whole line.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import lru_cache

Value = int | str | bool | None
"""A parsed value, ready to bind. Decimals, dates and times are validated but remain text for PostgreSQL to parse: a
float would lose digits, and asyncpg converts the minimum and the maximum date to -infinity and infinity."""
Native = Value | Decimal | date | datetime
"""A value as a native Python type, for comparisons."""

_BIGINT = (-(2**63), 2**63 - 1)
_INTEGER = (-(2**31), 2**31 - 1)
_TEXT = r"[^|\\\n\r\0]"
_TRUE, _FALSE = "true", "false"


@dataclass(frozen=True, slots=True)
class FieldType:
    """A field type with its parameters.

    ``pattern`` matches every well-formed wire value without escapes; ``convert`` turns it into the value to bind and
    raises ValueError if the syntax is valid but the value is not; ``parameter`` is the array element type of statement
    parameters and ``column`` the type of the column.
    """

    name: str
    column: str
    parameter: str
    pattern: str
    expected: str
    convert: Callable[[str], Value] | None = None
    numeric: bool = False
    textual: bool = False
    length: int | None = None
    precision: int | None = None
    scale: int | None = None

    def native(self, value: Value) -> Native:
        """The value as Decimal, date or datetime in UTC, if its type is one of those."""
        read = _NATIVE.get(self.name)
        return read(value) if read is not None and isinstance(value, str) else value


def _bounded(low: int, high: int) -> Callable[[str], int]:
    def convert(text: str) -> int:
        number = int(text)
        if not low <= number <= high:
            raise ValueError(text)
        return number

    return convert


_NATIVE: dict[str, Callable[[str], Native]] = {
    "decimal": Decimal,
    "date": date.fromisoformat,
    "timestamp": datetime.fromisoformat,
}


@lru_cache(maxsize=1 << 14)
def _date(text: str) -> str:
    date.fromisoformat(text)
    return text


def _timestamp(text: str) -> str:
    """Normalize to UTC: equal times must have equal text, because keys are compared as text."""
    time = datetime.fromisoformat(text)
    time = time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
    return time.isoformat().replace("+00:00", "Z")


def _boolean(text: str) -> bool:
    return text == _TRUE


def _unpadded(text: str) -> str:
    return text.rstrip(" ")


def _decimal(precision: int, scale: int) -> FieldType:
    whole = precision - scale
    point = rf"(?:\.[0-9]{{1,{scale}}})?" if scale else ""
    shape = f"-?[0-9]{{1,{whole}}}{point}" if whole else rf"-?0?\.[0-9]{{1,{scale}}}"
    return FieldType(
        name="decimal",
        column=f"numeric({precision},{scale})",
        parameter="text",
        pattern=shape,
        expected=f"a decimal number with at most {whole} digits before and {scale} after the point",
        numeric=True,
        precision=precision,
        scale=scale,
    )


def _text(name: str, length: int) -> FieldType:
    return FieldType(
        name=name,
        column=f"{name}({length})",
        parameter="text",
        pattern=f"{_TEXT}{{0,{length}}}",
        expected=f"at most {length} character{'' if length == 1 else 's'}",
        # In SQL, char(n) is compared without trailing spaces, and PostgreSQL pads it on read.
        convert=_unpadded if name == "char" else None,
        textual=True,
        length=length,
    )


_PLAIN: dict[str, FieldType] = {
    "bigint": FieldType(
        "bigint", "bigint", "bigint", r"-?[0-9]{1,19}", "a whole number", _bounded(*_BIGINT), numeric=True
    ),
    "integer": FieldType(
        "integer",
        "integer",
        "integer",
        r"-?[0-9]{1,10}",
        "a whole number from -2147483648 to 2147483647",
        _bounded(*_INTEGER),
        numeric=True,
    ),
    "date": FieldType("date", "date", "text", r"[0-9]{4}-[0-9]{2}-[0-9]{2}", "a date as YYYY-MM-DD", _date),
    "timestamp": FieldType(
        "timestamp",
        "timestamptz",
        "text",
        r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?(?:Z|[+-][0-9]{2}:?[0-9]{2})?",
        "a time as YYYY-MM-DDTHH:MM:SS, with a zone or in UTC",
        _timestamp,
    ),
    "boolean": FieldType("boolean", "boolean", "boolean", f"{_TRUE}|{_FALSE}", "true or false", _boolean),
    "text": FieldType("text", "text", "text", f"{_TEXT}*", "text", textual=True),
}

_PARAMETRIC = re.compile(r"(char|varchar|decimal)\(\s*([0-9]{1,5})\s*(?:,\s*([0-9]{1,4})\s*)?\)")
TYPE_NAMES = "bigint, integer, decimal(p,s), date, timestamp, boolean, char(n), varchar(n), text"


def field_type(text: str) -> FieldType:
    """Parse a type name of a schema file; raises ValueError with the valid types."""
    if plain := _PLAIN.get(text):
        return plain
    if match := _PARAMETRIC.fullmatch(text):
        name, first, second = match[1], int(match[2]), match[3]
        if name == "decimal" and second is not None and 1 <= first <= 1000 and int(second) <= first:
            return _decimal(first, int(second))
        if name != "decimal" and second is None and first >= 1:
            return _text(name, first)
    raise ValueError(f"one of {TYPE_NAMES}")


def render(kind: FieldType, value: Value) -> str:
    """The wire text of a value, without escapes; ``convert`` turns it back into the same value."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return _TRUE if value else _FALSE
    return value.rstrip(" ") if kind.name == "char" and isinstance(value, str) else str(value)
