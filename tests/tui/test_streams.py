"""Streams and their messages on a real nats-server: reports, paging, payload formats, purge."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from textual.pilot import Pilot
from textual.widgets import Input

from conftest import LINE, ORDER, Deployment
from nomnom.envelope import dead_subject, headers, ingest_subject, new_message_id
from nomnom.schema import Schema, load_schema
from nomnom_control.environments import Endpoints
from nomnom_tui.app.application import NomnomApp
from nomnom_tui.app.preferences import Preferences
from nomnom_tui.app.session import Session
from nomnom_tui.screens.stored_message import StoredMessageView
from nomnom_tui.screens.stream_messages import StreamMessagesView
from nomnom_tui.screens.streams import StreamsView
from nomnom_tui.text.styles import pieces
from nomnom_tui.widgets.dialogs import ConfirmDialog, FormDialog
from nomnom_tui.widgets.message_pane import MessagePane
from nomnom_tui.widgets.table import LiveTable
from tui.fakes import FakeEnvironment
from tui.test_shell import notifications, until

TIMEOUT = 15.0
RECEIVED = 1_700_000_000_000_000


class DeployedEnvironment(FakeEnvironment):
    """The servers of the test run; components and scaling are fake."""

    def __init__(self, deployment: Deployment) -> None:
        super().__init__()
        self._settings = deployment.settings

    async def endpoints(self) -> Endpoints:
        return Endpoints(
            "http://127.0.0.1:9", self._settings.nats_url, "http://127.0.0.1:9", self._settings.database_url
        )

    async def schema(self) -> Schema:
        return load_schema("tpch")


@pytest.fixture(autouse=True)
def own_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep the spool of the audit log in a temporary directory."""
    monkeypatch.setenv("NOMNOM_HOME", str(tmp_path))


@asynccontextmanager
async def opened(
    deployment: Deployment, key: str, *, size: tuple[int, int] = (120, 30), readonly: bool = False
) -> AsyncIterator[tuple[NomnomApp, Pilot[int]]]:
    """Open the app on this deployment, on the screen with this key."""
    session = Session(DeployedEnvironment(deployment), readonly=readonly)
    app = NomnomApp(session, Preferences(Path("tui.toml")))
    async with app.run_test(size=size) as pilot:
        await until(lambda: app.connected, TIMEOUT)
        await pilot.press(key)
        yield app, pilot


async def publish(deployment: Deployment, payloads: Sequence[bytes | str], *, entity: str = "orders") -> None:
    """Publish like the API does; no worker is running."""
    for payload in payloads:
        raw = payload.encode() if isinstance(payload, str) else payload
        message_id = new_message_id()
        subject = ingest_subject(entity, message_id)
        await deployment.jetstream.publish(subject, raw, headers=headers(RECEIVED, message_id))


def orders(count: int) -> list[str]:
    """Return numbered orders."""
    return [ORDER.replace("|123|", f"|{number}|") for number in range(1, count + 1)]


def text_of(table: LiveTable[object]) -> str:
    """Return all lines of a table, including those not on the screen."""
    return "\n".join(
        " | ".join("".join(text for text, _ in pieces(column.cell(row))) for column in table.columns)
        for row in table.rows
    )


def plain(table: LiveTable[object]) -> str:
    """Return the text of a table with wrapped lines joined by single spaces."""
    return " ".join(text_of(table).split())


def sequences(view: StreamMessagesView) -> list[int]:
    """Return the sequences on the page."""
    return [each.sequence for each in view._table.rows]


async def streams_view(app: NomnomApp) -> StreamsView:
    """Return the streams screen with its first data."""
    view = app.screen
    assert isinstance(view, StreamsView)
    await until(lambda: view._table.rows, TIMEOUT)
    return view


async def messages_view(app: NomnomApp, pilot: Pilot[int]) -> StreamMessagesView:
    """Open the messages of the first stream with the first page."""
    await streams_view(app)
    await pilot.press("enter")
    await until(lambda: isinstance(app.screen, StreamMessagesView) and app.screen._shown, TIMEOUT)
    view = app.screen
    assert isinstance(view, StreamMessagesView)
    return view


