"""Streams and their messages on a real nats-server: reports, pages, looks, purge; nothing is consumed by looking."""

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
from nomnom_tui.widgets.dialogs import AskDialog, FormDialog
from nomnom_tui.widgets.message_pane import MessagePane
from nomnom_tui.widgets.table import LiveTable
from tui.fakes import FakeEnvironment
from tui.test_shell import told, until

PATIENCE = 15.0
RECEIVED = 1_700_000_000_000_000


class DeployedEnvironment(FakeEnvironment):
    """The run's servers; what an environment would tell of its processes stands still."""

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
    """What is audited while the database is away is kept here."""
    monkeypatch.setenv("NOMNOM_HOME", str(tmp_path))


@asynccontextmanager
async def opened(
    deployment: Deployment, key: str, *, size: tuple[int, int] = (120, 30), readonly: bool = False
) -> AsyncIterator[tuple[NomnomApp, Pilot[int]]]:
    """The app on this deployment, on the screen of this key."""
    session = Session(DeployedEnvironment(deployment), readonly=readonly)
    app = NomnomApp(session, Preferences(Path("tui.toml")))
    async with app.run_test(size=size) as pilot:
        await until(lambda: app.connected, PATIENCE)
        await pilot.press(key)
        yield app, pilot


async def publish(deployment: Deployment, payloads: Sequence[bytes | str], *, entity: str = "orders") -> None:
    """Publish as the api does; no worker takes them."""
    for payload in payloads:
        raw = payload.encode() if isinstance(payload, str) else payload
        message_id = new_message_id()
        subject = ingest_subject(entity, message_id)
        await deployment.jetstream.publish(subject, raw, headers=headers(message_id, RECEIVED))


def orders(count: int) -> list[str]:
    """Orders by their number."""
    return [ORDER.replace("|123|", f"|{number}|") for number in range(1, count + 1)]


def text_of(table: LiveTable[object]) -> str:
    """All lines of a table, whether they fit on the screen or not."""
    return "\n".join(
        " | ".join("".join(text for text, _ in pieces(column.cell(row))) for column in table.columns)
        for row in table.rows
    )


def plain(table: LiveTable[object]) -> str:
    """All of a table's text with single spaces, however its lines were broken."""
    return " ".join(text_of(table).split())


def sequences(view: StreamMessagesView) -> list[int]:
    """The sequences of the page."""
    return [each.sequence for each in view._table.rows]


async def streams_view(app: NomnomApp) -> StreamsView:
    """The streams' screen with its first answer."""
    view = app.screen
    assert isinstance(view, StreamsView)
    await until(lambda: view._table.rows, PATIENCE)
    return view


async def messages_view(app: NomnomApp, pilot: Pilot[int]) -> StreamMessagesView:
    """The messages of the first stream, with the first page."""
    await streams_view(app)
    await pilot.press("enter")
    await until(lambda: isinstance(app.screen, StreamMessagesView) and app.screen._shown, PATIENCE)
    view = app.screen
    assert isinstance(view, StreamMessagesView)
    return view


async def test_everything_that_nats_says_of_a_stream_is_shown_and_lives(deployment: Deployment) -> None:
    await publish(deployment, orders(40))
    await deployment.jetstream.delete_msg("MESSAGES", 7)
    async with opened(deployment, "3", size=(200, 60)) as (app, _):
        view = await streams_view(app)
        assert [each.name for each in view._table.rows] == ["MESSAGES", "MESSAGESDLQ"]
        await until(lambda: view._properties.rows, PATIENCE)
        await until(lambda: "Host version" in text_of(view._properties), PATIENCE)
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
            ("Maximum age", "1d"),
            ("Maximum consumers", "unlimited"),
            ("Purges denied", "no"),
            ("Atomic batches", "no"),
            ("Host version", "2."),
            ("Required API level", "0, hosted at level"),
            ("Leader", ""),
        ):
            assert f"{label} {value}" in properties, (label, properties)
        line = text_of(view._table).splitlines()[0]
        assert "| 39 |" in line
        assert "1 … 40" in line
        await publish(deployment, orders(5))
        await until(lambda: "| 44 |" in text_of(view._table), PATIENCE)
        await until(lambda: "Last sequence 45 " in plain(view._properties), PATIENCE)
        await until(lambda: (view._rates["MESSAGES"] or 0) > 0, PATIENCE)
        await until(lambda: [each.sequence for each in view._newest.rows][:2] == [45, 44], PATIENCE)


