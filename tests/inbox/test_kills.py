"""Effects after kills: each message has its effects once, whenever its process died."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import sys
from pathlib import Path

import pytest

from tests.brokers import url_of

_LONG = os.environ.get("PROTOFLOW_FAULTS") == "long"
_ROOT = Path(__file__).parents[2]


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database."""
    if request.param == "sqlite":
        return str(tmp_path / "app.db")
    found: str = request.getfixturevalue("postgres_url")
    return found


@pytest.mark.timeout(1800 if _LONG else 120)
async def test_effects_are_those_of_the_messages(database: str, tmp_path: Path) -> None:
    kills = 250 if _LONG else 8
    transport, namespace = f"sqlite:///{tmp_path / 'queue.db'}", "kills"
    if _LONG and (url := url_of("nats")):
        transport = url.replace("nats://", "jetstream://")
        namespace = f"kills{secrets.token_hex(4)}"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.inbox.kills", "--transport", transport,
        "--database", database, "--kills", str(kills), "--namespace", namespace,
        cwd=_ROOT, stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": f"{_ROOT}:{_ROOT / 'runtime'}"},
    )  # fmt: skip
    printed, _ = await process.communicate()
    found = json.loads(printed)
    print(found)
    messages = found["messages"]
    assert found["finished"]
    assert found["killed_after_commit"] == kills // 2
    counts = ("effects", "distinct_effects", "outputs", "distinct_outputs", "noted")
    assert {name: found[name] for name in counts} == dict.fromkeys(counts, messages)
