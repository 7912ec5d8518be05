"""Idempotency keys: a key stands for one content, as the IETF's draft on Idempotency-Key requires.

What a key was used for is known from ``nomnom_keys``, which the workers write, and for a pending message from the
stream. A post with a key is compared with that before it is published, and after JetStream recognized a duplicate.
What cannot be compared then, because PostgreSQL is unavailable, is left to the worker: it makes a second content a dead
letter with the reason ``key conflict``. The lookups of concurrent posts are made together.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, auto
from typing import TypeAlias

from nats.errors import Error as NatsError
from nats.js.errors import NotFoundError

from nomnom.connections.errors import RequestError
from nomnom.connections.nats import text_of
from nomnom.connections.postgres import Database
from nomnom.envelope import (
    REMOVED,
    EnvelopeError,
    Status,
    digest_of,
    headers,
    new_message_id,
    pending_subject,
    read_envelope,
    to_microseconds,
)
from nomnom.inspection.jetstream.messages import read_last_each
from nomnom.message_status import FIND_USES
from nomnom.segments import bounds_of, is_in_segment
from nomnom.tasks import end
from nomnom.telemetry import logger
from nomnom_api.errors import ApiError, BusyError, KeyConflictError, UnavailableError
from nomnom_api.publisher import Publisher

_MOST = 500
"""Keys of one lookup; JetStream reads at most 1,024 messages at once."""
_WITHIN = 1.0
"""Seconds for a lookup in PostgreSQL."""
_PAUSE = 2.0
"""Seconds without lookups after PostgreSQL was unavailable: it must not delay what can be accepted without it."""
_log = logger(__name__)


@dataclass(frozen=True, slots=True)
class Use:
    """What a key was used for before. ``digest`` is None if the content is unknown."""

    digest: str | None
    received_at: datetime
    status: Status | None
    pending: bool


class Step(Enum):
    """What to do with a post."""

    PUBLISH = auto()
    REPEAT = auto()
    """Nothing: the same content was accepted before, and is kept."""
    RENEW = auto()
    """Publish although JetStream may remember the key: the same content was accepted before, and removed."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What to do with a post, and when its key was used first, in microseconds; None if it is new."""

    step: Step
    received_at: int | None = None


Uses: TypeAlias = tuple[Mapping[str, Use], bool]
"""The uses by message ID, and whether they are complete: PostgreSQL was available."""


