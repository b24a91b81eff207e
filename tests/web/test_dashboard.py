"""The shell of the dashboard, its files, and their headers."""

from __future__ import annotations

import hashlib
import re
from importlib import resources
from pathlib import Path

import pytest
from protoflow.web.dashboard.pages import PATHS

from tests.web.clients import ADAPTERS, TOKENS, served

SERVED = {
    "app.js": "text/javascript",
    "app.css": "text/css",
    "icon.svg": "image/svg+xml",
    "uPlot.esm.js": "text/javascript",
}
HERE = Path(str(resources.files("protoflow.web.dashboard")))


@pytest.mark.parametrize("adapter", ADAPTERS)
async def test_the_shell_needs_no_token_and_holds_no_data(adapter: str) -> None:
    async with served(adapter, namespace="secret", **TOKENS) as (_service, client):
        for path in PATHS:
            answer = await client.ask("GET", re.sub(r"{\w+}", "a.b", path))
            assert answer.status == 200
            assert answer.type == "text/html"
            assert "secret" not in answer.text
            policy = answer.headers["content-security-policy"]
            assert "default-src 'none'; script-src 'self'" in policy
            assert "frame-ancestors 'none'" in policy
            assert "unsafe" not in policy
            assert answer.headers["cache-control"] == "no-store"
            assert answer.headers["x-content-type-options"] == "nosniff"
            # Nothing inline, which the policy would refuse, and nothing of elsewhere.
            assert not re.search(r"<script>|style=|\son\w+=|https?://", answer.text)
        assert '<base href="./">' in (await client.ask("GET", "/handlers")).text
        assert '<base href="../">' in (await client.ask("GET", "/handlers/a.b")).text


@pytest.mark.parametrize("adapter", ADAPTERS)
async def test_files_are_served_by_name_alone(adapter: str) -> None:
    async with served(adapter) as (_service, client):
        for name, type in SERVED.items():
            answer = await client.ask("GET", f"/assets/{name}")
            assert (answer.status, answer.type) == (200, type)
        for name in (
            "index.html",
            "SHA256SUMS",
            "..%2Fpages.py",
            "%2e%2e%2f__init__.py",
            "none.js",
        ):
            assert (await client.ask("GET", f"/assets/{name}")).status == 404


def test_vendored_files_are_unmodified_and_have_a_licence() -> None:
    folder = HERE / "vendor"
    lines = (folder / "SHA256SUMS").read_text().splitlines()
    sums = {name: digest for digest, name in (line.split("  ") for line in lines)}
    vendored = {file.name for file in folder.iterdir()} - {"SHA256SUMS", "README.md"}
    assert vendored == sums.keys()
    for name, digest in sums.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
    assert "uPlot.LICENSE" in sums


def test_scripts_import_what_is_there() -> None:
    names = {file.name for folder in ("static", "vendor") for file in (HERE / folder).iterdir()}
    for script in (HERE / "static").glob("*.js"):
        text = script.read_text(encoding="utf-8")
        for imported in re.findall(r'from "\./([^"]+)"', text):
            assert imported in names, (script.name, imported)
        # What a message says is never taken for markup.
        assert not re.search(r"innerHTML|insertAdjacentHTML|document\.write|\beval\(", text)