async def test_messages_are_paged_by_sequence_both_ways_and_not_consumed(deployment: Deployment) -> None:
    await publish(deployment, orders(250))
    async with opened(deployment, "3") as (app, pilot):
        view = await messages_view(app, pilot)
        assert sequences(view) == [*range(250, 150, -1)]
        await pilot.press("G", "j")
        await until(lambda: sequences(view)[0] == 150, PATIENCE)
        assert sequences(view) == [*range(150, 50, -1)]
        assert view._table.cursor == 0
        await pilot.press("right_square_bracket")
        await until(lambda: sequences(view) == [*range(50, 0, -1)], PATIENCE)
        assert not view._table.ahead, "there is nothing older"
        await pilot.press("g", "k")
        await until(lambda: sequences(view) == [*range(150, 50, -1)], PATIENCE)
        assert view._table.cursor == 99, "the cursor comes in where it left"
        await pilot.press("left_square_bracket")
        await until(lambda: sequences(view)[0] == 250, PATIENCE)
        await pilot.press("o")
        await until(lambda: sequences(view) == [*range(1, 101)], PATIENCE)
        await pilot.press("right_square_bracket")
        await until(lambda: sequences(view) == [*range(101, 201)], PATIENCE)
        await pilot.press("left_square_bracket")
        await until(lambda: sequences(view) == [*range(1, 101)], PATIENCE)
        await pilot.press("colon", *"sequence", "space", *"177", "enter")
        await until(lambda: sequences(view)[0] == 177, PATIENCE)
        await pilot.press("s")
        await until(lambda: isinstance(app.screen, FormDialog), PATIENCE)
        app.screen.query_one(Input).value = "none"
        await pilot.press("enter")
        assert isinstance(app.screen, FormDialog), "what is no sequence goes nowhere"
        app.screen.query_one(Input).value = "12"
        await pilot.press("enter")
        await until(lambda: sequences(view)[0] == 12, PATIENCE)
        await pilot.press("f")
        await until(lambda: sequences(view)[0] == 250, PATIENCE)
        await publish(deployment, orders(1))
        await until(lambda: sequences(view)[0] == 251, PATIENCE)
    consumer = await deployment.jetstream.consumer_info("MESSAGES", "workers")
    assert (consumer.num_pending, consumer.delivered.consumer_seq) == (251, 0)


async def test_messages_are_filtered_by_subject(deployment: Deployment) -> None:
    await publish(deployment, orders(30))
    await publish(deployment, ["N|1|NATION|2|hello"] * 130, entity="nation")
    await publish(deployment, orders(30))
    async with opened(deployment, "3") as (app, pilot):
        view = await messages_view(app, pilot)
        await pilot.press("slash")
        await until(lambda: isinstance(app.screen, FormDialog), PATIENCE)
        app.screen.query_one(Input).value = "messages.ingest.nation.>"
        await pilot.press("enter")
        await until(lambda: sequences(view) == [*range(31, 131)], PATIENCE)
        await pilot.press("right_square_bracket")
        await until(lambda: sequences(view) == [*range(131, 161)], PATIENCE)
        await pilot.press("left_square_bracket")
        await until(lambda: sequences(view) == [*range(31, 131)], PATIENCE)
        await pilot.press("colon", *"subject", "space", "enter")
        await until(lambda: view._asked.subject != ">" or sequences(view)[0] == 190, PATIENCE)


