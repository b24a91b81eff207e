"""Every page and every action, in a real browser, on brokers with live traffic."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from playwright.async_api import Page, expect

from tests.acceptance.targets import TARGETS
from tests.dashboard.axe import violations
from tests.dashboard.browser import browser_page
from tests.dashboard.scene import DONE_NAME, Scene, running_scene
from tests.middleware.harness import NAME

pytestmark = pytest.mark.timeout(240)

TRANSPORTS = ("memory", "sqlite", "kafka")


@pytest.mark.parametrize("name", TRANSPORTS)
async def test_every_page_and_every_action(name: str, tmp_path: Path) -> None:
    url = TARGETS[name].fresh_url(tmp_path)
    assert url is not None
    async with (
        running_scene(url, tmp_path) as scene,
        browser_page(scene.base) as page,
    ):
        wrong: list[str] = []
        for walk in (
            _overview,
            _handlers,
            _topology,
            _dead_letters,
            _message,
            _contract,
            _settings,
        ):
            await walk(page, scene)
            if name == "sqlite":
                wrong += await violations(page)
        assert not wrong, "\n".join(wrong)


async def _overview(page: Page, scene: Scene) -> None:
    await page.goto("")
    header = page.get_by_role("banner")
    await expect(header.get_by_text("Ready", exact=True)).to_be_visible()
    await expect(header.get_by_text("Live", exact=True)).to_be_visible()
    await expect(header.get_by_text("Operator")).to_be_visible()
    dead = page.get_by_role("region", name="Dead letters", exact=True).first
    await expect(dead.locator(".value")).to_contain_text("5")
    await expect(dead.locator(".value")).to_contain_text("+5 in 1 h")
    handled = page.get_by_role("region", name="Handled", exact=True)
    await expect(handled.locator(".value")).to_contain_text("msg/s")
    await expect(handled.locator("canvas")).to_be_visible()
    failing = page.get_by_role("region", name="Failing handlers")
    await expect(failing.get_by_role("link", name="Worker.Do")).to_be_visible()
    await expect(page.get_by_text("No problems.")).to_be_visible()


async def _handlers(page: Page, scene: Scene) -> None:
    await page.get_by_role("link", name="Handlers").first.click()
    await expect(page.get_by_role("row")).to_have_count(3)
    await page.get_by_label("Filter").fill("archive")
    await expect(page.get_by_role("row")).to_have_count(2)
    assert page.url.endswith("handlers?q=archive")
    await page.get_by_label("Filter").fill("")
    await page.get_by_role("link", name="Worker.Do").click()
    await expect(page.get_by_role("heading", name=NAME)).to_be_visible()
    await expect(page.get_by_text("ValueError: the bank does not answer")).to_be_visible()
    await expect(page.get_by_text("3 attempts, 10\u202fms \u00d72")).to_be_visible()
    await expect(page.locator(".histogram rect").first).to_be_visible()
    await page.get_by_role("button", name="Pause").click()
    await expect(page.locator(".facts .state")).to_have_text("paused")
    await page.get_by_role("button", name="Resume").click()
    await expect(page.locator(".facts .state")).to_have_text("running")


async def _topology(page: Page, scene: Scene) -> None:
    await page.get_by_role("link", name="Topology").click()
    nodes = page.locator(".node")
    await expect(nodes).to_have_count(7)
    rows = page.get_by_role("region", name="What leads where").get_by_role("row")
    await expect(rows).to_have_count(7)
    await page.locator(f'[data-node="handler:{NAME}"]').press("Enter")
    panel = page.get_by_role("complementary", name="Selected node")
    await expect(panel).to_contain_text(NAME)
    # What is reached by the arrow keys is the topic that it publishes to.
    await page.locator(f'[data-node="handler:{NAME}"]').press("ArrowRight")
    focused = await page.evaluate("document.activeElement.getAttribute('data-node')")
    assert focused.endswith("done")
    await page.get_by_role("button", name="Zoom in").click()
    await page.get_by_role("button", name="Fit").click()
    await page.get_by_label("Find").fill("archive.take")
    await expect(page.get_by_text("1 hit")).to_be_visible()
    await expect(panel).to_contain_text(DONE_NAME)


async def _dead_letters(page: Page, scene: Scene) -> None:
    await page.get_by_role("link", name="Dead letters").first.click()
    await expect(page.get_by_text("5 in all")).to_be_visible()
    await page.get_by_label("Error", exact=True).fill("ValueError")
    await page.get_by_role("button", name="Filter").click()
    await expect(page.get_by_text("3 match, 5 in all")).to_be_visible()
    assert "error=ValueError" in page.url
    await _look_at_one(page)
    await _export(page)
    scene.broken = False
    await _replay_one(page)
    await _replay_the_rest(page, scene)
    await _purge(page)


async def _look_at_one(page: Page) -> None:
    await page.get_by_role("button", name="Open").first.click()
    drawer = page.get_by_role("complementary", name="Dead letter")
    await expect(drawer).to_contain_text("ValueError")
    await expect(drawer).to_contain_text("exhausted")
    # The field is sensitive.
    await expect(drawer.get_by_label("Payload")).to_contain_text("\u2022\u2022\u2022")
    await expect(drawer.get_by_role("region", name="Headers")).to_contain_text("pf_error_class")
    await page.reload()
    await expect(drawer).to_contain_text("the bank does not answer")
    await drawer.get_by_role("button", name="Close").press("Escape")
    await expect(drawer).to_have_count(0)


async def _export(page: Page) -> None:
    async with page.expect_download() as started:
        group = page.get_by_role("group", name="Everything that matches")
        await group.get_by_role("link", name="Export").click()
    lines = Path(await (await started.value).path()).read_text().splitlines()
    assert [json.loads(line)["error_type"] for line in lines] == ["ValueError"] * 3


async def _replay_one(page: Page) -> None:
    await page.get_by_role("checkbox").nth(1).check()
    await expect(page.get_by_text("1 selected")).to_be_visible()
    group = page.get_by_role("group", name="Selection")
    await group.get_by_role("button", name="Replay").click()
    dialog = page.get_by_role("dialog")
    await dialog.get_by_role("button", name="Replay 1 dead letter").click()
    await expect(dialog).to_contain_text("Finished.")
    await dialog.get_by_role("button", name="Close").click()
    await expect(page.get_by_text("2 match")).to_be_visible()


async def _replay_the_rest(page: Page, scene: Scene) -> None:
    before = scene.service.stats()[NAME].handled
    group = page.get_by_role("group", name="Everything that matches")
    await group.get_by_role("button", name="Replay").click()
    dialog = page.get_by_role("dialog")
    await expect(dialog).to_contain_text("2 dead letters")
    await dialog.get_by_label("At most").fill("2")
    await dialog.get_by_role("button", name="Replay 2 dead letters").click()
    await expect(dialog).to_contain_text("Finished.")
    await expect(dialog.get_by_role("region", name="Since the replay began")).to_be_visible()
    await expect(dialog).to_contain_text(re.compile("Dead letters again\\s*0"))
    await dialog.get_by_role("button", name="Close").click()
    await expect(page.get_by_text("No dead letter matches the filter.")).to_be_visible()
    assert scene.service.stats()[NAME].handled >= before + 2


async def _purge(page: Page) -> None:
    await page.goto("dead-letters?since=yesterday")
    await expect(page.get_by_text("since is a time").first).to_be_visible()
    await page.get_by_role("link", name="Clear").click()
    await expect(page.get_by_text("2 in all")).to_be_visible()
    await page.get_by_role("button", name="Purge KeyError").click()
    dialog = page.get_by_role("dialog")
    button = dialog.get_by_role("button", name="Purge 2 dead letters")
    await expect(button).to_be_disabled()
    await dialog.get_by_label("Type 2 to purge them").fill("2")
    await button.click()
    await expect(dialog).to_contain_text("Finished.")
    await dialog.get_by_role("button", name="Close").click()
    await expect(page.get_by_text("No dead letters. Failed messages appear here")).to_be_visible()


async def _message(page: Page, scene: Scene) -> None:
    (cause,) = await scene.put("good with a result")
    (id,) = await scene.put("worse 3")
    await scene.dead(6)
    search = page.get_by_label("Search for a message id")
    await search.fill(id)
    await search.press("Enter")
    await expect(page.get_by_role("heading", name=id)).to_be_visible()
    timeline = page.locator(".timeline")
    await expect(timeline.locator("li", has_text="dead-lettered").first).to_be_visible()
    await page.get_by_role("button", name="Replay").click()
    dialog = page.get_by_role("dialog")
    await dialog.get_by_role("button", name="Replay 1 dead letter").click()
    await expect(dialog).to_contain_text("Finished.")
    await dialog.get_by_role("button", name="Close").click()
    await scene.dead(7)
    await expect(page.get_by_role("button", name="Copy `protoflow why`")).to_be_visible()
    await page.goto(f"messages/{cause}")
    await page.locator(".tree summary", has_text="What it caused").click()
    await expect(page.get_by_text("No further messages are known.")).to_be_visible()
    await page.goto("messages/nowhere")
    await expect(page.get_by_text("Nothing is known of this message.")).to_be_visible()
    await expect(page.get_by_text("journal.db").first).to_be_visible()


async def _contract(page: Page, scene: Scene) -> None:
    await page.get_by_role("link", name="Contract").click()
    await page.get_by_label("Type").select_option("google.protobuf.StringValue")
    await page.get_by_label("Message, as JSON").fill('"from the page"')
    await page.get_by_role("button", name="Publish to work").click()
    await expect(page.get_by_text("Published:")).to_be_visible()
    await page.get_by_label("Message, as JSON").fill("{")
    await page.get_by_role("button", name="Publish to work").click()
    await expect(page.get_by_text("The message is not JSON")).to_be_visible()
    await page.locator("summary", has_text="google.protobuf.StringValue").click()
    await expect(page.get_by_text("sensitive: never shown")).to_be_visible()
    await expect(page.get_by_role("link", name="Download AsyncAPI")).to_be_visible()


async def _settings(page: Page, scene: Scene) -> None:
    await page.get_by_role("link", name="Settings").click()
    settings = page.get_by_role("region", name="Settings", exact=True).last
    await expect(settings.get_by_role("row").nth(1)).to_contain_text("transport")
    await expect(page.get_by_role("region", name="Processes").first).to_contain_text("running")
    audit = page.get_by_role("region", name="Operator actions").last
    for cell in ("operate", "127.0.0.1", "done"):
        await expect(audit.get_by_role("cell", name=cell, exact=True).first).to_be_visible()
    for action in ("pause", "resume", "replay", "purge", "publish"):
        await expect(audit.get_by_role("cell", name=action, exact=True).first).to_be_visible()


WALKS = (_overview, _handlers, _topology, _dead_letters, _message, _contract, _settings)
