"""The documentation site is built without a warning, is complete, and needs no internet."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from protoflow.cli import explanations

from tests.packaging.conftest import ROOT

#: The site is built once, for all.
pytestmark = [pytest.mark.xdist_group("site"), pytest.mark.timeout(400)]

PAGES = [path.stem for path in (ROOT / "docs").glob("*.md") if path.stem != "README"]
#: What a browser loads by itself.
LOADED = re.compile(r"<(?:script|link|img|iframe)\b[^>]*?\b(?:src|href)=\"(https?://[^\"]+)")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site. Sphinx checks links within it, headings included, and that the menu has all."""
    made = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "--quiet", "--fail-on-warning", "--keep-going"]
    done = subprocess.run(
        [*command, "-d", made / "doctrees", ROOT / "docs", made / "html"],
        capture_output=True, text=True, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return made / "html"


def test_every_page_is_there_and_loads_nothing_from_elsewhere(site: Path) -> None:
    assert len(PAGES) > 25
    for page in PAGES:
        text = (site / f"{page}.html").read_text()
        assert not LOADED.findall(text), page
    assert (site / "searchindex.js").stat().st_size > 100_000


def test_the_openapi_document_is_beside_its_page(site: Path) -> None:
    assert json.loads((site / "openapi.json").read_text())["openapi"] == "3.1.0"
    assert 'href="openapi.json"' in (site / "http-api.html").read_text()


def test_concepts_have_pictures_in_the_colours_of_the_theme(site: Path) -> None:
    for page in ("delivery", "order", "retries", "shutdown", "transactions", "policies"):
        text = (site / f"{page}.html").read_text()
        assert '<svg class="sequence" role="img"' in text, page
        assert "var(--color-foreground-primary" in text


def test_errors_can_be_linked_by_code(site: Path) -> None:
    text = (site / "errors.html").read_text()
    assert all(f'id="{code.lower()}"' in text for code in explanations.load())


def test_links_that_leave_the_site_lead_to_the_repository(site: Path) -> None:
    home = (site / "index.html").read_text()
    assert 'href="https://github.com/protoflow/protoflow/blob/main/examples/orders"' in home
    assert 'href="project/changelog.html"' in home
    assert 'href="getting-started.html"' in home


def test_docstrings_are_on_the_page_of_the_python_api(site: Path) -> None:
    text = (site / "python-api.html").read_text()
    for name in ("protoflow.Service", "protoflow.connect", "protoflow.transport.kit.ReadyQueue"):
        assert f'id="{name}"' in text
