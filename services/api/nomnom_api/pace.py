"""Decides when an atomic batch pays: it has a price of its own, and its messages share one fsync."""

from __future__ import annotations

import math
from collections import deque

_PART = 50e-6
"""Seconds of nats-server for one message of an atomic batch; measured, nearly independent of the disk."""
_SINGLE, _GROUP = 500e-6, 5e-3
"""What is assumed of a server until it is measured: an fsync of half a millisecond, and ten times that for a batch."""
_SAMPLES = 8
_DEPTH = 4
"""A round with fewer messages under way on average says how fast they came, not what they cost."""
_ROUND = 0.5
"""Seconds after which a round of messages on their own must end, so that it can be measured."""
_LEAST = 2
_MOMENT = 5e-3
PROBE = 8
"""Messages of a round that is measured. Such a round is inserted now and then if all others are batches."""
_PROBE_EVERY, _PROBE_SHARE = 0.25, 32
_DOUBT = 16
"""After so many rounds of messages on their own, the assumed price of a batch replaces one that was measured."""


class Pace:
    """Estimates from acks what a message costs on its own, and what an atomic batch costs.

    JetStream handles the messages of a connection one after another: each costs an fsync, or some microseconds if
    nats-server acknowledges before it. An atomic batch costs several fsyncs and files of its own (nats-server 2.15 with
    one replica), however small it is. Rounds are measured as a whole, because acks arrive in bunches, and the least of
    the last few counts, because whatever else happens on the machine only adds to it.
    """

    def __init__(self) -> None:
        self._singles = deque[float](maxlen=_SAMPLES)
        self._groups = deque([_GROUP] * _SAMPLES, maxlen=_SAMPLES)
        self._doubt = 0
        self.threshold = 0.0
        """Messages up to this number are sooner stored one by one than as one batch."""
        self.begun = 0.0
        """When the last round of messages on their own began."""
        self._waited = self._probe_at = 0.0
        self._count = 0
        self._decide()

    def begin(self, now: float) -> None:
        """Begin a round of messages on their own."""
        self.begun, self._count, self._waited = now, 0, 0.0

    def is_open(self, now: float) -> bool:
        """Whether messages may still join the round of messages on their own."""
        return now - self.begun < _ROUND

    def single(self, sent: float, now: float, under_way: int) -> None:
        """Learn from the ack of a message on its own; ``under_way`` others await theirs."""
        self._count += 1
        self._waited += now - sent
        seconds = now - self.begun
        if not under_way and self._count >= PROBE and self._waited >= _DEPTH * seconds:
            self._singles.append(seconds / self._count)
            self._doubt += 1
            if self._doubt % _DOUBT == 0:
                self._groups.append(_GROUP)
            self._decide()

    def group(self, seconds: float, count: int) -> None:
        """Learn from an atomic batch: the time from its first message to its ack."""
        self._groups.append(max(seconds - count * _PART, _PART))
        self._decide()

    def probe(self, now: float) -> bool:
        """Whether it is time to learn what messages cost on their own. It takes a few percent of the time."""
        if now < self._probe_at:
            return False
        self._probe_at = now + max(_PROBE_EVERY, _PROBE_SHARE * PROBE * min(self._singles, default=_SINGLE))
        return True

    @property
    def moment(self) -> float:
        """Seconds for which it pays to wait for more messages before another batch."""
        return min(_MOMENT, min(self._groups) / 3)

    def _decide(self) -> None:
        saved = min(self._singles, default=_SINGLE) - _PART
        self.threshold = max(_LEAST, min(self._groups) / saved) if saved > 0 else math.inf
