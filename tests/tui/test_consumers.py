"""Consumers on a real nats-server: reports, pause and resume."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest
from textual.widgets import Input, Static

from conftest import Deployment
from nomnom_tui.app.application import NomnomApp
from nomnom_tui.screens.consumers import ConsumersView, parse_duration
from nomnom_tui.widgets.dialogs import FormDialog
from tui.test_shell import notifications, until
from tui.test_streams import TIMEOUT, opened, orders, plain, publish, text_of


async def consumers_view(app: NomnomApp) -> ConsumersView:
    """Return the consumers screen with its first data."""
    view = app.screen
    assert isinstance(view, ConsumersView)
    await until(lambda: view._table.rows, TIMEOUT)
    return view


async def test_consumer_report_is_complete_and_live(deployment: Deployment) -> None:
    await publish(deployment, orders(30))
    subscription = await deployment.jetstream.pull_subscribe_bind("workers", stream="MESSAGES")
    fetched = await subscription.fetch(10, timeout=5)
    for message in fetched[:4]:
        await message.ack_sync()
    async with opened(deployment, "4", size=(200, 60)) as (app, _):
        view = await consumers_view(app)
        await until(lambda: view._properties.rows, TIMEOUT)
        await until(lambda: "Host version" in text_of(view._properties), TIMEOUT)
        properties = plain(view._properties)
        for label, value in (
            ("Outstanding acks", "6 of at most 50,000"),
            ("Unprocessed messages", "20"),
            ("Lag", "26"),
            ("Redelivered messages", "0"),
            ("Last delivered", "consumer sequence 10, stream sequence 10"),
            ("Acknowledgement floor", "consumer sequence 4, stream sequence 4"),
            ("Waiting pulls", "0 of at most 512"),
            ("Mode", "pull"),
            ("Ack policy", "explicit"),
            ("Ack wait", "30s"),
            ("Deliver policy", "all"),
            ("Replay policy", "instant"),
            ("Maximum deliveries", "unlimited"),
            ("Maximum ack pending", "50,000"),
            ("Maximum waiting pulls", "512"),
            ("Filter subject", "messages.ingest.>"),
            ("Host version", "2."),
        ):
            assert f"{label} {value}" in properties, (label, properties)
        assert "▲ workers | MESSAGES | no clients | 20 | 6 |" in text_of(view._table)
        await fetched[4].nak()
        # Undelivered messages may arrive before the redelivered one.
        deliveries = 1
        while deliveries == 1:
            deliveries = (await subscription.fetch(1, timeout=5))[0].metadata.num_delivered
        await until(lambda: "Redelivered messages 1 " in plain(view._properties), TIMEOUT)
        await until(lambda: (view._rates["MESSAGES", "workers"] or 0) > 0, TIMEOUT)
        await until(lambda: view._plot is not None and view._plot._series, TIMEOUT)


async def test_pause_and_resume(deployment: Deployment) -> None:
    async with opened(deployment, "4") as (app, pilot):
        view = await consumers_view(app)
        banner = view.query_one("#banner", Static)
        assert not banner.display
        await pilot.press("p")
        await until(lambda: isinstance(app.screen, FormDialog), TIMEOUT)
        await pilot.pause()
        field = app.screen.query_one(Input)
        field.value = "soon"
        await pilot.press("enter")
        assert isinstance(app.screen, FormDialog), "an invalid duration does not pause"
        field.value = "90m"
        await pilot.press("enter")
        await until(lambda: banner.display, TIMEOUT)
        text = str(banner.render())
        assert re.search(r"workers \(MESSAGES\) PAUSED until \d\d:\d\d:\d\d \(1h (29|30)m left\)", text), text
        assert "nomnom consumer pause workers --stream MESSAGES --for 5400" in notifications(app)
        assert re.search(r"paused 1h (29|30)m", text_of(view._table))
        info = await deployment.jetstream.consumer_info("MESSAGES", "workers")
        assert info.config.pause_until is not None
        remaining = datetime.fromisoformat(str(info.config.pause_until)) - datetime.now(UTC)
        assert timedelta(minutes=89) < remaining < timedelta(minutes=91)
        await pilot.press("p")
        await until(lambda: not banner.display, TIMEOUT)
        assert "nomnom consumer resume workers --stream MESSAGES" in notifications(app)
        await publish(deployment, orders(1))
        subscription = await deployment.jetstream.pull_subscribe_bind("workers", stream="MESSAGES")
        assert len(await subscription.fetch(1, timeout=5)) == 1
        await pilot.press("colon", *"pause-for", "space", *"1h", "enter")
        await until(lambda: banner.display, TIMEOUT)
        await pilot.press("p")
        await until(lambda: not banner.display, TIMEOUT)
        await pilot.press("p")
        await until(lambda: isinstance(app.screen, FormDialog), TIMEOUT)
        await pilot.pause()
        app.screen.query_one(Input).value = ""
        await pilot.press("enter")
        await until(lambda: "until resumed" in str(banner.render()), TIMEOUT)


async def test_read_only_session_cannot_pause(deployment: Deployment) -> None:
    async with opened(deployment, "4", readonly=True) as (app, pilot):
        view = await consumers_view(app)
        await pilot.press("p")
        assert app.screen is view
        view._pause(view._table.rows[0], 60)
        await until(lambda: "refused" in notifications(app), TIMEOUT)
        assert not (await app.session.pipeline()).nats.problem
    info = await deployment.jetstream.consumer_info("MESSAGES", "workers")
    assert info.config.pause_until is None


@pytest.mark.parametrize(
    ("text", "seconds"), [("30s", 30), ("10m", 600), ("1.5h", 5400), ("2 d", 172_800), ("45", 45), ("", None)]
)
def test_durations_are_parsed(text: str, seconds: float | None) -> None:
    assert parse_duration(text) == seconds
