"""Field types: how a value is written on the wire, checked, bound to a statement and stored.

A value is checked by a regular expression first (its shape) and then by a conversion (its meaning: a date that exists,
a number within its range). The same expression serves a single field and, joined with its neighbours, a whole line.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal

Value = int | str | bool | None
"""A parsed value as it is bound. Decimals, dates and times are checked and stay texts, which PostgreSQL reads: a float
would lose digits, and asyncpg turns the first and the last date there is into -infinity and infinity."""
Native = Value | Decimal | date | datetime
"""A value as Python counts with it."""

_BIGINT = (-(2**63), 2**63 - 1)
_INTEGER = (-(2**31), 2**31 - 1)
_TEXT = r"[^|\\\n\r\0]"
_TRUE, _FALSE = "true", "false"


@dataclass(frozen=True, slots=True)
class FieldType:
    """One type with its parameters filled in.

    ``pattern`` matches every well-formed wire value that holds no escape; ``convert`` turns such a text into what is
    bound, raising ValueError where the shape is right and the value is not; ``parameter`` is the array element type a
    statement takes and ``column`` the column's type.
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
        """The value as Python counts with it: Decimal, date, datetime in UTC."""
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


def _date(text: str) -> str:
    date.fromisoformat(text)
    return text


def _timestamp(text: str) -> str:
    """One moment has one text, whatever its zone was: keys are compared by it."""
    moment = datetime.fromisoformat(text)
    moment = moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    return moment.isoformat().replace("+00:00", "Z")


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
        expected=f"at most {length} characters",
        # char(n) compares without its trailing spaces (SQL), and PostgreSQL pads it again when it is read.
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
    """The type that a schema file calls ``text``; raises ValueError, naming the types there are."""
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
    """The wire text of a value, without escapes: what ``convert`` reads back to the same value."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return _TRUE if value else _FALSE
    return value.rstrip(" ") if kind.name == "char" and isinstance(value, str) else str(value)
