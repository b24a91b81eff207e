from __future__ import annotations

from pathlib import Path

import pytest

from tests.topic_replay.harness import Log


@pytest.fixture
def log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Log:
    """A log in files."""
    return Log(f"file://{tmp_path}/log?fsync=never", capsys)
