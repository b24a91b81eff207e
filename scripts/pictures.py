"""Makes the pictures of the README: `python scripts/pictures.py`.

    docs/images/dashboard-overview.png   the dashboard of `make demo ARGS=dashboard`, after a minute
    docs/images/terminal.svg             what `make demo` prints

Needs chromium, and the development tools of `make setup`.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
import urllib.request
from html import escape
from pathlib import Path

from playwright.async_api import async_playwright

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images"
DEMO = ROOT / "examples" / "orders" / "demo.py"
#: The charts of the dashboard have something to show after this time.
SECONDS = 75.0
WIDTH, HEIGHT = 1280, 800
_LINE, _CHARACTER = 18, 7.83
_FONT = "ui-monospace, Menlo, Consolas, monospace"


def terminal(command: str, output: str) -> str:
    """Returns a terminal with a command and its output, as SVG."""
    lines = [f"$ {command}", *output.rstrip().splitlines()]
    width = max(map(len, lines)) * _CHARACTER + 32
    height = len(lines) * _LINE + 52
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}">']
    parts.append('<rect width="100%" height="100%" rx="8" fill="#16181d"/>')
    parts += [f'<circle cx="{x}" cy="16" r="5" fill="#4a4f5a"/>' for x in (18, 34, 50)]
    parts.append(f'<g font-family="{_FONT}" font-size="13" fill="#d8dbe2">')
    for number, line in enumerate(lines):
        colour = ' fill="#7fd1ae"' if number == 0 else ""
        y = 48 + number * _LINE
        parts.append(f'<text x="16" y="{y}" xml:space="preserve"{colour}>{escape(line)}</text>')
    return "\n".join([*parts, "</g></svg>\n"])


def make_terminal() -> None:
    """Runs the demo, and writes what it prints."""
    done = subprocess.run(
        [sys.executable, DEMO], capture_output=True, text=True, check=True, cwd=ROOT
    )
    (IMAGES / "terminal.svg").write_text(terminal("make demo", done.stdout))


def make_dashboard() -> None:
    """Runs the demo with its dashboard, and takes a picture."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    demo = subprocess.Popen(
        [sys.executable, DEMO, "dashboard"], env={**os.environ, "PORT": str(port)}, cwd=ROOT,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        until_ready(f"http://127.0.0.1:{port}/readyz")
        time.sleep(SECONDS)
        asyncio.run(screenshot(f"http://127.0.0.1:{port}/"))
    finally:
        demo.terminate()
        demo.wait(30)


async def screenshot(url: str) -> None:
    """Takes a picture of the overview."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox"]
        )
        page = await browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        await page.goto(url)
        await page.wait_for_timeout(4000)
        await page.screenshot(path=IMAGES / "dashboard-overview.png")
        await browser.close()


def until_ready(url: str) -> None:
    """Waits until the service answers."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError:
            time.sleep(0.5)
    raise TimeoutError(f"{url} does not answer")


if __name__ == "__main__":
    make_terminal()
    make_dashboard()
