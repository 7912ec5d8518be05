"""The names of what several surfaces show. They are lower case; a surface capitalizes them as its style demands."""

from __future__ import annotations

from enum import StrEnum


class Term(StrEnum):
    """A name, used for the same thing everywhere."""

    MESSAGE = "message"
    ENTITY = "entity"
    STATUS = "status"
    RECEIVED = "received"
    PROCESSED = "processed"
    LATENCY = "latency"
    """The time from received to processed."""
    ATTEMPTS = "attempts"
    """How often workers tried a message that is now a dead letter."""
    FAILED_ATTEMPTS = "failed attempts"
    """How often a message failed since it was received, or replayed."""
    REPLAYS = "replays"
    DEAD_LETTER = "dead letter"
    DEAD_LETTERS = "dead letters"
    UNEXPLAINED = "unexplained"
    """Messages that were accepted, of which nothing stored says what became of them: losses."""
    REASON = "reason"
    ERROR = "error"
    FAILED = "failed"
    """When a message became a dead letter."""
    SIZE = "size"
    LAG = "lag"
    """Messages that workers have not acknowledged: pending and in progress."""
    STREAM_LAG = "stream lag"
    """The lag in stored messages, which autoscaling follows: a segment of many messages counts once."""
    PENDING = "pending"
    """Messages that were not delivered to a worker yet."""
