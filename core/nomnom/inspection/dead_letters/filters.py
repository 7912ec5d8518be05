"""Which dead letters: a filter, and groups of those that match."""

from __future__ import annotations

import asyncio
import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from nomnom.connections.errors import RequestError
from nomnom.envelope import Reason
from nomnom.inspection.dead_letters.dead_letter import DeadLetter

_QUOTED = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"")
_DIGITS = re.compile(r"\d+")
_SPAN = re.compile(r"(\d+)(s|m|h|d)")
_STRIDE = 1000
"""Dead letters counted before the event loop gets its turn."""
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class FilterError(RequestError):
    """A filter that is not valid."""


@dataclass(frozen=True, slots=True)
class Filter:
    """What a dead letter must have; an empty filter matches all.

    ``entities`` and ``reasons``: one of them. ``error`` and ``payload``: contained, ignoring case, or, with ``regex``,
    found as a regular expression. ``text``: contained in the error or in the message id, ignoring case.
    ``message_id``: its beginning. ``since`` (included) and ``until`` (excluded): when the message failed.
    """

    entities: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    error: str = ""
    payload: str = ""
    message_id: str = ""
    text: str = ""
    since: datetime | None = None
    until: datetime | None = None
    regex: bool = False

    def __post_init__(self) -> None:
        for name in ("error", "payload"):
            if self.regex:
                pattern = getattr(self, name)
                try:
                    re.compile(pattern)
                except re.error as problem:
                    raise FilterError(
                        f"{name} filter {pattern!r} is not a valid regular expression: {problem}"
                    ) from problem
        for moment in (self.since, self.until):
            if moment is not None and moment.tzinfo is None:
                raise FilterError(f"the time {moment} has no zone")

    @property
    def empty(self) -> bool:
        """Whether it matches everything."""
        return all(not getattr(self, each.name) for each in fields(self) if each.name != "regex")

    def matcher(self) -> Callable[[DeadLetter], bool]:
        """The test of a dead letter; ``payload`` is tested by :meth:`payload_matcher`."""
        finds = self._finder(self.error)
        prefix, text = self.message_id.lower(), self.text.casefold()

        def matches(dead_letter: DeadLetter) -> bool:
            return (
                (not self.entities or dead_letter.entity in self.entities)
                and (not self.reasons or dead_letter.reason in self.reasons)
                and (not prefix or dead_letter.message_id.startswith(prefix))
                and (self.since is None or dead_letter.failed_at >= self.since)
                and (self.until is None or dead_letter.failed_at < self.until)
                and (finds is None or finds(dead_letter.error))
                and (not text or text in f"{dead_letter.error} {dead_letter.message_id}".casefold())
            )

        return matches

    def payload_matcher(self) -> Callable[[bytes], bool] | None:
        """The test of a payload; None if payloads need not be read."""
        finds = self._finder(self.payload)
        return None if finds is None else lambda payload: finds(payload.decode("utf-8", errors="replace"))

    def _finder(self, text: str) -> Callable[[str], bool] | None:
        if not text:
            return None
        if self.regex:
            search = re.compile(text, re.IGNORECASE).search
            return lambda found: search(found) is not None
        wanted = text.casefold()
        return lambda found: wanted in found.casefold()

    def describe(self) -> str:
        """The filter as :meth:`parse` reads it."""
        parts = [f"entity:{each}" for each in self.entities] + [f"reason:{each}" for each in self.reasons]
        for name, value in (
            ("error", self.error),
            ("payload", self.payload),
            ("id", self.message_id),
            ("text", self.text),
        ):
            if value:
                parts.append(shlex.quote(f"{name}:{value}"))
        for name, moment in (("since", self.since), ("until", self.until)):
            if moment is not None:
                parts.append(f"{name}:{moment.isoformat()}")
        return " ".join([*parts, "regex:yes"] if self.regex else parts)

    @classmethod
    def parse(cls, text: str) -> Filter:
        """Read a line such as ``entity:orders reason:record since:2h "error:expected a date"``; raises FilterError.

        A word without a name is searched for in the error. Times are ISO 8601 (this machine's zone where none is given)
        or a span back from now: ``90s``, ``15m``, ``2h``, ``7d``.
        """
        try:
            words = shlex.split(text)
        except ValueError as problem:
            raise FilterError(f"filter {text!r}: {problem}") from problem
        given: dict[str, list[str]] = {}
        for word in words:
            name, colon, value = word.partition(":")
            if not colon or name not in _NAMES:
                name, value = "error", word
            given.setdefault(name, []).append(value)
        unknown = [each for each in given.get("reason", []) if each not in set(Reason)]
        if unknown:
            raise FilterError(f"{unknown[0]!r} is not a reason; expected {', '.join(Reason)}")
        return cls(
            entities=tuple(given.get("entity", [])),
            reasons=tuple(given.get("reason", [])),
            error=" ".join(given.get("error", [])),
            payload=" ".join(given.get("payload", [])),
            message_id="".join(given.get("id", [])),
            text=" ".join(given.get("text", [])),
            since=parse_moment(given["since"][-1]) if "since" in given else None,
            until=parse_moment(given["until"][-1]) if "until" in given else None,
            regex=given.get("regex", ["no"])[-1] in ("yes", "true", "1", ""),
        )


