"""The query parameters of each operation, as types that validate requests and appear in the OpenAPI document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta, Struct

from nomnom.inspection.cursors import PATTERN
from nomnom.inspection.rows import FILTER_PATTERN
from nomnom_dashboard.answers import Limit
from nomnom_dashboard.errors import InvalidQueryError

T = TypeVar("T", bound=Struct)
Cursor = Annotated[str, Meta(pattern=PATTERN, description="`next` of the previous page.")]
EntityName = Annotated[str, Meta(pattern=r"^[a-z_][a-z0-9_]{0,62}$", description="Name of an entity.")]
Filter = Annotated[str, Meta(pattern=FILTER_PATTERN, max_length=500)]


class NoQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """No parameters."""


class StatsQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """The window of the time series."""

    window: Literal["5m", "1h", "6h", "24h"] = "5m"


class AccountQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """The period of an account."""

    since: Annotated[datetime, Meta(tz=True, description="Received at or after this time.")] | None = None
    until: Annotated[datetime, Meta(tz=True, description="Received before this time.")] | None = None


class RowsQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """A page of an entity's rows."""

    limit: Limit = 50
    cursor: Cursor | None = None
    sort: (
        Annotated[
            str,
            Meta(
                pattern=r"^-?[a-z_][a-z0-9_]{0,62}$",
                description="Column to sort by, prefixed with - for descending order; default: the primary key. "
                "Large tables can be sorted by indexed columns only: see `columns[].sortable`.",
            ),
        ]
        | None
    ) = None
    filter: Annotated[
        list[Filter],
        Meta(
            max_length=8,
            description="`column:operator:value`; repeatable. Operators: eq, ne, lt, lte, gt, gte, "
            "contains (text, case-insensitive) and is (null or value).",
        ),
    ] = []


class MessagesQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """A page of messages."""

    limit: Limit = 50
    cursor: Cursor | None = None
    status: Literal["processing", "completed", "failed", "dlq", "deleted", "purged", "expired"] | None = None
    entity: EntityName | None = None
    error: (
        Annotated[str, Meta(min_length=1, max_length=200, description="Text in the error, case-insensitive.")] | None
    ) = None
    since: Annotated[datetime, Meta(tz=True, description="Received at or after this time.")] | None = None
    until: Annotated[datetime, Meta(tz=True, description="Received before this time.")] | None = None
    id: (
        Annotated[
            str,
            Meta(
                pattern=r"^[0-9a-fA-F]{8}(-?[0-9a-fA-F]){0,24}-?$",
                description="Prefix of a message ID: 8 to 32 hexadecimal digits, with or without hyphens. "
                "Other filters are ignored.",
            ),
        ]
        | None
    ) = None


class DeadLettersQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """A page of dead letters."""

    limit: Limit = 50
    cursor: Cursor | None = None
    reason: Annotated[str, Meta(pattern=r"^[a-z_]{1,40}$", description="Dead-letter reason.")] | None = None
    entity: EntityName | None = None
    text: (
        Annotated[str, Meta(min_length=1, max_length=200, description="Text in the error or the message ID.")] | None
    ) = None


def read_query(kind: type[T], given: Mapping[str, Sequence[str]]) -> T:
    """Parse the parameters of a request; raises InvalidQueryError with the parameter and the allowed values."""
    known = {each.encode_name: each for each in msgspec.structs.fields(kind)}
    if unknown := [name for name in given if name not in known]:
        names = list(known)
        allowed = f"expected {', '.join(names)}" if names else "this operation has no parameters"
        raise InvalidQueryError(f"unknown parameter {unknown[0][:60]!r}: {allowed}", names)
    values: dict[str, Any] = {}
    hints = get_type_hints(kind, include_extras=True)
    for name, texts in given.items():
        if _listed(hints[name]):
            values[name] = list(texts)
        elif len(texts) > 1:
            raise InvalidQueryError(f"{name}: given {len(texts)} times, expected once")
        else:
            values[name] = texts[0]
        if "\0" in "".join(texts):
            raise InvalidQueryError(f"{name}: expected no NUL character")
    try:
        # In lenient mode msgspec accepts numbers as times.
        times = {name: msgspec.convert(values[name], hints[name]) for name in values if _timed(hints[name])}
        query = msgspec.convert(values | times, kind, strict=False)
    except msgspec.ValidationError as error:
        problem, _, place = str(error).partition(" - at `$.")
        name = place.rstrip("`") or next(name for name in values if _timed(hints[name]))
        allowed, description = _allowed(hints.get(name.partition("[")[0]))
        if allowed:
            problem = f"expected one of {', '.join(allowed)}, found {str(values[name])[:60]!r}"
            raise InvalidQueryError(f"{name}: {problem}", allowed) from error
        explained = f"{name}: {problem[0].lower()}{problem[1:]}" + (f". {description}" if description else "")
        raise InvalidQueryError(explained) from error
    # In lenient mode msgspec reads the text "null" as None, which is never a valid value of a given parameter.
    if null := [name for name in values if getattr(query, known[name].name) is None]:
        raise InvalidQueryError(f"{null[0]}: found 'null'. {_allowed(hints[null[0]])[1]}".rstrip())
    return query


def _listed(hint: Any) -> bool:
    return get_origin(get_args(hint)[0] if get_origin(hint) is Annotated else hint) is list


def _timed(hint: Any) -> bool:
    return hint is datetime or any(_timed(part) for part in get_args(hint))


def _allowed(hint: Any) -> tuple[list[str], str]:
    """The values a parameter may have, if they are enumerated, and its description."""
    allowed: list[str] = []
    description = ""
    if get_origin(hint) is Literal:
        return [str(each) for each in get_args(hint)], ""
    for part in get_args(hint):
        if isinstance(part, Meta):
            description = part.description or description
        else:
            more, inner = _allowed(part)
            allowed, description = allowed + more, description or inner
    return allowed, description
