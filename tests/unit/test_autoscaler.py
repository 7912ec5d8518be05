"""The local autoscaler: desired workers for a lag, cooldown before zero, limits."""

from hypothesis import given
from hypothesis import strategies as st

from nomnom.scaling import ScalingPolicy
from nomnom_control.environments.local.autoscaler import Autoscaler

POLICY = ScalingPolicy(minimum=0, maximum=4, threshold=100, cooldown=30, polling=1)


def test_desired_workers_follow_the_lag_up_to_the_maximum() -> None:
    scaler = Autoscaler(POLICY)
    assert scaler.decide(1, 0, 0).desired == 1
    assert scaler.decide(101, 1, 1).desired == 2
    decision = scaler.decide(1234, 2, 2)
    assert decision.desired == 4
    assert decision.reason == "stream lag 1,234 / threshold 100 → 13, capped at the maximum 4"


def test_scale_to_zero_after_the_cooldown() -> None:
    scaler = Autoscaler(POLICY)
    scaler.decide(500, 0, 0)
    decision = scaler.decide(0, 4, 10)
    assert decision.desired == 1
    assert decision.reason == "no lag for 10s; keeping 1 worker for another 20s (cooldown)"
    assert scaler.decide(0, 1, 29.9).desired == 1
    assert scaler.decide(0, 1, 30).desired == 0


def test_unknown_lag_changes_nothing() -> None:
    assert Autoscaler(POLICY).decide(None, 3, 0).desired == 3


@given(
    st.lists(st.tuples(st.none() | st.integers(0, 10**7), st.floats(0, 120)), max_size=30),
    st.integers(0, 5),
    st.integers(1, 8),
    st.integers(1, 10_000),
)
def test_desired_workers_stay_within_limits_and_above_zero_with_lag(
    steps: list[tuple[int | None, float]], minimum: int, more: int, threshold: int
) -> None:
    policy = ScalingPolicy(minimum=minimum, maximum=minimum + more, threshold=threshold, cooldown=30)
    scaler, current, now = Autoscaler(policy), minimum, 0.0
    for lag, passed in steps:
        now += passed
        current = scaler.decide(lag, current, now).desired
        assert policy.minimum <= current <= policy.maximum
        if lag:
            assert current >= 1
