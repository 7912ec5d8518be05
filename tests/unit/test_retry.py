"""The waits between attempts."""

from __future__ import annotations

import pytest

from nomnom.retry import RECONNECT, RetryPolicy, retry


def test_waits_grow_up_to_the_longest() -> None:
    policy = RetryPolicy(first=0.5, longest=4.0)
    assert [policy.wait(failures) for failures in range(1, 7)] == [0.5, 1.0, 2.0, 4.0, 4.0, 4.0]
    assert policy.wait(10_000) == 4.0
    assert RetryPolicy(first=1.0, longest=10.0, factor=1.5).wait(3) == 2.25


def test_jitter_only_shortens_a_wait() -> None:
    waits = {RECONNECT.wait(3) for _ in range(200)}
    assert len(waits) > 100
    assert 0.2 <= min(waits) < max(waits) <= 0.4


async def test_an_action_is_repeated_until_it_succeeds() -> None:
    calls = 0

    async def action() -> int:
        nonlocal calls
        calls += 1
        if calls < 4:
            raise ConnectionError(str(calls))
        return calls

    assert await retry(action, RetryPolicy(0.001, 0.002), (OSError,), within=5) == 4


@pytest.mark.parametrize(("within", "attempts"), [(0.0, 1), (0.1, 1), (0.3, 2)])
async def test_the_last_error_is_raised_before_the_time_is_over(within: float, attempts: int) -> None:
    calls = 0

    async def action() -> None:
        nonlocal calls
        calls += 1
        raise ConnectionError(f"attempt {calls}")

    with pytest.raises(ConnectionError, match=f"attempt {attempts}"):
        await retry(action, RetryPolicy(0.2, 0.2), (OSError,), within=within)
    assert calls == attempts


async def test_other_errors_are_raised_at_once() -> None:
    calls = 0

    async def action() -> None:
        nonlocal calls
        calls += 1
        raise LookupError("not here")

    with pytest.raises(LookupError, match="not here"):
        await retry(action, RetryPolicy(0.001, 0.001), (OSError,), within=5)
    assert calls == 1
