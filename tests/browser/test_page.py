"""The page on a running pipeline: data, outages, accessibility and size."""

from __future__ import annotations

import asyncio
import gzip
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.async_api import Browser, Page, expect

from browser_harness import DESK, PHONE, WEB, build, chromium, window
from conftest import ORDER, Deployment, free_port
from dashboard_process import Dashboard, running
from nomnom.envelope import headers, ingest_subject, new_message_id
from nomnom.settings import Settings
from nomnom.setup import set_up
from nomnom_control.environments.local.processes import ChildProcess
from nomnom_control.environments.local.servers import NatsServer, PostgresServer

PATHS = ("/", "/messages", "/entities", "/entities/orders", "/dead-letters", "/system")
FIRST_LOAD = 200_000
BROKEN = ORDER.replace("123.45", "12,50")


@pytest.fixture(scope="session")
def page_folder() -> Path:
    return build()


@pytest.fixture(scope="session")
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as started:
        yield started


@asynccontextmanager
async def worker(deployment: Deployment, folder: Path) -> AsyncIterator[None]:
    """One worker, with a single attempt per message."""
    process = ChildProcess(
        "worker",
        [sys.executable, "-m", "nomnom_worker"],
        folder / "worker.log",
        {
            **deployment.environment,
            "MAX_DELIVER": "1",
            "LOG_FORMAT": "json",
            "WORKER_HEALTH_HOST": "127.0.0.1",
            "WORKER_HEALTH_PORT": str(free_port()),
        },
    )
    await process.start()
    try:
        yield
    finally:
        await process.stop(15)


@asynccontextmanager
async def api(deployment: Deployment, folder: Path) -> AsyncIterator[httpx.AsyncClient]:
    """The ingest API, with a client."""
    port = free_port()
    process = ChildProcess(
        "api",
        [sys.executable, "-m", "nomnom_api"],
        folder / "api.log",
        {**deployment.environment, "NOMNOM_API_HOST": "127.0.0.1", "NOMNOM_API_PORT": str(port), "LOG_FORMAT": "json"},
    )
    await process.start()
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            deadline = time.monotonic() + 20
            while True:
                try:
                    if (await client.get("/ready")).status_code == 200:
                        break
                except httpx.TransportError:
                    if process.exit_code is not None:
                        raise process.failure() from None
                assert time.monotonic() < deadline, "the API is not ready"
                await asyncio.sleep(0.05)
            yield client
    finally:
        await process.stop(15)


@pytest.fixture
async def dashboard(deployment: Deployment, tmp_path: Path, page_folder: Path) -> AsyncIterator[Dashboard]:
    async with running(deployment.environment, tmp_path, NOMNOM_DASHBOARD_PAGE=str(page_folder)) as started:
        yield started


async def post(deployment: Deployment, record: str) -> str:
    """Publish a message as the API does."""
    message_id = new_message_id()
    await deployment.jetstream.publish(
        ingest_subject("orders", message_id), record.encode(), headers=headers(time.time_ns() // 1000, message_id)
    )
    return message_id


async def accepted(ingest: httpx.AsyncClient, record: str) -> str:
    """Post a message to the API and return its ID."""
    answer = await ingest.post("/api/ingest/message", content=record, headers={"Content-Type": "text/plain"})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["message_id"])


async def axe(page: Page) -> list[dict[str, Any]]:
    """The serious and critical accessibility violations that axe finds."""
    # Not with a script tag: the page's content security policy blocks that.
    await page.evaluate((WEB / "node_modules" / "axe-core" / "axe.min.js").read_text())
    found = await page.evaluate("axe.run()")
    return [
        {"rule": each["id"], "nodes": [node["html"][:200] for node in each["nodes"]]}
        for each in found["violations"]
        if each["impact"] in ("serious", "critical")
    ]


