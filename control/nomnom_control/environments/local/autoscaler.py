"""The autoscaling decision: from the lag to the desired number of workers, with a reason.

As in KEDA's nats-jetstream scaler, the lag is the consumer's pending and unacknowledged messages. Without lag the
minimum is kept, and zero is reached only when the last lag is a cooldown ago.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from nomnom.scaling import ScalingPolicy


@dataclass(frozen=True, slots=True)
class Decision:
    """The desired number of workers, and the reason in one sentence."""

    desired: int
    reason: str


@dataclass(slots=True)
class Autoscaler:
    """Remembers the last time with a lag. ``now`` is in seconds of any monotonic clock."""

    policy: ScalingPolicy
    _active_at: float | None = field(default=None, init=False)

    def decide(self, lag: int | None, current: int, now: float) -> Decision:
        """Decide for a lag (None: unknown), with ``current`` workers desired so far."""
        policy = self.policy
        if lag is None:
            return Decision(current, f"lag unknown; keeping {_workers(current)}")
        if lag > 0:
            self._active_at = now
            share, desired = policy.share(lag), policy.desired(lag)
            reason = f"stream lag {lag:,} / threshold {policy.threshold:,} → {share:,}"
            if share > policy.maximum:
                reason += f", capped at the maximum {policy.maximum}"
            elif desired > share:
                reason += f", raised to the minimum {desired}"
            return Decision(desired, reason)
        if current > policy.minimum and self._active_at is None:
            self._active_at = now
        quiet = now - (self._active_at if self._active_at is not None else now - policy.cooldown)
        if current > policy.minimum and quiet < policy.cooldown:
            kept = min(current, max(policy.minimum, 1))
            left = policy.cooldown - quiet
            return Decision(
                kept, f"no lag for {quiet:.0f}s; keeping {_workers(kept)} for another {left:.0f}s (cooldown)"
            )
        return Decision(policy.minimum, f"no lag: the minimum {policy.minimum}")


def _workers(number: int) -> str:
    return f"{number} {'worker' if number == 1 else 'workers'}"
