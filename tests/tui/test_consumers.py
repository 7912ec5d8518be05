"""Consumers on a real nats-server: what is told of them, a pause that cannot be overlooked, and its end."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from textual.widgets import Input, Static

from conftest import Deployment
from nomnom_tui.app.application import NomnomApp
from nomnom_tui.screens.consumers import ConsumersView, parse_time
from nomnom_tui.widgets.dialogs import FormDialog
from tui.test_shell import told, until
from tui.test_streams import PATIENCE, opened, orders, plain, publish, text_of


async def consumers_view(app: NomnomApp) -> ConsumersView:
    """The consumers' screen with its first answer."""
    view = app.screen
    assert isinstance(view, ConsumersView)
    await until(lambda: view._table.rows, PATIENCE)
    return view


async def test_everything_that_nats_says_of_a_consumer_is_shown_and_lives(deployment: Deployment) -> None:
    await publish(deployment, orders(30))
    subscription = await deployment.jetstream.pull_subscribe_bind("workers", stream="MESSAGES")
    taken = await subscription.fetch(10, timeout=5)
    for message in taken[:4]:
        await message.ack_sync()
    async with opened(deployment, "4", size=(200, 60)) as (app, _):
        view = await consumers_view(app)
        await until(lambda: view._properties.rows, PATIENCE)
        await until(lambda: "Host version" in text_of(view._properties), PATIENCE)
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
        assert "▲ workers | MESSAGES | nobody pulls | 20 | 6 |" in text_of(view._table)
        await taken[4].nak()
        # Messages that were not delivered yet may come before the one that was given back.
        deliveries = 1
        while deliveries == 1:
            deliveries = (await subscription.fetch(1, timeout=5))[0].metadata.num_delivered
        await until(lambda: "Redelivered messages 1 " in plain(view._properties), PATIENCE)
        await until(lambda: (view._rates["MESSAGES", "workers"] or 0) > 0, PATIENCE)
        await until(lambda: view._plot is not None and view._plot._series, PATIENCE)


async def test_a_pause_is_asked_for_shown_loudly_with_its_remaining_time_and_ended(deployment: Deployment) -> None:
    async with opened(deployment, "4") as (app, pilot):
        view = await consumers_view(app)
        banner = view.query_one("#banner", Static)
        assert not banner.display
        await pilot.press("p")
        await until(lambda: isinstance(app.screen, FormDialog), PATIENCE)
        await pilot.pause()
        field = app.screen.query_one(Input)
        field.value = "soon"
        await pilot.press("enter")
        assert isinstance(app.screen, FormDialog), "what is no time pauses nothing"
        field.value = "90m"
        await pilot.press("enter")
        await until(lambda: banner.display, PATIENCE)
        said = str(banner.render())
        assert "workers OF MESSAGES IS PAUSED for another 1h 29m" in said, said
        assert "nomnom consumer pause workers --stream MESSAGES --for 5400" in told(app)
        assert "paused 1h 29m" in text_of(view._table)
        info = await deployment.jetstream.consumer_info("MESSAGES", "workers")
        assert info.config.pause_until is not None
        until_then = datetime.fromisoformat(str(info.config.pause_until)) - datetime.now(UTC)
        assert timedelta(minutes=89) < until_then < timedelta(minutes=91)
        await pilot.press("p")
        await until(lambda: not banner.display, PATIENCE)
        assert "nomnom consumer resume workers --stream MESSAGES" in told(app)
        await publish(deployment, orders(1))
        subscription = await deployment.jetstream.pull_subscribe_bind("workers", stream="MESSAGES")
        assert len(await subscription.fetch(1, timeout=5)) == 1
        await pilot.press("colon", *"pause-for", "space", *"1h", "enter")
        await until(lambda: banner.display, PATIENCE)
        await pilot.press("p")
        await until(lambda: not banner.display, PATIENCE)
        await pilot.press("p")
        await until(lambda: isinstance(app.screen, FormDialog), PATIENCE)
        await pilot.pause()
        app.screen.query_one(Input).value = ""
        await pilot.press("enter")
        await until(lambda: "until it is resumed" in str(banner.render()), PATIENCE)


async def test_a_read_only_session_pauses_nothing(deployment: Deployment) -> None:
    async with opened(deployment, "4", readonly=True) as (app, pilot):
        view = await consumers_view(app)
        await pilot.press("p")
        assert app.screen is view
        view._pause(view._table.rows[0], 60)
        await until(lambda: "refused" in told(app), PATIENCE)
        assert not (await app.session.pipeline()).nats.problem
    info = await deployment.jetstream.consumer_info("MESSAGES", "workers")
    assert info.config.pause_until is None


@pytest.mark.parametrize(
    ("text", "seconds"), [("30s", 30), ("10m", 600), ("1.5h", 5400), ("2 d", 172_800), ("45", 45), ("", None)]
)
def test_times(text: str, seconds: float | None) -> None:
    assert parse_time(text) == seconds
