"""The dashboard's page behind the cluster's ingress, in a real browser."""

from __future__ import annotations

import uuid

import httpx
from playwright.async_api import expect

from browser_harness import DESK, chromium, window
from conftest import ORDER


async def test_the_page_loads_and_shows_what_comes_in(outside: httpx.AsyncClient) -> None:
    """The three routes at once: the page, its queries and events, and a record posted beside them."""
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
        await expect(page.get_by_text("Wrote to orders")).to_be_visible()
        # An address of the page's own, loaded anew: the ingress rewrites nothing, and the page answers it.
        await page.reload()
        await expect(page.get_by_role("heading", name=posted)).to_be_visible()