async def test_stream_report_is_complete_and_live(deployment: Deployment) -> None:
    await publish(deployment, orders(40))
    await deployment.jetstream.delete_msg("MESSAGES", 7)
    async with opened(deployment, "3", size=(200, 60)) as (app, _):
        view = await streams_view(app)
        assert [each.name for each in view._table.rows] == ["MESSAGES", "MESSAGESDLQ"]
        await until(lambda: view._properties.rows, TIMEOUT)
        await until(lambda: "Host version" in text_of(view._properties), TIMEOUT)
        properties = plain(view._properties)
        info = await deployment.jetstream.stream_info("MESSAGES")
        assert info.config.description is not None
        for label, value in (
            ("Messages", "39"),
            ("First sequence", "1"),
            ("Last sequence", "40"),
            ("Deleted messages", "1"),
            ("Subjects", "39"),
            ("Active consumers", "1"),
            ("Description", info.config.description),
            ("Retention", "workqueue"),
            ("Acknowledgements", "yes"),
            ("Discard policy", "new"),
            ("Duplicate window", "2m"),
            ("Direct get", "yes"),
            ("Maximum bytes", "1.0 GiB"),
            ("Maximum age", "unlimited"),
            ("Expires after", "1d"),
            ("Maximum consumers", "unlimited"),
            ("Purges denied", "no"),
            ("Host version", "2."),
            ("Leader", ""),
        ):
            assert f"{label} {value}" in properties, (label, properties)
        line = text_of(view._table).splitlines()[0]
        assert "| 39 |" in line
        assert "1 … 40" in line
        await publish(deployment, orders(5))
        await until(lambda: "| 44 |" in text_of(view._table), TIMEOUT)
        await until(lambda: "Last sequence 45 " in plain(view._properties), TIMEOUT)
        await until(lambda: (view._rates["MESSAGES"] or 0) > 0, TIMEOUT)
        await until(lambda: [each.sequence for each in view._newest.rows][:2] == [45, 44], TIMEOUT)


async def test_messages_are_paged_and_not_consumed(deployment: Deployment) -> None:
    await publish(deployment, orders(250))
    async with opened(deployment, "3") as (app, pilot):
        view = await messages_view(app, pilot)
        assert sequences(view) == [*range(250, 150, -1)]
        await pilot.press("G", "j")
        await until(lambda: sequences(view)[0] == 150, TIMEOUT)
        assert sequences(view) == [*range(150, 50, -1)]
        assert view._table.cursor == 0
        await pilot.press("right_square_bracket")
        await until(lambda: sequences(view) == [*range(50, 0, -1)], TIMEOUT)
        assert not view._table.has_next, "there are no older messages"
        await pilot.press("g", "k")
        await until(lambda: sequences(view) == [*range(150, 50, -1)], TIMEOUT)
        assert view._table.cursor == 99, "the cursor enters at the row where it left"
        await pilot.press("left_square_bracket")
        await until(lambda: sequences(view)[0] == 250, TIMEOUT)
        await pilot.press("o")
        await until(lambda: sequences(view) == [*range(1, 101)], TIMEOUT)
        await pilot.press("right_square_bracket")
        await until(lambda: sequences(view) == [*range(101, 201)], TIMEOUT)
        await pilot.press("left_square_bracket")
        await until(lambda: sequences(view) == [*range(1, 101)], TIMEOUT)
        await pilot.press("colon", *"sequence", "space", *"177", "enter")
        await until(lambda: sequences(view)[0] == 177, TIMEOUT)
        await pilot.press("s")
        await until(lambda: isinstance(app.screen, FormDialog), TIMEOUT)
        app.screen.query_one(Input).value = "none"
        await pilot.press("enter")
        assert isinstance(app.screen, FormDialog), "an invalid sequence is not accepted"
        app.screen.query_one(Input).value = "12"
        await pilot.press("enter")
        await until(lambda: sequences(view)[0] == 12, TIMEOUT)
        await pilot.press("f")
        await until(lambda: sequences(view)[0] == 250, TIMEOUT)
        await publish(deployment, orders(1))
        await until(lambda: sequences(view)[0] == 251, TIMEOUT)
    consumer = await deployment.jetstream.consumer_info("MESSAGES", "workers")
    assert (consumer.num_pending, consumer.delivered.consumer_seq) == (251, 0)


async def test_messages_are_filtered_by_subject(deployment: Deployment) -> None:
    await publish(deployment, orders(30))
    await publish(deployment, ["N|1|NATION|2|hello"] * 130, entity="nation")
    await publish(deployment, orders(30))
    async with opened(deployment, "3") as (app, pilot):
        view = await messages_view(app, pilot)
        await pilot.press("slash")
        await until(lambda: isinstance(app.screen, FormDialog), TIMEOUT)
        app.screen.query_one(Input).value = "messages.ingest.nation.>"
        await pilot.press("enter")
        await until(lambda: sequences(view) == [*range(31, 131)], TIMEOUT)
        await pilot.press("right_square_bracket")
        await until(lambda: sequences(view) == [*range(131, 161)], TIMEOUT)
        await pilot.press("left_square_bracket")
        await until(lambda: sequences(view) == [*range(31, 131)], TIMEOUT)
        await pilot.press("colon", *"subject", "space", "enter")
        await until(lambda: view._request.subject != ">" or sequences(view)[0] == 190, TIMEOUT)


