"""axe-core, which looks for what keeps people from using a page."""

from __future__ import annotations

from functools import cache
from typing import Any

from playwright.async_api import Page

from tests import npm

_PACKAGES = ("axe-core@4.11.0",)
#: WCAG 2.2 A and AA, and what is good practice.
_RUN = """
async () => {
  const found = await axe.run(document, {resultTypes: ['violations']});
  const where = (node) => `${node.html.slice(0, 200)} ${node.failureSummary}`;
  return found.violations.map((one) =>
    `${one.id}: ${one.help}: ${one.nodes.slice(0, 3).map(where).join(' | ')}`);
}
"""


@cache
def source() -> str:
    """The script, from npm."""
    folder = npm.installed("axe", _PACKAGES)
    return (folder / "node_modules" / "axe-core" / "axe.min.js").read_text(encoding="utf-8")


async def violations(page: Page) -> list[str]:
    """What is wrong with a page, in both colour schemes."""
    found: list[str] = []
    for scheme in ("light", "dark"):
        await page.emulate_media(color_scheme=scheme)
        if not await page.evaluate("() => 'axe' in window"):
            await page.evaluate(source())
        answer: Any = await page.evaluate(_RUN)
        found += [f"{page.url} ({scheme}): {text}" for text in answer]
    return found
