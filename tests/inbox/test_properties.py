"""The inbox as a state machine: whatever happens to copies of messages, effects show once."""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
from pathlib import Path
from typing import Any

from google.protobuf.wrappers_pb2 import StringValue
from hypothesis import given, settings
from hypothesis import strategies as st
from protoflow import Inbox
from protoflow.contract.spec import DeliveryPolicy, RetryPolicy
from protoflow.inbox.sqlite import SQLiteTransaction
from protoflow.outcomes import DeadLetter, Retry, Skip
from protoflow.output import Output

from tests.inbox.harness import NAME, handler, running
from tests.middleware.harness import TO_WORK


class Conflict(Exception):
    sqlstate = "40001"


#: What each run in turn does: `lost` is an answer to COMMIT that does not arrive.
ENDS = st.sampled_from(["ok", "error", "retry", "dead", "skip", "conflict", "commit lost"])


@settings(max_examples=12, deadline=None, database=None)
@given(
    copies=st.lists(st.integers(0, 3), min_size=1, max_size=8),
    ends=st.lists(ENDS, min_size=1, max_size=10),
)
def test_effects_show_once(copies: list[int], ends: list[str]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(_check(Path(directory) / "app.db", copies, ends))


async def _check(path: Path, copies: list[int], ends: list[str]) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE effects (text TEXT)")
    inbox: Inbox[sqlite3.Connection] = Inbox(path)
    left = list(ends)
    lost = 0

    async def work(message: StringValue, context: Any) -> None:
        nonlocal lost
        inbox.of(context).execute("INSERT INTO effects VALUES (?)", (message.value,))
        end = left.pop(0) if left else "ok"
        if end == "commit lost":
            lost += 1
        elif end != "ok":
            raise {
                "error": OSError("bad"), "retry": Retry("later"), "dead": DeadLetter("bad"),
                "skip": Skip("not mine"), "conflict": Conflict(),
            }[end]  # fmt: skip

    commit = SQLiteTransaction.commit

    async def losing(self: SQLiteTransaction) -> None:
        nonlocal lost
        await commit(self)
        if lost:
            lost -= 1
            raise ConnectionResetError

    policy = DeliveryPolicy(
        concurrency=1,
        retry=RetryPolicy(max_attempts=2, initial_backoff=0.001, max_backoff=0.001),
    )
    SQLiteTransaction.commit = losing  # type: ignore[method-assign]
    try:
        async with running(handler(work, delivery=policy), inbox=inbox) as service:
            outputs = [Output(StringValue(value=str(n)), id=f"m{n}") for n in copies]
            await service.publish_outputs(TO_WORK, outputs)
            await service.settled()
            given_up = {record.message.id for record in service.dead_letters}
            skipped = service.service.stats()[NAME].skipped
            # A dead letter was rolled back, so it runs again unless a copy of it went well.
            left.clear()
            await service.replay_dead_letters()
            await service.settled()
            assert not service.dead_letters
    finally:
        SQLiteTransaction.commit = commit  # type: ignore[method-assign]
    effects = [row[0] for row in connection.execute("SELECT text FROM effects")]
    noted = [row[0] for row in connection.execute("SELECT id FROM protoflow_inbox")]
    connection.close()
    assert len(effects) == len(set(effects))
    assert sorted(noted) == sorted(f"m{text}" for text in effects)
    # Only a handler's own Skip leaves a message without effects.
    missing = {f"m{n}" for n in copies} - set(noted)
    assert len(missing) <= ends.count("skip") <= len(ends)
    assert not (missing & given_up)
    assert skipped >= len(missing)
