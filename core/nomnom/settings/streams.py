"""The names and limits of a pipeline's streams."""

from __future__ import annotations

from dataclasses import dataclass

DAY = 24 * 60 * 60.0
GIB = 1024**3


@dataclass(frozen=True, slots=True)
class StreamSettings:
    """What a deployment may choose of its streams. Ages and waits in seconds, sizes in bytes."""

    stream: str = "MESSAGES"
    consumer: str = "workers"
    replicas: int = 1
    max_age: float = DAY
    max_bytes: int = GIB
    dead_max_age: float = 7 * DAY
    dead_max_bytes: int = GIB
    ack_wait: float = 30.0
    max_ack_pending: int = 50_000

    @property
    def dead_stream(self) -> str:
        """The stream of the dead letters."""
        return f"{self.stream}DLQ"
