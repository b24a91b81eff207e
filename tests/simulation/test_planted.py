"""Planted bugs are found, and the same seed makes the same trace in any process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.plant import PATCHES, ROOT, plant, search

#: Found by one of the first seeds; `make simulate` looks for all.
QUICK = ("dead-letter-of-all-groups", "failures-are-not-counted", "failed-fetch-is-the-last")


@pytest.mark.parametrize("name", QUICK)
def test_a_planted_bug_is_found(name: str, tmp_path: Path) -> None:
    patch = next(each for each in PATCHES if each.stem == name)
    found = search(patch, tmp_path, seeds=30)
    assert found is not None
    assert found.repeatable


@pytest.mark.parametrize("patch", PATCHES, ids=lambda patch: patch.stem)
def test_a_planted_bug_is_small_and_can_be_planted(patch: Path, tmp_path: Path) -> None:
    plant(patch, tmp_path)
    lines = patch.read_text().splitlines()
    changed = [line for line in lines if line[:1] in ("+", "-") and line[:3] not in ("+++", "---")]
    assert 0 < len(changed) <= 15


def test_the_same_seed_makes_the_same_trace_in_any_process() -> None:
    def trace(hash_seed: str) -> str:
        command = [sys.executable, "-m", "tests.simulation.program", "jetstream", "8-9", "--trace"]
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": f"{ROOT}/runtime"}
        run = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
        )
        return run.stdout

    first = trace("1")
    assert first.count("\n") > 300
    assert first == trace("2")
