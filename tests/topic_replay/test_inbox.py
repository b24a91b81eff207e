"""Handlers with exactly-once effects: skipped by default, reprocessed on request, rolled back in a
shadow run."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.wrappers_pb2 import Int64Value, StringValue
from protoflow import Output
from protoflow.connection import Connection

from tests.inbox.databases import KINDS, Database
from tests.inbox.harness import Writer
from tests.middleware.harness import TO_DONE, TO_WORK
from tests.topic_replay.harness import Log


@pytest.fixture(params=["sqlite", "sqlite in threads"])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    """A SQLite database, for handlers on the loop and in threads."""
    async with KINDS[request.param](str(tmp_path / "app.db")) as made:
        yield made


async def publish(log: Log, *texts: str) -> None:
    async with Connection(log.config()) as connection:
        outputs = [Output(StringValue(value=text)) for text in texts]
        await connection.publish_outputs(TO_WORK, outputs)


async def test_an_inbox_skips_reprocesses_and_is_rolled_back(log: Log, database: Database) -> None:
    def service() -> Any:
        writer = Writer(database, lambda text, _context: Int64Value(value=len(text)))
        return log.service(writer.handler(publication=TO_DONE), inbox=writer.inbox)

    await publish(log, "a", "b")
    shadow = await log.replay(service(), topic="work", shadow=True)
    assert shadow.counts() == {"done": 2}
    assert [line["output"]["topic"] for line in shadow.lines] == [log.topic("done")] * 2
    assert await database.effects() == [], "the transaction is rolled back"

    first = await log.replay(service(), topic="work")
    assert first.counts() == {"done": 2}
    assert await database.effects() == ["a", "b"]
    outputs = "SELECT count(*) FROM protoflow_outbox"
    assert (await database.read(outputs))[0][0] == 2
    assert (await log.replay(service(), topic="work")).counts() == {"skipped": 2}
    again = await log.replay(service(), topic="work", reprocess=True)
    assert again.counts() == {"done": 2}
    assert await database.effects() == ["a", "a", "b", "b"]

    compared = await log.replay(service(), service(), topic="work")
    assert compared.code == 0, compared.lines
    assert compared.counts(0) == compared.counts(1) == {"done": 2}
    assert await database.effects() == ["a", "a", "b", "b"]
    assert (await database.read(outputs))[0][0] == 4
