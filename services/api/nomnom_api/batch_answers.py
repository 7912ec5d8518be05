"""The response to a batch, encoded in parts: with message IDs it may have many megabytes."""

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
    """The result of a batch."""

    count: int
    duplicates: int
    first_id: str
    last_id: str
    numbers: Sequence[int] | None
    """The line numbers of the lines sent; None if the response must not contain IDs."""
    ids: bytearray
    """The message IDs of the lines sent, 16 bytes each."""
    failed: Mapping[int, ApiError]
    """Lines that were not accepted, with their errors."""
    unread: tuple[int, ApiError] | None
    """The first line that was not read, and why; None if all lines were read."""

    @property
    def partial(self) -> bool:
        """Whether any line was not accepted."""
        return bool(self.failed) or self.unread is not None

    @property
    def long(self) -> bool:
        """Whether the response should be streamed."""
        return self.numbers is not None and len(self.numbers) > _CHUNK

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """The headers of the error that ended the batch, such as Retry-After."""
        return list(self.unread[1].headers) if self.unread is not None else []

    def common_error(self) -> ApiError | None:
        """The error shared by all failed lines, or None if they differ."""
        errors = [*self.failed.values(), *([self.unread[1]] if self.unread is not None else [])]
        relevant = [each for each in errors if not isinstance(each, NotSentError)]
        return relevant[0] if len({each.code for each in relevant}) == 1 else None

    def problems(self) -> list[LineProblem]:
        """The lines not accepted; consecutive lines with the same error form one problem."""
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
        """The response as JSON, in parts."""
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
