"""Planted bugs: a copy of the runtime with a patch, and how many seeds it takes to find it."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
RUNTIME = ROOT / "runtime" / "protoflow"
PATCHES = sorted((HERE / "planted").glob("*.patch"))


@dataclass(frozen=True)
class Found:
    """What a search came to: the seed, and the invariant that did not hold."""

    seed: int
    invariant: str

    @property
    def repeatable(self) -> bool:
        """Whether the seed made the same trace twice."""
        return "not repeatable" not in self.invariant


def transport_of(patch: Path) -> str:
    """Returns the transport that a patch is looked for on."""
    lines = patch.read_text().splitlines()
    return next(line.removeprefix("# as: ") for line in lines if line.startswith("# as: "))


def plant(patch: Path, directory: Path) -> None:
    """Makes a runtime or tests with the patch in a directory; what does not differ is linked."""
    for name, (old, new) in _changes(patch).items():
        folders = Path(name).parts[:-1]
        source, target = RUNTIME, directory / "protoflow"
        if folders[:1] == ("tests",):  # a bug of a handler
            source, target, folders = ROOT / "tests", directory / "tests", folders[1:]
        for part in folders:
            _links(source, target)
            source, target = source / part, target / part
            if target.is_symlink():
                target.unlink()
        _links(source, target)
        file = target / Path(name).name
        text = file.read_text()
        assert text.count(old) == 1, f"{patch.name} does not apply to {name}"
        file.unlink()
        file.write_text(text.replace(old, new))


def _links(source: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for entry in source.iterdir():
        if entry.name != "__pycache__" and not (target / entry.name).exists():
            (target / entry.name).symlink_to(entry)


def _changes(patch: Path) -> dict[str, tuple[str, str]]:
    """Returns what each file has, and what it gets instead. One hunk a file."""
    changes: dict[str, tuple[str, str]] = {}
    name = ""
    for line in patch.read_text().splitlines(keepends=True):
        if line.startswith("+++ "):
            name = line.removeprefix("+++ b/").strip()
            changes[name] = ("", "")
        elif name and line[0] in " +-" and not line.startswith("--- "):
            old, new = changes[name]
            changes[name] = (
                old + (line[1:] if line[0] != "+" else ""),
                new + (line[1:] if line[0] != "-" else ""),
            )
    return changes


def search(patch: Path, directory: Path, seeds: int) -> Found | None:
    """Runs seeds of the default scenario with the bug; None: none of them has found it."""
    plant(patch, directory)
    run = subprocess.run(
        [sys.executable, "-m", "tests.simulation.program", transport_of(patch), f"0-{seeds}"],
        env={**os.environ, "PYTHONPATH": f"{directory}:{ROOT}"},
        cwd=directory,
        capture_output=True,
        text=True,
        check=True,
    )
    seed, _, invariant = run.stdout.strip().partition(" ")
    return Found(int(seed), invariant) if invariant else None
