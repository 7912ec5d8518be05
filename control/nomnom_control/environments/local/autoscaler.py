"""The autoscaling decision: from the lag to the desired number of workers, with a reason.

As in KEDA's nats-jetstream scaler, the lag is the consumer's pending and unacknowledged messages. A lag above zero
needs ceil(lag / threshold) workers, at least one and at most the maximum. Without lag the minimum is kept; zero is
reached only when the last lag is a cooldown ago.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil

from nomnom_control.environments import ScalingRule


@dataclass(frozen=True, slots=True)
class Decision:
    """The desired number of workers, and the reason in one sentence."""

    desired: int
    reason: str


@dataclass(slots=True)
class Autoscaler:
    """Remembers the last time with a lag. ``now`` is in seconds of any monotonic clock."""

    rule: ScalingRule
    _active_at: float | None = field(default=None, init=False)

    def decide(self, lag: int | None, current: int, now: float) -> Decision:
        """Decide for a lag (None: unknown), with ``current`` workers desired so far."""
        rule = self.rule
        if lag is None:
            return Decision(current, f"lag unknown; keeping {_workers(current)}")
        if lag > 0:
            self._active_at = now
            wanted = ceil(lag / rule.threshold)
            desired = min(max(wanted, rule.minimum, 1), rule.maximum)
            reason = f"lag {lag:,} / threshold {rule.threshold:,} → {wanted:,}"
            if wanted > rule.maximum:
                reason += f", capped at the maximum {rule.maximum}"
            elif desired > wanted:
                reason += f", raised to the minimum {desired}"
            return Decision(desired, reason)
        if current > rule.minimum and self._active_at is None:
            self._active_at = now
        quiet = now - (self._active_at if self._active_at is not None else now - rule.cooldown)
        if current > rule.minimum and quiet < rule.cooldown:
            kept = min(current, max(rule.minimum, 1))
            left = rule.cooldown - quiet
            return Decision(
                kept, f"no lag for {quiet:.0f}s; keeping {_workers(kept)} for another {left:.0f}s (cooldown)"
            )
        return Decision(rule.minimum, f"no lag: the minimum {rule.minimum}")


def _workers(number: int) -> str:
    return f"{number} {'worker' if number == 1 else 'workers'}"
