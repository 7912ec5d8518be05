"""Decides when an atomic batch pays: it has a price of its own, and its messages share one fsync."""

from __future__ import annotations

import math

_PART = 50e-6
"""Seconds of nats-server for one message of an atomic batch; measured, nearly independent of the disk."""
_SINGLE, _GROUP = 500e-6, 5e-3
"""What is assumed of a server until it was measured: an fsync of half a millisecond, and ten times that for a batch."""
_WEIGHT_SINGLE, _WEIGHT_GROUP = 0.05, 0.2
_OUTLIER = 4.0
"""A sample counts as at most this many times the present estimate: one pause of the machine must not decide."""
_FADE = 0.9995
"""What remains of the price of a batch after each message on its own: a price that was too high is tried again."""
_LEAST = 2


class Pace:
    """Estimates from acks what a message costs on its own, and what an atomic batch costs.

    JetStream handles the messages of a connection one after another. While several await their acks, the time between
    two acks is the cost of one message: an fsync, or some microseconds if nats-server acknowledges before it. An atomic
    batch costs several fsyncs and files of its own (nats-server 2.15 with one replica), however small it is.
    """

    def __init__(self) -> None:
        self._single, self._group = _SINGLE, _GROUP
        self._last = -math.inf
        """When the last ack arrived."""

    @property
    def threshold(self) -> float:
        """Messages up to this number are sooner stored one by one than as one batch."""
        saved = self._single - _PART
        return max(_LEAST, self._group / saved) if saved > 0 else math.inf

    def single(self, sent: float, acked: float) -> None:
        """Learn from a message on its own."""
        if sent < self._last:  # otherwise the time includes the way there and back
            sample = min(acked - self._last, _OUTLIER * self._single)
            self._single += _WEIGHT_SINGLE * (sample - self._single)
            if self._group > _GROUP:
                self._group *= _FADE
        self._last = acked

    def group(self, sent: float, acked: float, count: int) -> None:
        """Learn from an atomic batch."""
        sample = min(max(acked - sent - count * _PART, _PART), _OUTLIER * self._group)
        self._group += _WEIGHT_GROUP * (sample - self._group)
        self._last = acked