async def test_messages_and_dead_letters_appear(
    deployment: Deployment, dashboard: Dashboard, browser: Browser, tmp_path: Path
) -> None:
    async with (
        window(browser, **DESK) as page,
        api(deployment, tmp_path) as ingest,
        worker(deployment, tmp_path),
    ):
        await page.goto(str(dashboard.client.base_url))
        await expect(page.get_by_text("No messages yet")).to_be_visible()
        await expect(page.locator(".stage", has_text="Workers")).to_contain_text("1 connected", timeout=30_000)

        good = await accepted(ingest, ORDER)
        row = page.get_by_role("row").filter(has_text=good[-6:])
        await expect(row).to_contain_text("completed")
        await row.get_by_role("link").click()
        await expect(page.get_by_role("heading", name=good)).to_be_visible()
        await expect(page.get_by_text("Rows in orders")).to_be_visible()
        await expect(page.locator(".record")).to_contain_text("123.45")

        bad = await accepted(ingest, BROKEN)
        dead_letters = page.get_by_role("navigation").get_by_role("link", name="Dead letters")
        await expect(dead_letters).to_contain_text("1 dead letter")
        await dead_letters.click()
        await expect(page.get_by_role("button", name="Invalid record")).to_contain_text("o_totalprice")
        await page.get_by_role("row").filter(has_text="o_totalprice").get_by_role("link").click()
        await expect(page.locator("mark")).to_have_text("12,50")
        await page.get_by_role("link", name=bad).click()
        await expect(page.locator(".status")).to_contain_text("dead letter")

        await page.goto(f"{dashboard.client.base_url}/messages")
        await page.get_by_role("searchbox").fill(good)
        await page.get_by_role("searchbox").press("Enter")
        await expect(page.get_by_role("heading", name=good)).to_be_visible()

        # A bookmark from before the page said "entities" still leads there.
        await page.goto(f"{dashboard.client.base_url}/records/orders?sort=-o_orderkey")
        await expect(page).to_have_url(f"{dashboard.client.base_url}/entities/orders?sort=-o_orderkey")
        await expect(page.get_by_role("cell", name="123.45", exact=True)).to_be_visible()
        await page.get_by_label("Column").select_option("o_totalprice")
        await page.get_by_label("Operator").select_option("gt")
        await page.get_by_role("textbox", name="Value").fill("500")
        await page.get_by_role("button", name="Add filter").click()
        await expect(page.get_by_text("No matching rows found yet")).to_be_visible()
        await page.get_by_role("button", name="Remove the filter o_totalprice > 500").click()
        await expect(page.get_by_role("cell", name="123.45", exact=True)).to_be_visible()


async def test_outages_are_shown_and_end(open_folder: Path, page_folder: Path, browser: Browser) -> None:
    nats_server = NatsServer(open_folder / "nats", free_port(), free_port(), open_folder / "nats.log")
    postgres = PostgresServer(open_folder / "postgres", free_port(), open_folder / "postgres.log")
    await asyncio.gather(nats_server.start(), postgres.start())
    environment = {"NATS_URL": nats_server.url, "DATABASE_URL": postgres.url}
    page_settings = {"NOMNOM_DASHBOARD_PAGE": str(page_folder), "NOMNOM_DASHBOARD_PORT": str(free_port())}
    try:
        await set_up(Settings(nats_url=nats_server.url, database_url=postgres.url), wait=10)
        async with window(browser, **DESK) as page:
            async with running(environment, open_folder, **page_settings) as dashboard:
                await page.goto(str(dashboard.client.base_url))
                await expect(page.get_by_text("No messages yet")).to_be_visible()
                alerts = page.get_by_role("alert")
                await expect(alerts).to_have_count(0)

                await postgres.stop()
                await expect(alerts).to_contain_text("PostgreSQL is unavailable")
                await expect(page.locator(".stage", has_text="PostgreSQL")).to_contain_text("unavailable")
                await page.get_by_role("link", name="Messages", exact=True).click()
                await expect(page.get_by_text("Temporarily unavailable")).to_be_visible()
                await page.get_by_role("link", name="Health").click()
                await expect(page.get_by_text("Unavailable", exact=True)).to_be_visible()
                assert await axe(page) == []
                await postgres.start()
                await expect(alerts).to_have_count(0)
                await expect(page.get_by_text("Healthy", exact=True)).to_be_visible()

                await nats_server.stop()
                await expect(alerts).to_contain_text("NATS is unavailable")
                await nats_server.start()
                await expect(alerts).to_have_count(0, timeout=20_000)
            # The dashboard itself has been stopped.
            await expect(alerts).to_contain_text("Disconnected.")
            await expect(page.locator(".connection")).to_contain_text("disconnected")
            async with running(environment, open_folder, **page_settings):
                # The page also reconnects by itself, and may remove the button before a click reaches it.
                await page.evaluate("document.querySelectorAll('.button').forEach(each => each.click())")
                await expect(page.locator(".connection")).to_contain_text("live")
                await expect(alerts).to_have_count(0)
    finally:
        await asyncio.gather(nats_server.stop(), postgres.stop())


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_no_serious_accessibility_violations(
    deployment: Deployment, dashboard: Dashboard, browser: Browser, tmp_path: Path, scheme: str
) -> None:
    async with window(browser, **{**DESK, "color_scheme": scheme}) as page, worker(deployment, tmp_path):
        message_id = await post(deployment, ORDER)
        await post(deployment, BROKEN)
        await dashboard.until("/api/dlq", lambda found: found["total"] == 1)
        for path in (*PATHS, f"/messages/{message_id}", "/dead-letters/1", "/nowhere"):
            await page.goto(f"{dashboard.client.base_url}{path}")
            await expect(page.locator(".connection")).to_contain_text("live")
            await expect(page.get_by_role("status", name="Loading")).to_have_count(0)
            assert await axe(page) == [], path


