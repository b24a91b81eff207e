"""AsyncAPI's own parser and JSON Schemas: npm packages, installed once, run by node of a wheel."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from tests import npm

_PACKAGES = ("@asyncapi/parser@3.6.6", "@asyncapi/specs@6.11.1")
_PARSE = """
const { Parser } = require('@asyncapi/parser');
const fs = require('fs');
(async () => {
  const parser = new Parser();
  const found = {};
  for (const file of process.argv.slice(2)) {
    const { document, diagnostics } = await parser.parse(fs.readFileSync(file, 'utf8'));
    found[file] = diagnostics.map((one) => `${one.code} ${one.path.join('.')}: ${one.message}`);
    if (!document && !found[file].length) found[file] = ['no document'];
  }
  console.log(JSON.stringify(found));
})();
"""


@cache
def installed() -> Path:
    """The folder of the packages; npm fetches them once for an environment."""
    folder = npm.installed("asyncapi", _PACKAGES)
    (folder / "parse.cjs").write_text(_PARSE)
    return folder


@cache
def official_schema() -> dict[str, Any]:
    """The JSON Schema of AsyncAPI 3.1.0 documents."""
    folder = installed() / "node_modules" / "@asyncapi" / "specs" / "schemas"
    found: dict[str, Any] = json.loads((folder / "3.1.0-without-$id.json").read_text())
    return found


def diagnostics(files: Sequence[Path]) -> dict[str, list[str]]:
    """What AsyncAPI's parser says of documents, by file; one process for all."""
    folder = installed()
    found: dict[str, list[str]] = json.loads(
        npm.node(folder, [str(folder / "parse.cjs"), *map(str, files)], 110)
    )
    return found
