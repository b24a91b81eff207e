"""Chromium of the system, driven by Playwright. Without it tests fail: nothing is skipped."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from playwright.async_api import Page, async_playwright, expect

# Tests share their machine with others.
expect.set_options(timeout=30_000)

_NAMES = ("chromium", "chromium-browser", "google-chrome")


@asynccontextmanager
async def browser_page(base: str, **options: Any) -> AsyncIterator[Page]:
    """A page of a fresh browser. What the console complains of, or a script raises, is an error."""
    path = next((found for name in _NAMES if (found := shutil.which(name))), None)
    assert path, f"no browser: install one of {', '.join(_NAMES)}"
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=arguments)
        context = await browser.new_context(
            base_url=base, **{"viewport": {"width": 1280, "height": 900}} | options
        )
        page = await context.new_page()
        page.set_default_timeout(30_000)
        complaints: list[str] = []
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "console",
            lambda said: complaints.append(said.text) if _is_complaint(said) else None,
        )
        yield page
        await browser.close()
        assert not complaints, complaints


def _is_complaint(said: Any) -> bool:
    # That a question is refused is written by the browser itself.
    return said.type in ("error", "warning") and "Failed to load resource" not in said.text
