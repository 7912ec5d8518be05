"""Messages on a real pipeline, by typed keys: posted, followed, looked up, sent by the file."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from textual.pilot import Pilot
from textual.widgets import Input, TextArea

from conftest import ORDER
from nomnom.envelope import Status
from nomnom_control.environments.local.environment import LocalEnvironment
from nomnom_tui.app.application import NomnomApp
from nomnom_tui.app.operations import Outcome
from nomnom_tui.screens.dead_letter import DeadLetterView
from nomnom_tui.screens.message import MessageView
from nomnom_tui.screens.messages import MessagesView
from nomnom_tui.screens.post import PostView
from nomnom_tui.widgets.dialogs import AskDialog, FormDialog
from tui.test_dead_letters_screen import typed
from tui.test_local import opened, started
from tui.test_shell import told, until
from tui.test_streams import text_of

PATIENCE = 30.0


@pytest.fixture(scope="module")
async def local(server_folder: Path) -> AsyncIterator[LocalEnvironment]:
    """An instance of this module's own, with one worker at least."""
    async with started(server_folder / f"messages-{uuid.uuid4().hex[:8]}") as environment:
        yield environment


async def messages(app: NomnomApp, pilot: Pilot[int]) -> MessagesView:
    """The messages' screen."""
    await pilot.press("7")
    view = app.screen
    assert isinstance(view, MessagesView)
    return view


def set_text(area: TextArea, text: str) -> None:
    """What a person would have typed."""
    area.load_text(text)


async def test_one_is_posted_and_followed_to_its_end(local: LocalEnvironment) -> None:
    async with opened(local) as (app, pilot):
        view = await messages(app, pilot)
        await pilot.press("n")
        writing = app.screen
        assert isinstance(writing, PostView)
        text = writing.query_one(TextArea)
        await until(lambda: text.text and writing._valid, PATIENCE)
        first = text.text
        await pilot.press("ctrl+n")
        await until(lambda: text.text != first and writing._valid, PATIENCE)
        await pilot.press("ctrl+s")
        await until(lambda: isinstance(app.screen, MessageView), PATIENCE)
        followed = app.screen
        assert isinstance(followed, MessageView)
        await until(lambda: followed._state and followed._state.status is Status.COMPLETED, PATIENCE)
        assert "● completed" in text_of(followed._lines)
        assert "nomnom post 'N|" in told(app)
        await pilot.press("escape", "escape")
        await until(lambda: app.screen is view, PATIENCE)
        await until(lambda: any(each.message_id == followed.message_id for each in view._table.rows), PATIENCE)


async def test_one_that_is_wrong_is_asked_about_and_leads_to_its_letter(local: LocalEnvironment) -> None:
    async with opened(local) as (app, pilot):
        view = await messages(app, pilot)
        await pilot.press("n")
        writing = app.screen
        assert isinstance(writing, PostView)
        await until(lambda: writing._valid, PATIENCE)
        set_text(writing.query_one(TextArea), ORDER.replace("123.45", "many"))
        await until(lambda: not writing._valid, PATIENCE)
        assert "✕ many" in text_of(writing._checked)
        await pilot.press("ctrl+s")
        await until(lambda: isinstance(app.screen, AskDialog), PATIENCE)
        await pilot.press("y")
        await until(lambda: isinstance(app.screen, MessageView), PATIENCE)
        followed = app.screen
        assert isinstance(followed, MessageView)
        await until(lambda: followed._state and followed._state.status is Status.DLQ, PATIENCE)
        assert "o_totalprice" in text_of(followed._lines)
        await pilot.press("d")
        await until(lambda: isinstance(app.screen, DeadLetterView) and app.screen._dead_letter, PATIENCE)
        await pilot.press("escape", "escape", "escape")
        await until(lambda: app.screen is view, PATIENCE)
        view.show_status("dlq")
        await until(lambda: {each.status for each in view._table.rows} == {Status.DLQ}, PATIENCE)
        await pilot.press("l")
        await typed(app, pilot, "id", "not-an-id")
        assert isinstance(app.screen, FormDialog)
        await typed(app, pilot, "id", followed.message_id)
        await until(lambda: isinstance(app.screen, MessageView) and app.screen._state, PATIENCE)


async def test_a_file_is_sent_with_progress(local: LocalEnvironment, tmp_path: Path) -> None:
    file = tmp_path / "orders.tbl"
    file.write_text(
        "".join(f"{ORDER.removeprefix('O|').replace('123|', f'{key}|', 1)}|\n" for key in range(5000, 5400))
    )
    async with opened(local) as (app, pilot):
        await messages(app, pilot)
        await pilot.press("i")
        await until(lambda: isinstance(app.screen, FormDialog), PATIENCE)
        await pilot.pause()
        app.screen.query_one("#field-entity", Input).value = "O"
        await typed(app, pilot, "path", str(file))
        await until(lambda: app.operations and not app.operations[-1].running, PATIENCE)
        operation = app.operations[-1]
        assert operation.outcome is Outcome.DONE
        assert operation.steps[0].text == "400 accepted"
        assert operation.command.startswith(f"nomnom ingest {file} --entity O")