class Keys:
    """Compares posts with the earlier uses of their keys."""

    def __init__(self, publisher: Publisher, database: Database, stream: str, limit: int) -> None:
        self._publisher, self._database, self._stream, self._limit = publisher, database, stream, limit
        self._waiting: list[tuple[list[str], asyncio.Future[Uses]]] = []
        self._wake = asyncio.Event()
        self._running: asyncio.Task[None] | None = None
        self._pause_until = 0.0

    def start(self) -> None:
        """Start to look up keys. Needs a running event loop."""
        self._running = asyncio.create_task(self._run(), name="key lookups")

    async def close(self) -> None:
        """End the lookups."""
        await end(self._running)

    async def judge(self, digests: Mapping[str, str]) -> dict[str, Judgement | KeyConflictError]:
        """What to do with posts, given the digests of their contents by message ID.

        Raises UnavailableError if JetStream cannot be asked, and BusyError.
        """
        uses, _ = await self._find(digests)
        return {
            message_id: _judge(message_id, digest, uses[message_id]) if message_id in uses else Judgement(Step.PUBLISH)
            for message_id, digest in digests.items()
        }

    async def publish(self, message_id: str, subject: str, payload: bytes, received_at: int) -> tuple[int, bool]:
        """Publish a message with a key unless it is kept already; returns when it was received first, in microseconds,
        and whether it is a duplicate.

        Raises KeyConflictError, or as :meth:`Publisher.publish`.
        """
        judged = (await self.judge({message_id: digest_of(payload)}))[message_id]
        if isinstance(judged, KeyConflictError):
            raise judged
        first = received_at if judged.received_at is None else judged.received_at
        if judged.step is Step.REPEAT:
            return first, True
        envelope = message_headers(message_id, first, judged.step)
        ack = await self._publisher.publish(subject, payload, envelope)
        return first, ack.duplicate and not await self.confirm(message_id, subject, payload, first, ack.seq)

    async def confirm(self, message_id: str, subject: str, payload: bytes, received_at: int, sequence: int) -> bool:
        """Publish a message after all that JetStream recognized as a duplicate of ``sequence``, unless it is kept;
        returns whether that was necessary.

        Raises KeyConflictError, or as :meth:`Publisher.publish`.
        """
        if await self._is_kept(message_id, digest_of(payload), sequence):
            return False
        await self._publisher.publish(subject, payload, message_headers(message_id, received_at, Step.RENEW))
        return True

    async def _is_kept(self, message_id: str, digest: str, sequence: int) -> bool:
        stored = await self._stored(message_id, sequence)
        if stored is not None:
            if digest_of(stored) != digest:
                raise _conflict(message_id)
            return True
        uses, complete = await self._find([message_id])
        use = uses.get(message_id)
        if use is None and not complete:
            raise UnavailableError(
                "the Idempotency-Key was used before, and PostgreSQL, which knows its content, is unavailable: the "
                f"message was not stored again; retry ({self._database.problem})"
            )
        if use is None:
            return False
        judged = _judge(message_id, digest, use)
        if isinstance(judged, KeyConflictError):
            raise judged
        return judged.step is Step.REPEAT

    async def _stored(self, message_id: str, sequence: int) -> bytes | None:
        """The content of a pending message. Not a direct get: a lagging replica might not have it yet."""
        jetstream = self._publisher.client().jetstream(timeout=_WITHIN)
        try:
            found = await jetstream.get_msg(self._stream, sequence)
        except NotFoundError:
            return None
        except (NatsError, OSError, TimeoutError) as error:
            raise UnavailableError(f"JetStream is unavailable: {text_of(error)}; retry") from error
        return found.data or b"" if message_id in (found.subject or "").split(".") else None

    async def _find(self, message_ids: Iterable[str]) -> Uses:
        if len(self._waiting) >= self._limit:
            raise BusyError(f"too many lookups of keys (limit {self._limit:,}); retry")
        found: asyncio.Future[Uses] = asyncio.get_running_loop().create_future()
        self._waiting.append((list(message_ids), found))
        self._wake.set()
        return await found

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                waiting, self._waiting = self._waiting, []
                ids = list(dict.fromkeys(each for given, _ in waiting for each in given))
                try:
                    found: Uses | ApiError = await self._look_up(ids)
                except (ApiError, RequestError) as error:
                    found = error if isinstance(error, ApiError) else UnavailableError(str(error))
                for _, future in waiting:
                    if future.done():  # its request was cancelled
                        continue
                    if isinstance(found, ApiError):
                        future.set_exception(found)
                    else:
                        future.set_result(found)

    async def _look_up(self, message_ids: list[str]) -> Uses:
        self._publisher.client()  # raises if NATS is unavailable
        uses: dict[str, Use] = {}
        complete = True
        for start in range(0, len(message_ids), _MOST):
            ids = message_ids[start : start + _MOST]
            # Pending messages first: one that is processed meanwhile has a row then.
            pending = await self._pending(ids)
            known = await self._known(ids)
            complete = complete and known is not None
            for each in ids:
                use, stored = (known or {}).get(each), pending.get(each)
                if use is not None:
                    uses[each] = Use(use.digest, use.received_at, use.status, stored is not None)
                elif stored is not None:
                    uses[each] = stored
        return uses, complete

    async def _pending(self, message_ids: list[str]) -> dict[str, Use]:
        subjects = [pending_subject(each) for each in message_ids]
        uses: dict[str, Use] = {}
        for each in await read_last_each(self._publisher.nats, self._stream, subjects):
            try:
                envelope = read_envelope(each.subject, each.headers)
            except EnvelopeError:
                continue  # not published by the API
            # The content of a replay may have been fixed.
            digest = None if envelope.replays else digest_of(each.payload)
            uses[envelope.message_id] = Use(digest, envelope.received_at, None, pending=True)
        return uses

    async def _known(self, message_ids: list[str]) -> dict[str, Use] | None:
        """The uses in PostgreSQL; None while it is unavailable."""
        now = asyncio.get_running_loop().time
        if now() < self._pause_until:
            return None
        try:
            lasts = [bounds_of(each)[1] if is_in_segment(each) else each for each in message_ids]
            rows = await self._database.fetch(FIND_USES, message_ids, lasts, within=_WITHIN)
        except RequestError as error:
            _log.debug("lookup of keys failed", reason=str(error))
            self._pause_until = now() + _PAUSE
            return None
        return {
            str(row["message_id"]): Use(
                row["digest"], row["received_at"], Status(row["status"]) if row["status"] else None, pending=False
            )
            for row in rows
        }


def message_headers(message_id: str, received_at: int, step: Step) -> dict[str, str]:
    """The headers of a message with a key; JetStream does not recognize one that is renewed as a duplicate."""
    return headers(received_at, f"{message_id}.{new_message_id()}" if step is Step.RENEW else message_id)


def _judge(message_id: str, digest: str, use: Use) -> Judgement | KeyConflictError:
    if use.digest not in (None, digest):
        return _conflict(message_id)
    if use.pending or (use.status is not None and use.status not in REMOVED):
        step = Step.REPEAT
    else:
        step = Step.PUBLISH if use.status is None else Step.RENEW
    return Judgement(step, to_microseconds(use.received_at))


def _conflict(message_id: str) -> KeyConflictError:
    return KeyConflictError(
        f"the Idempotency-Key was used before, for another content (message {message_id}); nothing was stored: use "
        "another key for another content"
    )
