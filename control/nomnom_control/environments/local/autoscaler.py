"""KEDA's rule for the workers, as a pure decision: the lag goes in, the wanted number of workers and why come out.

As KEDA's nats-jetstream scaler: the lag is the consumer's pending and unacknowledged messages; a lag above zero wants
ceil(lag / threshold) workers, at least one, at most the maximum; without lag the minimum is kept, and zero is reached
only once the last active moment is a cooldown ago.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil

from nomnom_control.environments import ScalingRule


@dataclass(frozen=True, slots=True)
class Decision:
    """How many workers are wanted, and why, in one sentence."""

    desired: int
    reason: str


@dataclass(slots=True)
class Autoscaler:
    """Remembers when there was last a lag. ``now`` is any steady clock's seconds."""

    rule: ScalingRule
    _active_at: float | None = field(default=None, init=False)

    def decide(self, lag: int | None, current: int, now: float) -> Decision:
        """Decide for a lag (None: unknown) with ``current`` workers wanted so far."""
        rule = self.rule
        if lag is None:
            return Decision(current, f"the lag is unknown: kept at {current}")
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
            return Decision(kept, f"no lag for {quiet:.0f} s: {kept} kept for {left:.0f} s more of cooldown")
        return Decision(rule.minimum, f"no lag: the minimum {rule.minimum}")