async def test_message_as_record_text_and_hex(deployment: Deployment) -> None:
    broken = ORDER.replace("2024-01-01", "2024-13-01")
    await publish(deployment, [f"{ORDER}\n{LINE}", broken, b"O|1|\xff\x00|", ""])
    async with opened(deployment, "3") as (app, pilot):
        view = await messages_view(app, pilot)
        await pilot.press("G")
        await pilot.press("enter")
        await until(lambda: isinstance(app.screen, StoredMessageView), TIMEOUT)
        pane = app.screen.query_one(MessagePane)
        await until(lambda: "o_orderkey" in text_of(pane), TIMEOUT)
        shown = text_of(pane)
        for expected in (
            "line 2  OLI  lineitem",
            "l_shipinstruct",
            "DELIVER",
            "Nats-Msg-Id",
            str(RECEIVED),
            "2023-11-14",
        ):
            assert expected in shown, expected
        await pilot.press("n")
        await until(lambda: "✕ 2024-13-01" in text_of(pane), TIMEOUT)
        assert "expected a date as YYYY-MM-DD" in text_of(pane)
        await pilot.press("v")
        await until(lambda: broken in text_of(pane), TIMEOUT)
        await pilot.press("n", "x")
        await until(lambda: "4f 7c 31 7c ff 00 7c" in text_of(pane), TIMEOUT)
        await pilot.press("f")
        await until(lambda: "UTF-8" in text_of(pane), TIMEOUT)
        await pilot.press("n")
        await until(lambda: "empty" in text_of(pane), TIMEOUT)
        await pilot.press("n")
        await until(lambda: "no newer message" in notifications(app), TIMEOUT)
        await pilot.press("p", "p")
        await until(lambda: "✕ 2024-13-01" in text_of(pane), TIMEOUT)
        await deployment.jetstream.delete_msg("MESSAGES", 2)
        await until(lambda: "no longer in the stream" in str(app.screen.query_one("#message").border_title), TIMEOUT)
        await pilot.press("escape")
        assert app.screen is view


async def test_large_payload_is_shown_completely(deployment: Deployment) -> None:
    await publish(deployment, [b"O|" + bytes(range(256)) * 2000])
    async with opened(deployment, "3") as (app, pilot):
        await messages_view(app, pilot)
        await pilot.press("enter")
        await until(lambda: isinstance(app.screen, StoredMessageView), TIMEOUT)
        pane = app.screen.query_one(MessagePane)
        await pilot.press("x")
        await until(lambda: len(pane.rows) > 32_000, TIMEOUT)
        await pilot.press("G", "pageup")
        assert pane.cursor > 31_000


async def test_purge_requires_typing_the_name(deployment: Deployment) -> None:
    await publish(deployment, orders(12))
    async with opened(deployment, "3") as (app, pilot):
        view = await streams_view(app)
        await pilot.press("P")
        await until(lambda: isinstance(app.screen, ConfirmDialog), TIMEOUT)
        await pilot.pause()
        question = app.screen
        assert isinstance(question, ConfirmDialog)
        assert "12 messages of MESSAGES" in question.change.losses[0]
        assert question.change.command == "nomnom stream purge MESSAGES"
        await pilot.press(*"MESSAGE", "enter")
        assert app.screen is question, "an incomplete name does not purge"
        await pilot.press("S", "enter")
        await until(lambda: "MESSAGES is purged" in notifications(app), TIMEOUT)
        await until(lambda: view._table.rows[0].state.messages == 0, TIMEOUT)
    assert (await deployment.jetstream.stream_info("MESSAGES")).state.messages == 0
    assert await deployment.database.fetchval("SELECT count(*) FROM nomnom_audit") == 1


async def test_read_only_session_cannot_purge(deployment: Deployment) -> None:
    await publish(deployment, orders(3))
    async with opened(deployment, "3", readonly=True) as (app, pilot):
        view = await streams_view(app)
        await pilot.press("P")
        assert app.screen is view
        view.action_purge()
        await until(lambda: "refused" in notifications(app), TIMEOUT)
    assert (await deployment.jetstream.stream_info("MESSAGES")).state.messages == 3


async def test_cursor_stays_on_its_message_while_others_arrive(deployment: Deployment) -> None:
    for number in range(20):
        await deployment.client.publish(
            dead_subject("orders", new_message_id()),
            ORDER.encode(),
            headers={"Nomnom-Reason": "record", "At": str(number)},
        )
    await deployment.client.flush()
    async with opened(deployment, "3") as (app, pilot):
        await streams_view(app)
        await pilot.press("j", "enter")
        await until(lambda: isinstance(app.screen, StreamMessagesView) and app.screen._shown, TIMEOUT)
        view = app.screen
        assert isinstance(view, StreamMessagesView)
        await pilot.press("j", "j")
        await until(lambda: view._table.current is not None and view._table.current.sequence == 18, TIMEOUT)
        await deployment.client.publish(dead_subject("orders", new_message_id()), b"late")
        await until(lambda: sequences(view)[0] == 21, TIMEOUT)
        assert view._table.current is not None
        assert view._table.current.sequence == 18
        await pilot.press("enter")
        await until(lambda: isinstance(app.screen, StoredMessageView), TIMEOUT)
        await until(lambda: "Nomnom-Reason" in text_of(app.screen.query_one(MessagePane)), TIMEOUT)
