"""Whole incidents, by typed keys alone: bad records arrive, are seen, found, mended, tried out, replayed."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest
from textual.pilot import Pilot

from conftest import ORDER
from nomnom.envelope import Status
from nomnom_control.environments.local.environment import LocalEnvironment
from nomnom_tui.app.application import NomnomApp
from nomnom_tui.app.operations import Outcome
from nomnom_tui.screens.dead_letter import DeadLetterView
from nomnom_tui.screens.dead_letter_editor import DeadLetterEditorView
from nomnom_tui.screens.dead_letters import DeadLettersView
from nomnom_tui.screens.dry_run import DryRunView
from nomnom_tui.screens.message import MessageView
from nomnom_tui.screens.messages import MessagesView
from nomnom_tui.screens.overview import OverviewView
from nomnom_tui.widgets.dialogs import AskDialog, FormDialog
from tui.test_local import opened, post, started
from tui.test_shell import until

PATIENCE = 30.0
WRONG, RIGHT = "2024-02-30", "2024-02-29"


@pytest.fixture(scope="module")
async def local(server_folder: Path) -> AsyncIterator[LocalEnvironment]:
    """An instance of this module's own, with one worker at least."""
    async with started(server_folder / f"incident-{uuid.uuid4().hex[:8]}") as environment:
        yield environment


async def fill(app: NomnomApp, pilot: Pilot[int], text: str) -> None:
    """Type into the form that was asked for, and send it."""
    await until(lambda: isinstance(app.screen, FormDialog), PATIENCE)
    await pilot.pause()
    await pilot.press(*text, "enter")


async def bad_orders_arrive(app: NomnomApp, local: LocalEnvironment, keys: list[int], date: str) -> None:
    """Orders of a day that there is not are posted; the overview says so."""
    overview = app.screen
    assert isinstance(overview, OverviewView)
    await until(lambda: overview._last, PATIENCE)
    before = (overview._last.dead_letters or 0) if overview._last else 0
    await post(local, *(ORDER.replace("|123|", f"|{key}|", 1).replace("2024-01-01", date) for key in keys))
    await until(lambda: overview._last and overview._last.dead_letters == before + len(keys), PATIENCE)
    await until(lambda: any("dead letter" in each.text for each in overview._alerts.rows), PATIENCE)


async def dead_letters(app: NomnomApp, pilot: Pilot[int], words: str, count: int) -> DeadLettersView:
    """The dead letters that match."""
    await pilot.press("5")
    view = app.screen
    assert isinstance(view, DeadLettersView)
    await until(lambda: view._page, PATIENCE)
    await pilot.press("slash")
    await fill(app, pilot, words)
    await until(lambda: len(view._table.rows) == count, PATIENCE)
    return view


async def completes(app: NomnomApp, count: int) -> None:
    """The dry run says that all would be completed."""
    await until(lambda: isinstance(app.screen, DryRunView) and len(app.screen._found) == count, PATIENCE)
    assert isinstance(app.screen, DryRunView)
    assert {each.outcome.value for each in app.screen._found} == {"completes"}


async def stored(local: LocalEnvironment, keys: list[int]) -> list[tuple[int, str, str, str]]:
    """What PostgreSQL has: key and date of the orders, message id and status of the messages that wrote them."""
    database = await asyncpg.connect((await local.endpoints()).database)
    try:
        rows = await database.fetch(
            "SELECT o_orderkey, o_orderdate::text, message_id::text, status FROM orders "
            "JOIN message_status USING (message_id) WHERE o_orderkey = ANY($1) ORDER BY o_orderkey",
            keys,
        )
    finally:
        await database.close()
    return [tuple(row) for row in rows]


async def test_one_letter_is_edited_and_its_message_completed(local: LocalEnvironment) -> None:
    keys = sorted(uuid.uuid4().int % 10**12 for _ in range(3))
    async with opened(local) as (app, pilot):
        await bad_orders_arrive(app, local, keys, WRONG)
        view = await dead_letters(app, pilot, f"entity:orders payload:|{keys[1]}|", 1)
        dead_letter = view._table.rows[0]
        assert "o_orderdate" in dead_letter.error

        await pilot.press("enter", "e")
        await until(lambda: isinstance(app.screen, DeadLetterEditorView) and app.screen._dead_letter, PATIENCE)
        editor = app.screen
        assert isinstance(editor, DeadLetterEditorView)
        assert not editor._valid
        place = dead_letter.text.index(WRONG) + len(WRONG)
        await pilot.press("home", *["right"] * place, "backspace", "backspace", "2", "9")
        await until(lambda: editor._valid, PATIENCE)
        await pilot.press("ctrl+t")
        await completes(app, 1)
        await pilot.press("escape", "ctrl+s")
        await until(lambda: isinstance(app.screen, DeadLetterView), PATIENCE)

        await pilot.press("7")
        assert isinstance(app.screen, MessagesView)
        await pilot.press("l")
        await fill(app, pilot, dead_letter.message_id)
        await until(lambda: isinstance(app.screen, MessageView) and app.screen._state, PATIENCE)
        followed = app.screen
        assert isinstance(followed, MessageView)
        await until(lambda: followed._state and followed._state.status is Status.COMPLETED, PATIENCE)
    assert await stored(local, keys) == [(keys[1], RIGHT, dead_letter.message_id, "completed")]


async def test_all_letters_of_a_fault_are_mended_at_once(local: LocalEnvironment) -> None:
    keys = sorted(uuid.uuid4().int % 10**12 for _ in range(12))
    async with opened(local) as (app, pilot):
        await bad_orders_arrive(app, local, keys, "2023-02-29")
        view = await dead_letters(app, pilot, "2023-02-29", len(keys))
        identities = {each.message_id for each in view._table.rows}
        await pilot.press("M")
        await fill(app, pilot, f"o_orderdate={RIGHT}")
        await completes(app, len(keys))
        await pilot.press("p")
        await until(lambda: isinstance(app.screen, AskDialog), PATIENCE)
        await pilot.press("y")
        await until(lambda: app.operations and not app.operations[-1].running, PATIENCE)
        assert app.operations[-1].outcome is Outcome.DONE
        assert f"nomnom dlq replay error:2023-02-29 --set o_orderdate={RIGHT}" in app.operations[-1].command
        await pilot.press("escape", "escape")
        await until(lambda: app.screen is view and view._table.rows == (), PATIENCE)

        async def all_completed() -> None:
            while [row[3] for row in await stored(local, keys)] != ["completed"] * len(keys):
                await asyncio.sleep(0.1)

        await asyncio.wait_for(all_completed(), PATIENCE)
    rows = await stored(local, keys)
    assert [row[0] for row in rows] == keys
    assert {row[1] for row in rows} == {RIGHT}
    assert {row[2] for row in rows} == identities
