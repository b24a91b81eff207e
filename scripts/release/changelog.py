"""Prints the section of a version in CHANGELOG.md, or fails: a release without one is refused.

python scripts/release/changelog.py v0.1.0
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def section(changelog: str, version: str) -> str:
    """Returns the text of the section of a version. Raises `ValueError` if it lacks one."""
    parts = re.split(r"^## ", changelog, flags=re.M)[1:]
    for part in parts:
        heading, _, text = part.partition("\n")
        if re.fullmatch(rf"\[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d", heading.strip()):
            if text.strip():
                return text.strip()
            raise ValueError(
                f"the section {version} of CHANGELOG.md is empty; describe the version"
            )
    raise ValueError(
        f"CHANGELOG.md has no section for {version}; "
        f"name it `## [{version}] - YYYY-MM-DD`, below `## [Unreleased]`"
    )


def stated_version() -> str:
    """Returns the version of this checkout."""
    init = (ROOT / "runtime" / "protoflow" / "__init__.py").read_text()
    found = re.search(r'^__version__ = "(.+)"$', init, re.M)
    if found is None:
        raise ValueError("runtime/protoflow/__init__.py states no __version__")
    return found[1]


def main(tag: str) -> int:
    """Prints the section of a tag; returns the exit status."""
    version = tag.removeprefix("refs/tags/").removeprefix("v")
    try:
        if version != stated_version():
            raise ValueError(
                f"the tag {tag} is not the version {stated_version()} of "
                "runtime/protoflow/__init__.py; change one of them"
            )
        print(section((ROOT / "CHANGELOG.md").read_text(), version))
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
