"""Complete incidents, driven by keys: invalid records arrive and are found, fixed, dry-run and replayed."""

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
from nomnom_tui.app.operations import OperationState
from nomnom_tui.screens.dead_letter import DeadLetterView
from nomnom_tui.screens.dead_letter_editor import DeadLetterEditorView
from nomnom_tui.screens.dead_letters import DeadLettersView
from nomnom_tui.screens.dry_run import DryRunView
from nomnom_tui.screens.message import MessageView
from nomnom_tui.screens.messages import MessagesView
from nomnom_tui.screens.overview import OverviewView
from nomnom_tui.widgets.dialogs import ConfirmDialog, FormDialog
from tui.test_local import opened, post, started
from tui.test_shell import until

TIMEOUT = 30.0
INVALID, VALID = "2024-02-30", "2024-02-29"


@pytest.fixture(scope="module")
async def local(server_folder: Path) -> AsyncIterator[LocalEnvironment]:
    """A separate instance for this module, with at least one worker."""
    async with started(server_folder / f"incident-{uuid.uuid4().hex[:8]}") as environment:
        yield environment


async def fill(app: NomnomApp, pilot: Pilot[int], text: str) -> None:
    """Type into the open form and submit it."""
    await until(lambda: isinstance(app.screen, FormDialog), TIMEOUT)
    await pilot.pause()
    await pilot.press(*text, "enter")


async def bad_orders_arrive(app: NomnomApp, local: LocalEnvironment, keys: list[int], date: str) -> None:
    """Post orders with an invalid date and wait until the overview shows them as dead letters."""
    overview = app.screen
    assert isinstance(overview, OverviewView)
    await until(lambda: overview._last, TIMEOUT)
    before = (overview._last.dead_letters or 0) if overview._last else 0
    await post(local, *(ORDER.replace("|123|", f"|{key}|", 1).replace("2024-01-01", date) for key in keys))
    await until(lambda: overview._last and overview._last.dead_letters == before + len(keys), TIMEOUT)
    await until(lambda: any("dead letter" in each.text for each in overview._alerts.rows), TIMEOUT)


async def dead_letters(app: NomnomApp, pilot: Pilot[int], words: str, count: int) -> DeadLettersView:
    """Open the dead letters screen with this filter and wait for this number of rows."""
    await pilot.press("5")
    view = app.screen
    assert isinstance(view, DeadLettersView)
    await until(lambda: view._page, TIMEOUT)
    await pilot.press("slash")
    await fill(app, pilot, words)
    await until(lambda: len(view._table.rows) == count, TIMEOUT)
    return view


async def completes(app: NomnomApp, count: int) -> None:
    """Wait until the dry run predicts that all of them complete."""
    await until(lambda: isinstance(app.screen, DryRunView) and len(app.screen._found) == count, TIMEOUT)
    assert isinstance(app.screen, DryRunView)
    assert {each.outcome.value for each in app.screen._found} == {"completes"}


async def stored(local: LocalEnvironment, keys: list[int]) -> list[tuple[int, str, str, str]]:
    """Return key and date of the stored orders, and ID and status of the messages that wrote them."""
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


async def test_edit_one_dead_letter_and_follow_its_message(local: LocalEnvironment) -> None:
    keys = sorted(uuid.uuid4().int % 10**12 for _ in range(3))
    async with opened(local) as (app, pilot):
        await bad_orders_arrive(app, local, keys, INVALID)
        view = await dead_letters(app, pilot, f"entity:orders payload:|{keys[1]}|", 1)
        dead_letter = view._table.rows[0]
        assert "o_orderdate" in dead_letter.error

        await pilot.press("enter", "e")
        await until(lambda: isinstance(app.screen, DeadLetterEditorView) and app.screen._dead_letter, TIMEOUT)
        editor = app.screen
        assert isinstance(editor, DeadLetterEditorView)
        assert not editor._valid
        column = dead_letter.text.index(INVALID) + len(INVALID)
        await pilot.press("home", *["right"] * column, "backspace", "backspace", "2", "9")
        await until(lambda: editor._valid, TIMEOUT)
        await pilot.press("ctrl+t")
        await completes(app, 1)
        await pilot.press("escape", "ctrl+s")
        await until(lambda: isinstance(app.screen, DeadLetterView), TIMEOUT)

        await pilot.press("7")
        assert isinstance(app.screen, MessagesView)
        await pilot.press("l")
        await fill(app, pilot, dead_letter.message_id)
        await until(lambda: isinstance(app.screen, MessageView) and app.screen._state, TIMEOUT)
        followed = app.screen
        assert isinstance(followed, MessageView)
        await until(lambda: followed._state and followed._state.status is Status.COMPLETED, TIMEOUT)
    assert await stored(local, keys) == [(keys[1], VALID, dead_letter.message_id, "completed")]


async def test_fix_all_dead_letters_of_one_error(local: LocalEnvironment) -> None:
    keys = sorted(uuid.uuid4().int % 10**12 for _ in range(12))
    async with opened(local) as (app, pilot):
        await bad_orders_arrive(app, local, keys, "2023-02-29")
        view = await dead_letters(app, pilot, "2023-02-29", len(keys))
        identities = {each.message_id for each in view._table.rows}
        await pilot.press("M")
        await fill(app, pilot, f"o_orderdate={VALID}")
        await completes(app, len(keys))
        await pilot.press("p")
        await until(lambda: isinstance(app.screen, ConfirmDialog), TIMEOUT)
        await pilot.press("y")
        await until(lambda: app.operations and not app.operations[-1].running, TIMEOUT)
        assert app.operations[-1].state is OperationState.DONE
        assert f"nomnom dlq replay error:2023-02-29 --set o_orderdate={VALID}" in app.operations[-1].command
        await pilot.press("escape", "escape")
        await until(lambda: app.screen is view and view._table.rows == (), TIMEOUT)

        async def all_completed() -> None:
            while [row[3] for row in await stored(local, keys)] != ["completed"] * len(keys):
                await asyncio.sleep(0.1)

        await asyncio.wait_for(all_completed(), TIMEOUT)
    rows = await stored(local, keys)
    assert [row[0] for row in rows] == keys
    assert {row[1] for row in rows} == {VALID}
    assert {row[2] for row in rows} == identities
