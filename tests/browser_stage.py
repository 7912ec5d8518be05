"""What browser tests need: the page, built, and Chromium. Where one is missing a test is skipped, and says why."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from playwright.async_api import Browser, Page, async_playwright

WEB = Path(__file__).parents[1] / "services" / "dashboard" / "web"
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
DESK: dict[str, Any] = {"viewport": {"width": 1440, "height": 1000}, "color_scheme": "light"}
PHONE: dict[str, Any] = {
    "viewport": {"width": 390, "height": 844},
    "color_scheme": "dark",
    "device_scale_factor": 2,
    "has_touch": True,
    "is_mobile": True,
}


def npm() -> str:
    """The program that builds the page; the test is skipped where it is missing."""
    found = shutil.which("npm")
    if found is None:
        pytest.skip("npm is not installed: the page cannot be built (it needs Node.js 20.19 or later)")
    return found


def install() -> None:
    """What the page is built with, as its lock file says."""
    program = npm()
    with FileLock(WEB / ".install.lock", timeout=600):
        if not (WEB / "node_modules" / ".package-lock.json").exists():
            subprocess.run([program, "ci"], cwd=WEB, check=True, timeout=600)


def build() -> Path:
    """The folder of the page, built anew where it is older than its sources."""
    install()
    index = WEB / "dist" / "index.html"
    with FileLock(WEB / ".install.lock", timeout=600):
        sources = [*WEB.glob("*.json"), *WEB.glob("*.ts"), *WEB.glob("*.html"), *(WEB / "public").iterdir()]
        sources += [each for each in (WEB / "src").rglob("*.*") if each.name != "schema.ts"]
        if not index.exists() or index.stat().st_mtime < max(each.stat().st_mtime for each in sources):
            subprocess.run([npm(), "run", "build"], cwd=WEB, check=True, timeout=300)
    return index.parent


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """The machine's Chromium; the test is skipped where there is none."""
    program = os.environ.get("NOMNOM_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("Chromium is not installed (Debian's package is chromium; NOMNOM_CHROMIUM names another program)")
    async with async_playwright() as playwright:
        started = await playwright.chromium.launch(executable_path=program, args=list(FLAGS))
        yield started
        await started.close()


@asynccontextmanager
async def window(browser: Browser, **options: Any) -> AsyncIterator[Page]:
    """A window; an error that nothing caught fails the test at its end."""
    context = await browser.new_context(**options)
    page = await context.new_page()
    page.set_default_timeout(15_000)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    try:
        yield page
    finally:
        await context.close()
    assert errors == []
