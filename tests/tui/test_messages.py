"""Messages on a real pipeline, driven by keys: post, follow, find by ID, send a file."""

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
from nomnom_tui.app.operations import OperationState
from nomnom_tui.screens.dead_letter import DeadLetterView
from nomnom_tui.screens.message import MessageView
from nomnom_tui.screens.messages import MessagesView
from nomnom_tui.screens.post import PostView
from nomnom_tui.widgets.dialogs import ConfirmDialog, FormDialog
from tui.test_dead_letters_screen import submit
from tui.test_local import opened, started
from tui.test_shell import notifications, until
from tui.test_streams import text_of

TIMEOUT = 30.0


@pytest.fixture(scope="module")
async def local(server_folder: Path) -> AsyncIterator[LocalEnvironment]:
    """A separate instance for this module, with at least one worker."""
    async with started(server_folder / f"messages-{uuid.uuid4().hex[:8]}") as environment:
        yield environment


async def messages(app: NomnomApp, pilot: Pilot[int]) -> MessagesView:
    """Open the messages screen."""
    await pilot.press("7")
    view = app.screen
    assert isinstance(view, MessagesView)
    return view


def set_text(area: TextArea, text: str) -> None:
    """Replace the text as if it was typed."""
    area.load_text(text)


async def test_post_and_follow_a_message(local: LocalEnvironment) -> None:
    async with opened(local) as (app, pilot):
        view = await messages(app, pilot)
        await pilot.press("n")
        form = app.screen
        assert isinstance(form, PostView)
        text = form.query_one(TextArea)
        await until(lambda: text.text and form._valid, TIMEOUT)
        first = text.text
        await pilot.press("ctrl+n")
        await until(lambda: text.text != first and form._valid, TIMEOUT)
        await pilot.press("ctrl+s")
        await until(lambda: isinstance(app.screen, MessageView), TIMEOUT)
        followed = app.screen
        assert isinstance(followed, MessageView)
        await until(lambda: followed._state and followed._state.status is Status.COMPLETED, TIMEOUT)
        assert "● completed" in text_of(followed._lines)
        assert "nomnom post 'N|" in notifications(app)
        await pilot.press("escape", "escape")
        await until(lambda: app.screen is view, TIMEOUT)
        await until(lambda: any(each.message_id == followed.message_id for each in view._table.rows), TIMEOUT)


async def test_post_of_an_invalid_message_leads_to_its_dead_letter(local: LocalEnvironment) -> None:
    async with opened(local) as (app, pilot):
        view = await messages(app, pilot)
        await pilot.press("n")
        form = app.screen
        assert isinstance(form, PostView)
        await until(lambda: form._valid, TIMEOUT)
        set_text(form.query_one(TextArea), ORDER.replace("123.45", "many"))
        await until(lambda: not form._valid, TIMEOUT)
        assert "✕ many" in text_of(form._checked)
        await pilot.press("ctrl+s")
        await until(lambda: isinstance(app.screen, ConfirmDialog), TIMEOUT)
        await pilot.press("y")
        await until(lambda: isinstance(app.screen, MessageView), TIMEOUT)
        followed = app.screen
        assert isinstance(followed, MessageView)
        await until(lambda: followed._state and followed._state.status is Status.DLQ, TIMEOUT)
        assert "o_totalprice" in text_of(followed._lines)
        await pilot.press("d")
        await until(lambda: isinstance(app.screen, DeadLetterView) and app.screen._dead_letter, TIMEOUT)
        await pilot.press("escape", "escape", "escape")
        await until(lambda: app.screen is view, TIMEOUT)
        view.show_status("dlq")
        await until(lambda: {each.status for each in view._table.rows} == {Status.DLQ}, TIMEOUT)
        await pilot.press("l")
        await submit(app, pilot, "id", "not-an-id")
        assert isinstance(app.screen, FormDialog)
        await submit(app, pilot, "id", followed.message_id)
        await until(lambda: isinstance(app.screen, MessageView) and app.screen._state, TIMEOUT)


async def test_send_a_file(local: LocalEnvironment, tmp_path: Path) -> None:
    file = tmp_path / "orders.tbl"
    file.write_text(
        "".join(f"{ORDER.removeprefix('O|').replace('123|', f'{key}|', 1)}|\n" for key in range(5000, 5400))
    )
    async with opened(local) as (app, pilot):
        await messages(app, pilot)
        await pilot.press("i")
        await until(lambda: isinstance(app.screen, FormDialog), TIMEOUT)
        await pilot.pause()
        app.screen.query_one("#field-entity", Input).value = "O"
        await submit(app, pilot, "path", str(file))
        await until(lambda: app.operations and not app.operations[-1].running, TIMEOUT)
        operation = app.operations[-1]
        assert operation.state is OperationState.DONE
        assert operation.steps[0].text == "400 accepted"
        assert operation.command.startswith(f"nomnom ingest {file} --entity O")