async def test_keyboard_navigation(
    deployment: Deployment, dashboard: Dashboard, browser: Browser, tmp_path: Path
) -> None:
    async with window(browser, **DESK) as page, worker(deployment, tmp_path):
        await page.goto(str(dashboard.client.base_url))
        await expect(page.locator(".connection")).to_contain_text("live")
        await page.keyboard.press("Tab")
        await expect(page.get_by_role("link", name="Skip to main content")).to_be_focused()
        await page.keyboard.press("Enter")
        await expect(page.locator("main")).to_be_focused()
        for key, heading in (("2", "Messages"), ("3", "Entities"), ("4", "Dead letters"), ("5", "Health")):
            await page.keyboard.press(key)
            await expect(page.get_by_role("heading", level=1, name=heading)).to_be_visible()
        await page.keyboard.press("2")
        await page.keyboard.press("/")
        await expect(page.get_by_role("searchbox")).to_be_focused()
        message_id = await post(deployment, ORDER)
        await dashboard.until("/api/messages", lambda found: len(found["messages"]) == 1)
        await page.keyboard.type(message_id)
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("heading", name=message_id)).to_be_visible()
        await page.keyboard.press("?")
        await expect(page.get_by_role("dialog", name="Keyboard shortcuts")).to_be_visible()
        await page.keyboard.press("Escape")
        await expect(page.get_by_role("dialog")).to_have_count(0)
        before = await page.evaluate("getComputedStyle(document.body).backgroundColor")
        await page.keyboard.press("t")
        assert await page.evaluate("getComputedStyle(document.body).backgroundColor") != before
        await page.reload()
        assert await page.evaluate("getComputedStyle(document.body).backgroundColor") != before


async def test_phone_layout_has_no_overflow(
    deployment: Deployment, dashboard: Dashboard, browser: Browser, tmp_path: Path
) -> None:
    async with window(browser, **PHONE) as page, worker(deployment, tmp_path):
        message_id = await post(deployment, ORDER)
        await post(deployment, BROKEN)
        await dashboard.until("/api/dlq", lambda found: found["total"] == 1)
        for path in (*PATHS, f"/messages/{message_id}", "/dead-letters/1"):
            await page.goto(f"{dashboard.client.base_url}{path}")
            await expect(page.locator(".connection")).to_contain_text("live")
            await expect(page.get_by_role("status", name="Loading")).to_have_count(0)
            widths = await page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
            assert widths[0] <= widths[1], path
            assert await axe(page) == [], path
        await page.get_by_role("navigation").get_by_role("link", name="Messages").tap()
        await expect(page.get_by_role("heading", level=1, name="Messages")).to_be_visible()


async def test_sign_in_with_token(deployment: Deployment, browser: Browser, tmp_path: Path, page_folder: Path) -> None:
    settings = {"NOMNOM_DASHBOARD_PAGE": str(page_folder), "NOMNOM_DASHBOARD_TOKENS": "right-token"}
    async with (
        running(deployment.environment, tmp_path, **settings) as dashboard,
        window(browser, **DESK) as page,
    ):
        await page.goto(f"{dashboard.client.base_url}/entities")
        await page.get_by_label("Token").fill("wrong-token")
        await page.get_by_role("button", name="Sign in").click()
        await expect(page.get_by_role("alert")).to_contain_text("Invalid token")
        await page.get_by_label("Token").fill("right-token")
        await page.get_by_role("button", name="Sign in").click()
        await expect(page.get_by_role("link", name="Orders orders")).to_be_visible()
        await expect(page.locator(".connection")).to_contain_text("live")


async def test_first_load_is_small_and_self_contained(
    deployment: Deployment, dashboard: Dashboard, browser: Browser
) -> None:
    sizes: dict[str, int] = {}
    async with window(browser, **DESK) as page:
        page.on("request", lambda request: sizes.setdefault(request.url, 0))
        await page.goto(str(dashboard.client.base_url))
        await expect(page.locator(".connection")).to_contain_text("live")
    base = str(dashboard.client.base_url)
    assert sizes
    assert all(url.startswith(base) for url in sizes), sizes
    for url in sizes:
        if "/api/" not in url:
            sizes[url] = len(gzip.compress((await dashboard.client.get(url)).content))
    assert sum(sizes.values()) < FIRST_LOAD, sizes


def test_page_sources_pass_their_own_checks() -> None:
    """Run vitest, eslint and the TypeScript compiler."""
    import subprocess

    from browser_harness import install, npm

    install()
    program, environment = npm()
    for script in ("check", "test"):
        done = subprocess.run(
            [program, "run", script], cwd=WEB, env=environment, capture_output=True, text=True, timeout=170, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
