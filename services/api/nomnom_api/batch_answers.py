"""The answer to a batch, written in parts: with ids it may be many megabytes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from nomnom_api.answers import LineProblem
from nomnom_api.errors import ApiError, NotSentError

_ID = 16
_CHUNK = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchAnswer:
    """What became of a batch's lines."""

    count: int
    duplicates: int
    first_id: str
    last_id: str
    numbers: Sequence[int] | None
    """The lines that were sent; None where no ids are wanted."""
    ids: bytearray
    """Their ids, 16 bytes each."""
    failed: Mapping[int, ApiError]
    """Lines that were not accepted."""
    unread: tuple[int, ApiError] | None
    """The first line of those that were not looked at, and why."""

    @property
    def partial(self) -> bool:
        """Whether some line was not accepted."""
        return bool(self.failed) or self.unread is not None

    @property
    def long(self) -> bool:
        """Whether it is better written in parts."""
        return self.numbers is not None and len(self.numbers) > _CHUNK

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """Those of the error that ended it: when to post the rest, whether the connection can be used."""
        return list(self.unread[1].headers) if self.unread is not None else []

    def common_error(self) -> ApiError | None:
        """The error that all lines have in common, if they have."""
        errors = [*self.failed.values(), *([self.unread[1]] if self.unread is not None else [])]
        told = [each for each in errors if not isinstance(each, NotSentError)]
        return told[0] if len({each.code for each in told}) == 1 else None

    def problems(self) -> list[LineProblem]:
        """What was not accepted; lines that follow one another and share a reason are one."""
        found: list[LineProblem] = []
        first = last = 0
        reason: ApiError | None = None
        for line in sorted(self.failed):
            error = self.failed[line]
            if reason is not None and line == last + 1 and (error.code, str(error)) == (reason.code, str(reason)):
                last = line
                continue
            if reason is not None:
                found.append(_problem(first, last, reason))
            first, last, reason = line, line, error
        if reason is not None:
            found.append(_problem(first, last, reason))
        if self.unread is not None:
            found.append(_problem(self.unread[0], None, self.unread[1]))
        return found

    def parts(self) -> Iterator[bytes]:
        """The answer as JSON."""
        yield b'{"count":%d' % self.count
        if self.duplicates:
            yield b',"duplicates":%d' % self.duplicates
        if self.partial:
            yield b',"problems":' + msgspec.json.encode(self.problems())
            if self.numbers is not None:
                yield b',"accepted":['
                yield from self._accepted_lines(self.numbers)
                yield b"]"
        elif self.numbers is None:
            yield f',"first_id":"{self.first_id}","last_id":"{self.last_id}"'.encode()
        else:
            yield b',"ids":['
            for start in range(0, len(self.numbers), _CHUNK):
                stop = min(start + _CHUNK, len(self.numbers))
                ids = ",".join(f'"{self._id(at)}"' for at in range(start, stop))
                yield (("," if start else "") + ids).encode()
            yield b"]"
        yield b"}"

    def _accepted_lines(self, numbers: Sequence[int]) -> Iterator[bytes]:
        comma = ""
        for start in range(0, len(numbers), _CHUNK):
            stop = min(start + _CHUNK, len(numbers))
            lines = ",".join(
                f'{{"line":{numbers[at]},"id":"{self._id(at)}"}}'
                for at in range(start, stop)
                if numbers[at] not in self.failed
            )
            if lines:
                yield (comma + lines).encode()
                comma = ","

    def _id(self, at: int) -> str:
        text = self.ids[at * _ID : (at + 1) * _ID].hex()
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def _problem(first: int, last: int | None, error: ApiError) -> LineProblem:
    return LineProblem(first, last, error.status, error.code, str(error))
