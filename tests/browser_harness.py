"""The harness of browser tests: the built page and Chromium. Tests are skipped, with the reason, if one is missing."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Page, async_playwright

WEB = Path(__file__).parents[1] / "services" / "dashboard" / "web"
sys.path.insert(0, str(WEB))
import page_build  # noqa: E402  (next to the page, outside of any package)

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


def npm() -> tuple[str, Mapping[str, str]]:
    """The path and the environment of npm; skips the test if npm is missing."""
    try:
        return page_build.npm()
    except page_build.PageError as error:
        pytest.skip(str(error))


def install() -> None:
    """Install the page's dependencies; skips the test if npm is missing."""
    npm()
    page_build.install()


def build() -> Path:
    """Build the page unless it is up to date; returns its folder."""
    npm()
    return page_build.build()


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """Start the installed Chromium; skips the test if there is none."""
    program = os.environ.get("NOMNOM_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("Chromium is not installed (apt install chromium, or set NOMNOM_CHROMIUM)")
    async with async_playwright() as playwright:
        started = await playwright.chromium.launch(executable_path=program, args=list(FLAGS))
        yield started
        await started.close()


@asynccontextmanager
async def window(browser: Browser, **options: Any) -> AsyncIterator[Page]:
    """Open a window; an uncaught script error fails the test when it closes."""
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
