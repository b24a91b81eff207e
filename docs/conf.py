"""The documentation site: `make docs` builds it in `docs/_build`, and warnings are errors."""

from __future__ import annotations

import json
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from docutils import nodes
from protoflow import __version__
from protoflow.web import openapi
from protoflow.web.routes import ROUTES
from sphinx.transforms import SphinxTransform

if TYPE_CHECKING:
    from sphinx.application import Sphinx

ROOT = Path(__file__).parent.parent
URLS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]

project = "Protoflow"
author = "the Protoflow authors"
release = version = __version__
language = "en"

sys.path.insert(0, str(Path(__file__).parent))  # sequence: draws pictures
extensions = [
    *("myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"),
    "sequence",
]
exclude_patterns = ["_build", "README.md"]  # the table of pages on GitHub; the site has a menu
# Code in docstrings stands between single backticks.
default_role = "code"

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 6  # links name headings, as on GitHub

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
napoleon_custom_sections = [("Keys", "params_style")]
napoleon_use_ivar = True  # attributes that are documented in the class and annotated are one

html_theme = "furo"
html_title = f"Protoflow {__version__}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_theme_options = {"source_repository": URLS["Source"], "source_directory": "docs/"}
html_show_sphinx = False
html_copy_source = False
copybutton_prompt_text = "$ "
copybutton_only_copy_prompt_lines = True
# Languages of code blocks that Pygments does not know are shown as they are.
suppress_warnings = ["misc.highlighting_failure"]


#: Documents at the root of the repository, and the pages that show them.
SHOWN = {
    "README.md": "index",
    "docs/README.md": "index",
    "DESIGN.md": "project/design",
    "CONTRIBUTING.md": "project/contributing",
    "SECURITY.md": "project/security-policy",
    "CHANGELOG.md": "project/changelog",
}


class RepositoryLinks(SphinxTransform):
    """Makes links of documents work on the site, which are written to work in the repository."""

    default_priority = 5  # before links are resolved

    def apply(self, **_: Any) -> None:
        """Rewrites the links of one page."""
        page = Path(self.env.doc2path(self.env.docname)).parent
        elements = self.document.findall(nodes.Element)
        for link in [element for element in elements if "reftarget" in element.attributes]:
            path, _, anchor = link["reftarget"].partition("#")
            if link["refdomain"] == "doc":
                path, anchor = f"/docs/{path}.md", link["reftargetid"]
            # An included document counts from the root of the repository.
            for file in ((page / path).resolve(), ROOT / path.removeprefix("/")):
                if path and file.is_relative_to(ROOT) and file.exists():
                    self._lead(link, file, anchor)
                    break

    def _lead(self, link: Any, file: Path, anchor: str | None) -> None:
        name = str(file.relative_to(ROOT))
        if name in SHOWN:
            link.update_all_atts({"refdomain": "doc", "reftarget": SHOWN[name]}, replace=True)
            link["reftargetid"] = anchor or None
        elif not file.is_relative_to(self.env.srcdir):
            url = f"{URLS['Source']}/blob/main/{name}"
            link.replace_self(nodes.reference("", "", *link.children, refuri=url))


def write_openapi(app: Sphinx) -> None:
    """Puts the OpenAPI document of the HTTP API beside its page."""
    text = json.dumps(openapi.document(ROUTES), indent=2)
    (Path(app.outdir) / "openapi.json").write_text(f"{text}\n")


def setup(app: Sphinx) -> dict[str, bool]:
    """Sphinx's entry."""
    app.add_transform(RepositoryLinks)
    app.connect("builder-inited", write_openapi)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
