"""Alerts: their texts, their order, and the screens they lead to."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from nomnom.account import Balance
from nomnom.inspection.jetstream import ConsumerReport, StreamReport, StreamState
from nomnom.inspection.retention import Retention
from nomnom_control.environments import Component, Health, Scaling, ScalingPolicy
from nomnom_control.session.overview import Overview
from nomnom_tui.app.alerts import alerts
from nomnom_tui.app.heartbeat import Heartbeat
from nomnom_tui.app.refresh import LoadError
from nomnom_tui.screens import ROUTES
from nomnom_tui.screens.overview import OverviewView
from tui.test_shell import opened, until

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SCALING = Scaling(ScalingPolicy(), 900, 2, 2, 2, True, NOW, "")


def full_stream(name: str, messages: int) -> StreamReport:
    """Return a stream that is nearly full, with messages two minutes old."""
    state = StreamState(messages, 900, 1, NOW - timedelta(minutes=2), messages, NOW)
    return StreamReport({"name": name, "max_bytes": 1000}, NOW, state)


def everything_wrong() -> tuple[Heartbeat, Overview]:
    """Return a state in which every kind of alert is raised, except that no worker is ready."""
    components = tuple(
        Component(f"{name}", 1, 0, health)
        for name, health in (("worker", Health.DEGRADED), ("api", Health.FAILED), ("nats", Health.STARTING))
    )
    problem = LoadError("cannot reach the supervisor", NOW, 0.0)
    consumer = ConsumerReport("MESSAGES", "workers", NOW, {}, num_pending=900, paused=True)
    overview = Overview(
        NOW,
        full_stream("MESSAGES", 900),
        consumer,
        full_stream("MESSAGESDLQ", 42),
        (),
        "NATS error",
        "database error",
        balance=Balance(3, NOW, NOW),
        lag=900,
    )
    return Heartbeat(components, SCALING, problem, NOW), overview


def test_every_alert_leads_to_an_existing_screen() -> None:
    heartbeat, overview = everything_wrong()
    found = alerts(heartbeat, overview)
    assert {each.text for each in found} == {
        "cannot reach the supervisor",
        "worker degraded",
        "api failed",
        "nats starting",
        "NATS error",
        "database error",
        "3 messages unexplained: see nomnom account",
        "MESSAGES is 90% full; a full stream rejects messages",
        "MESSAGESDLQ is 90% full; a full stream rejects messages",
        "900 messages pending, oldest 2m",
        "consumer workers is paused",
        "42 dead letters, oldest 2m",
        "autoscaling is paused at 2 workers",
    }
    expiring = replace(overview, retention=Retention(7 * 86_400.0, 6.5 * 86_400.0, 11))
    (text,) = {each.text for each in alerts(heartbeat, expiring)} - {each.text for each in found}
    assert text == "11 dead letters will be archived within 24 hours, the first in 12h"
    without_workers = alerts(replace(heartbeat, scaling=replace(SCALING, ready=0)), overview)
    assert "900 messages pending, no worker ready" in {each.text for each in without_workers}
    assert {each.route for each in (*found, *without_workers)} <= {each.name for each in ROUTES}
    assert next(each.route for each in found if "dead letters" in each.text) == "dead-letters"


def test_the_most_severe_alert_comes_first() -> None:
    severities = [each.severity for each in alerts(*everything_wrong())]
    order = (Health.FAILED, Health.DEGRADED, Health.STARTING)
    assert severities == sorted(severities, key=order.index)
    assert set(severities) == set(order)


async def test_enter_opens_the_screen_of_an_alert() -> None:
    async with opened() as (app, pilot, _):
        view = app.screen
        assert isinstance(view, OverviewView)
        await until(lambda: any("dead letters" in each.text for each in view._alerts.rows))
        await pilot.pause()
        assert view._alerts.move_to(next(each.text for each in view._alerts.rows if "dead letters" in each.text))
        await pilot.press("enter")
        await until(lambda: app.current_mode == "dead-letters")