_NAMES = ("entity", "reason", "error", "payload", "id", "text", "since", "until", "regex")


def parse_moment(text: str, now: datetime | None = None) -> datetime:
    """A time as a person writes it: ISO 8601, or a span back from now (``15m``); raises FilterError."""
    if match := _SPAN.fullmatch(text):
        return (now or datetime.now(UTC)) - timedelta(seconds=int(match[1]) * _UNITS[match[2]])
    try:
        return datetime.fromisoformat(text).astimezone()
    except ValueError as problem:
        expected = "2026-01-31T12:00, or a span back such as 15m, 2h, 7d"
        raise FilterError(f"{text!r} is not a valid time: expected {expected}") from problem


class GroupBy(StrEnum):
    """What dead letters are counted by. ``error`` counts errors that differ only in values and numbers as one."""

    REASON = "reason"
    ENTITY = "entity"
    KIND = "kind"
    """Reason and entity."""
    ERROR = "error"


@dataclass(slots=True)
class Group:
    """Dead letters with something in common: how many, failed from ``oldest`` to ``newest``, and one as an example."""

    by: GroupBy
    key: str
    count: int
    oldest: datetime
    newest: datetime
    example: int
    """The sequence of the last one."""
    filter: Filter
    """What matches exactly (for errors: at least) these, beside the filter they were grouped under."""


def error_shape(error: str) -> str:
    """An error without its values and numbers."""
    return _DIGITS.sub("#", _QUOTED.sub("…", error))


def _shape_pattern(shape: str) -> str:
    signs = {"#": r"(?:\d+|#)", "…": ".*"}
    return "^" + "".join(signs.get(each) or re.escape(each) for each in re.split("([#…])", shape)) + "$"


def group_key(by: GroupBy) -> Callable[[DeadLetter], str]:
    """What the dead letters of a group have in common."""
    if by is GroupBy.REASON:
        return lambda dead_letter: dead_letter.reason
    if by is GroupBy.ENTITY:
        return lambda dead_letter: dead_letter.entity
    if by is GroupBy.KIND:
        return lambda dead_letter: f"{dead_letter.reason} {dead_letter.entity}"
    return lambda dead_letter: error_shape(dead_letter.error)


async def group(dead_letters: Sequence[DeadLetter], by: GroupBy) -> list[Group]:
    """The groups of these dead letters (in ascending sequence), the largest first."""
    key_of = group_key(by)
    found: dict[str, Group] = {}
    for number, dead_letter in enumerate(dead_letters):
        if number % _STRIDE == 0:
            await asyncio.sleep(0)
        key = key_of(dead_letter)
        known = found.get(key)
        if known is None:
            found[key] = Group(
                by,
                key,
                1,
                dead_letter.failed_at,
                dead_letter.failed_at,
                dead_letter.sequence,
                _group_filter(by, dead_letter),
            )
        else:
            known.count += 1
            known.oldest = min(known.oldest, dead_letter.failed_at)
            known.newest = max(known.newest, dead_letter.failed_at)
            known.example = dead_letter.sequence
    return sorted(found.values(), key=lambda each: (-each.count, each.key))


def _group_filter(by: GroupBy, dead_letter: DeadLetter) -> Filter:
    if by is GroupBy.ERROR:
        return Filter(error=_shape_pattern(error_shape(dead_letter.error)), regex=True)
    return Filter(
        entities=() if by is GroupBy.REASON else (dead_letter.entity,),
        reasons=() if by is GroupBy.ENTITY else (dead_letter.reason,),
    )