async def test_a_message_as_record_text_and_hex_with_its_headers(deployment: Deployment) -> None:
    broken = ORDER.replace("2024-01-01", "2024-13-01")
    await publish(deployment, [f"{ORDER}\n{LINE}", broken, b"O|1|\xff\x00|", ""])
    async with opened(deployment, "3") as (app, pilot):
        view = await messages_view(app, pilot)
        await pilot.press("G")
        await pilot.press("enter")
        await until(lambda: isinstance(app.screen, StoredMessageView), PATIENCE)
        pane = app.screen.query_one(MessagePane)
        await until(lambda: "o_orderkey" in text_of(pane), PATIENCE)
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
        await until(lambda: "✕ 2024-13-01" in text_of(pane), PATIENCE)
        assert "expected a date as YYYY-MM-DD" in text_of(pane)
        await pilot.press("v")
        await until(lambda: broken in text_of(pane), PATIENCE)
        await pilot.press("n", "x")
        await until(lambda: "4f 7c 31 7c ff 00 7c" in text_of(pane), PATIENCE)
        await pilot.press("f")
        await until(lambda: "UTF-8" in text_of(pane), PATIENCE)
        await pilot.press("n")
        await until(lambda: "empty" in text_of(pane), PATIENCE)
        await pilot.press("n")
        await until(lambda: "no newer message" in told(app), PATIENCE)
        await pilot.press("p", "p")
        await until(lambda: "✕ 2024-13-01" in text_of(pane), PATIENCE)
        await deployment.jetstream.delete_msg("MESSAGES", 2)
        await until(lambda: "no longer in the stream" in str(app.screen.query_one("#message").border_title), PATIENCE)
        await pilot.press("escape")
        assert app.screen is view


async def test_a_large_payload_is_shown_whole(deployment: Deployment) -> None:
    await publish(deployment, [b"O|" + bytes(range(256)) * 2000])
    async with opened(deployment, "3") as (app, pilot):
        await messages_view(app, pilot)
        await pilot.press("enter")
        await until(lambda: isinstance(app.screen, StoredMessageView), PATIENCE)
        pane = app.screen.query_one(MessagePane)
        await pilot.press("x")
        await until(lambda: len(pane.rows) > 32_000, PATIENCE)
        await pilot.press("G", "pageup")
        assert pane.cursor > 31_000


async def test_purging_asks_for_the_name_and_says_what_is_lost(deployment: Deployment) -> None:
    await publish(deployment, orders(12))
    async with opened(deployment, "3") as (app, pilot):
        view = await streams_view(app)
        await pilot.press("P")
        await until(lambda: isinstance(app.screen, AskDialog), PATIENCE)
        await pilot.pause()
        question = app.screen
        assert isinstance(question, AskDialog)
        assert "12 messages of MESSAGES" in question.change.loses[0]
        assert question.change.command == "nomnom stream purge MESSAGES"
        await pilot.press(*"MESSAGE", "enter")
        assert app.screen is question, "a name half typed purges nothing"
        await pilot.press("S", "enter")
        await until(lambda: "MESSAGES is purged" in told(app), PATIENCE)
        await until(lambda: view._table.rows[0].state.messages == 0, PATIENCE)
    assert (await deployment.jetstream.stream_info("MESSAGES")).state.messages == 0
    assert await deployment.database.fetchval("SELECT count(*) FROM nomnom_audit") == 1


async def test_a_read_only_session_purges_nothing(deployment: Deployment) -> None:
    await publish(deployment, orders(3))
    async with opened(deployment, "3", readonly=True) as (app, pilot):
        view = await streams_view(app)
        await pilot.press("P")
        assert app.screen is view
        view.action_purge()
        await until(lambda: "refused" in told(app), PATIENCE)
    assert (await deployment.jetstream.stream_info("MESSAGES")).state.messages == 3


async def test_dead_letters_have_their_headers_and_the_cursor_stays_while_messages_come(deployment: Deployment) -> None:
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
        await until(lambda: isinstance(app.screen, StreamMessagesView) and app.screen._shown, PATIENCE)
        view = app.screen
        assert isinstance(view, StreamMessagesView)
        await pilot.press("j", "j")
        await until(lambda: view._table.current is not None and view._table.current.sequence == 18, PATIENCE)
        await deployment.client.publish(dead_subject("orders", new_message_id()), b"late")
        await until(lambda: sequences(view)[0] == 21, PATIENCE)
        assert view._table.current is not None
        assert view._table.current.sequence == 18
        await pilot.press("enter")
        await until(lambda: isinstance(app.screen, StoredMessageView), PATIENCE)
        await until(lambda: "Nomnom-Reason" in text_of(app.screen.query_one(MessagePane)), PATIENCE)
