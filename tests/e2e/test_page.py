"""The dashboard's page behind the ingress of a cluster, in a real browser."""

from __future__ import annotations

import uuid

import httpx
from playwright.async_api import expect

from browser_harness import DESK, chromium, window
from conftest import ORDER


async def test_page_shows_new_messages(outside: httpx.AsyncClient) -> None:
    """Covers three routes: the page, its queries and events, and the ingest API."""
    address = str(outside.base_url).rstrip("/")
    async with chromium() as browser, window(browser, **DESK) as page:
        await page.goto(f"{address}/")
        await expect(page.locator(".connection")).to_contain_text("live")
        order = ORDER.replace("O|123|", f"O|{uuid.uuid4().int % 2**31}|", 1)
        answer = await outside.post("/api/ingest/message", content=order)
        assert answer.status_code == 202
        posted = answer.json()["message_id"]
        row = page.get_by_role("row").filter(has_text=posted[-6:])
        await expect(row).to_contain_text("completed", timeout=90_000)
        await row.get_by_role("link").click()
        await expect(page.get_by_role("heading", name=posted)).to_be_visible()
        await expect(page.get_by_text("Rows in orders")).to_be_visible()
        # The ingress must not rewrite paths of the page: reload one of them.
        await page.reload()
        await expect(page.get_by_role("heading", name=posted)).to_be_visible()
