"""Who may enter, hostile texts, narrow screens, the keyboard, and what stands around the pages."""

from __future__ import annotations

from pathlib import Path

import pytest
from fastapi import FastAPI
from playwright.async_api import Page, expect
from protoflow import Config
from protoflow.connection import Connection
from protoflow.contract.catalog import Catalog
from protoflow.contract.spec import FileSpec
from protoflow.web.pages import pages_of
from protoflow.web.server import WebServer
from protoflow.web.standalone import standalone

from tests.dashboard.asgi_server import serving
from tests.dashboard.axe import violations
from tests.dashboard.browser import browser_page
from tests.dashboard.scene import Scene, running_scene
from tests.middleware.harness import DONE, NAME, WORK, nothing, worker

pytestmark = pytest.mark.timeout(240)

TOKENS = {"http_token": "may-act", "http_read_token": "may-look"}
EVIL = "<img src=x onerror='window.hacked=1'><script>window.hacked=1</script> \u202egnp.exe"
PATHS = ("", "handlers", f"handlers/{NAME}", "topology", "dead-letters", "contract", "settings")


async def test_who_enters_and_what_strangers_write(tmp_path: Path) -> None:
    async with (
        running_scene("memory://", tmp_path, **TOKENS, journal="") as scene,
        browser_page(scene.base) as page,
    ):
        scene.error = EVIL + "x" * 20_000
        await scene.put("evil")
        await scene.dead(6)
        await _sign_in(page, "wrong")
        await expect(page.get_by_text("this is not a token of the service")).to_be_visible()
        assert await violations(page) == []
        await _sign_in(page, "may-look")
        await expect(page.get_by_text("Reader")).to_be_visible()
        await expect(page.get_by_text("Live", exact=True)).to_be_visible()
        await page.get_by_role("link", name="Contract").click()
        # Its requests are all beneath the path of the cookie.
        await expect(page.get_by_role("heading", name="Channels")).to_be_visible()
        await _look_at_evil(page)
        await page.goto("settings")
        await expect(page.get_by_text("Not recorded: the journal is off")).to_be_visible()
        await page.get_by_role("button", name="Sign out").click()
        await _sign_in(page, "may-act")
        await expect(page.get_by_text("Operator", exact=True)).to_be_visible()
        # The address of a page is one that can be shared.
        await page.goto("dead-letters?error=KeyError")
        await page.get_by_role("button", name="Purge").last.click()
        assert await violations(page) == []
        await page.keyboard.press("Escape")
        await expect(page.get_by_role("dialog")).to_have_count(0)
        await scene.service.stop()
        await expect(page.get_by_text("Reconnecting; data from")).to_be_visible()


async def _sign_in(page: Page, token: str) -> None:
    if not page.url.startswith("http"):
        await page.goto("dead-letters")
    await page.get_by_label("Token").fill(token)
    await page.get_by_role("button", name="Sign in").click()


async def _look_at_evil(page: Page) -> None:
    await page.goto("dead-letters?error=RuntimeError")
    await expect(page.get_by_text("1 match")).to_be_visible()
    for button in await page.get_by_role("button", name="Replay").all():
        await expect(button).to_be_disabled()
    await page.get_by_role("button", name="Open").click()
    drawer = page.get_by_role("complementary", name="Dead letter")
    await expect(drawer).to_contain_text("<script>window.hacked=1</script>")
    # Nothing changes the direction in which it is read.
    assert "\u202e" not in await drawer.inner_text()
    assert await violations(page) == []
    assert await page.evaluate("window.hacked") is None
    assert await page.evaluate("document.body.innerText.length") < 20_000


async def test_narrow_screens_and_the_keyboard(tmp_path: Path) -> None:
    async with (
        running_scene("memory://", tmp_path) as scene,
        browser_page(scene.base, viewport={"width": 360, "height": 740}) as page,
    ):
        for width in (360, 700, 1920):
            await page.set_viewport_size({"width": width, "height": 740})
            for path in PATHS if width == 360 else ("",):
                await page.goto(path)
                await expect(page.locator(".skeleton")).to_have_count(0)
                wide = await page.evaluate("document.documentElement.scrollWidth")
                assert wide <= width, path
        await _by_keyboard(page, scene)


