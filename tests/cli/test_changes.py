"""What `dlq replay` and `dlq purge` do where ids repeat, and where some are gone meanwhile."""

from __future__ import annotations

import json
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from protoflow.cli.dlq import changes
from protoflow.cli.dlq.filters import Selection
from protoflow.errors import DeadLetterNotFoundError, ReplayError


class _DeadLetters:
    """Holds a twice, b once and c once."""

    async def list(self, topic: str, *, after: str, **_: Any) -> list[Any]:
        if after:
            return []
        return [
            SimpleNamespace(message=SimpleNamespace(id=id), position=str(number))
            for number, id in enumerate("aabc", 1)
        ]


async def _act(dead_letters: Any, topic: str, ids: Sequence[str]) -> int:
    if "b" in ids:
        raise DeadLetterNotFoundError("gone")
    if "c" in ids:
        raise ReplayError(topic, 0, {"c": ValueError("no origin")})
    return 2 if "a" in ids else 0


async def test_each_id_is_changed_once_and_the_others_are_tried(
    capsys: pytest.CaptureFixture[str],
) -> None:
    selection = Selection(topics=("dead",), handler=None, group=None, filter=None)
    where = {"ids": (), "dry_run": False, "yes": True, "as_json": True, "rate": 100 / 99}
    access: Any = SimpleNamespace(topics=("dead",))
    dead_letters: Any = _DeadLetters()
    code = await changes._changed(dead_letters, "replay", _act, access, selection, where)
    assert code == 4
    assert json.loads(capsys.readouterr().out) == {
        "matched": 4,
        "done": 2,
        "failed": {"b": "gone [PF601]", "c": "no origin"},
    }
