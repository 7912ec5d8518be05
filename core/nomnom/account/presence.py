"""Which sequences of a stream are stored in it, at one moment."""

from __future__ import annotations

import asyncio
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence

import msgspec

from nomnom.account.ranges import Range, intersect, join, subtract
from nomnom.inspection.jetstream import JetStream, StreamState
from nomnom.inspection.jetstream.requests import API, JetStreamError, read_response

_LISTED = 50_000
"""Deleted sequences that one response lists; more are searched for."""
_CONCURRENCY = 32
_MISSING = 10037
"""JetStream's error code for a message that does not exist."""


class Presence:
    """What a stream stored when it was read from its leader."""

    def __init__(self, jetstream: JetStream, stream: str, state: StreamState) -> None:
        self._jetstream, self._stream, self.state = jetstream, stream, state
        self._limit = asyncio.Semaphore(_CONCURRENCY)

    @classmethod
    async def read(cls, jetstream: JetStream, stream: str) -> Presence:
        """Read the state. Raises NatsUnavailable or NotSetUp."""
        report = await jetstream.stream(stream)
        if report.state.num_deleted <= _LISTED:
            report = await jetstream.stream(stream, deleted=True)
        return cls(jetstream, stream, report.state)

    async def absent(self, ranges: Sequence[Range]) -> list[Range]:
        """The sequences of these ranges that were not stored."""
        state = self.state
        if not state.messages:
            return list(ranges)
        held = intersect(ranges, [(state.first_seq, state.last_seq)])
        outside = subtract(ranges, held)
        if state.deleted is None and state.num_deleted:
            found = await asyncio.gather(*(self._search(low, high) for low, high in held))
            inside = [each for part in found for each in part]
        else:
            deleted = state.deleted or ()
            inside = [
                each
                for low, high in held
                for each in join(deleted[bisect_left(deleted, low) : bisect_right(deleted, high)])
            ]
        return sorted(outside + inside)

    async def _search(self, low: int, high: int) -> list[Range]:
        """The sequences of a range that are not stored now, by halves.

        Only what a response skips counts as absent. A range is complete if the counts fit; messages that arrive in
        between can hide an absent one in a long range for as long as they keep coming.
        """
        above = await self._following(high + 1)
        first = await self._following(low)
        if first is None or first[0] > high:
            return [(low, high)]
        found, pending = first
        skipped = [(low, found - 1)] if found > low else []
        present = pending + 1 - (above[1] + 1 if above else 0)
        if found == high or present >= high - found + 1:
            return skipped
        middle = (found + 1 + high) // 2
        parts = await asyncio.gather(
            self._search(found + 1, middle), self._search(middle + 1, high) if middle < high else _nothing()
        )
        return skipped + parts[0] + parts[1]

    async def _following(self, sequence: int) -> Range | None:
        """The first stored sequence from one on, and how many messages follow it; from any replica."""
        body = msgspec.json.encode({"seq": sequence, "next_by_subj": ">"})
        async with self._limit:
            message = await self._jetstream.nats.request(f"{API}.DIRECT.GET.{self._stream}", body)
        headers = message.headers or {}
        if headers.get("Status") == "404":
            return None
        if "Nats-Num-Pending" not in headers:
            raise JetStreamError(f"stream {self._stream} cannot be read: {headers.get('Description', 'no count')}")
        return int(headers["Nats-Sequence"]), int(headers["Nats-Num-Pending"])


class _Found(msgspec.Struct):
    seq: int


class _Answer(msgspec.Struct):
    message: _Found


async def find_at_leader(jetstream: JetStream, stream: str, body: Mapping[str, int | str]) -> int | None:
    """The sequence of the message that a request (STREAM.MSG.GET) finds; a direct get may ask a replica that lags."""
    response = await jetstream.nats.request(f"{API}.STREAM.MSG.GET.{stream}", msgspec.json.encode(body))
    try:
        return read_response(response.data, _Answer, f"stream {stream}").message.seq
    except JetStreamError as error:
        if error.code == _MISSING:
            return None
        raise


async def _nothing() -> list[Range]:
    return []