async def _by_keyboard(page: Page, scene: Scene) -> None:
    """From the overview to replayed dead letters without a pointer."""
    scene.broken = False
    await page.goto("")
    await _tab_to(page, "Dead letters")
    await page.keyboard.press("Enter")
    await expect(page.get_by_text("5 in all")).to_be_visible()
    await _tab_to(page, "Replay ValueError")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("button", name="Replay 3 dead letters")).to_be_visible()
    await _tab_to(page, "Replay 3 dead letters")
    await page.keyboard.press("Enter")
    await expect(page.get_by_text("Finished.")).to_be_visible()
    await page.keyboard.press("Escape")
    await expect(page.get_by_text("2 in all")).to_be_visible()


async def _tab_to(page: Page, name: str) -> None:
    for _ in range(80):
        await page.keyboard.press("Tab")
        found = await page.evaluate(
            "(document.activeElement.getAttribute('aria-label') ?? '') + '|' +"
            " document.activeElement.textContent.trim()"
        )
        if any(part.startswith(name) for part in found.split("|")):
            return
    raise AssertionError(f"{name} is not reached by Tab")


async def test_beneath_a_prefix_in_fastapi(tmp_path: Path) -> None:
    async with running_scene("memory://", tmp_path) as scene:
        app = FastAPI()
        app.mount("/ops", scene.service.asgi_app())
        async with serving(app) as base, browser_page(f"{base}ops/") as page:
            await page.goto(f"handlers/{NAME}")
            await expect(page.get_by_role("heading", name=NAME)).to_be_visible()
            await expect(page.get_by_text("Live", exact=True)).to_be_visible()
            await page.get_by_role("link", name="Overview", exact=True).click()
            assert page.url == f"{base}ops/"
            await expect(page.get_by_role("region", name="Handled")).to_be_visible()


async def test_alone_over_a_broker(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/queue.db"
    async with running_scene(url, tmp_path) as scene:
        config = Config(environ={}, transport=url, namespace=scene.service.config.namespace)
        specs = (worker(nothing).__protoflow_spec__,)
        catalog = Catalog([FileSpec(source="w.proto", services=specs, messages=(WORK, DONE))])
        async with Connection(config) as connection:
            server = WebServer(config)
            host = standalone(connection, config, catalog)
            port = await server.serve(pages_of(host), 0)
            try:
                async with browser_page(f"http://127.0.0.1:{port}/") as page:
                    await _look_alone(page, scene)
            finally:
                host.live.end()
                await server.stop()


async def _look_alone(page: Page, scene: Scene) -> None:
    await page.goto("")
    handled = page.get_by_role("region", name="Handled", exact=True)
    await expect(handled.locator(".value")).to_contain_text("\u2014")
    dead = page.get_by_role("region", name="Dead letters", exact=True).first
    await expect(dead.locator(".value")).to_contain_text("5")
    await page.goto(f"handlers/{NAME}")
    await expect(page.get_by_text("not seen here")).to_be_visible()
    await expect(page.get_by_text("3 attempts")).to_be_visible()
    scene.broken = False
    await page.goto("dead-letters?error=ValueError")
    group = page.get_by_role("group", name="Everything that matches")
    await group.get_by_role("button", name="Replay").click()
    dialog = page.get_by_role("dialog")
    await dialog.get_by_role("button", name="Replay 3 dead letters").click()
    await expect(dialog).to_contain_text("Finished.")
    await dialog.get_by_role("button", name="Close").click()
    await expect(page.get_by_text("No dead letter matches the filter.")).to_be_visible()
    await page.goto("contract")
    await expect(page.locator("summary", has_text="google.protobuf.Int64Value")).to_be_visible()


async def test_alone_without_a_contract(tmp_path: Path) -> None:
    config = Config(environ={}, transport=f"sqlite:///{tmp_path}/queue.db")
    async with Connection(config) as connection:
        server = WebServer(config)
        host = standalone(connection, config, Catalog(()))
        port = await server.serve(pages_of(host), 0)
        try:
            async with browser_page(f"http://127.0.0.1:{port}/") as page:
                for path, text in (
                    ("", "No handlers registered."),
                    ("handlers", "No handlers registered."),
                    ("topology", "No generated handlers registered."),
                    ("dead-letters", "No dead letters. Failed messages appear here"),
                    ("contract", "No contract loaded. Pass --contract."),
                ):
                    await page.goto(path)
                    await expect(page.get_by_text(text)).to_be_visible()
        finally:
            host.live.end()
            await server.stop()
