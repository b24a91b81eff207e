"""Replays of messages that are noted: skipped, or handled again when an operator says so."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.wrappers_pb2 import StringValue
from protoflow import Config, DeadLetter, Output, Service

from tests.brokers import url_or_skip
from tests.inbox.databases import Database, until
from tests.inbox.harness import Writer
from tests.middleware.harness import TO_WORK

DEAD = "work..workers..dead"


def _url(broker: str, path: Path) -> str:
    if broker == "sqlite":
        return f"sqlite:///{path / 'queue.db'}"
    if broker == "memory":
        return "memory://"
    return url_or_skip(broker)


@pytest.mark.parametrize("broker", ["memory", "sqlite", "postgresql", "nats"])
async def test_a_noted_message_is_handled_again_if_asked(
    broker: str, sqlite_database: Database, tmp_path: Path
) -> None:
    def first_fails(_text: str, _context: Any) -> None:
        if len(writer.runs) == 1:
            raise DeadLetter("bad")

    writer = Writer(sqlite_database, first_fails)
    url = _url(broker, tmp_path).replace("nats://", "jetstream://")
    namespace = f"n{id(writer)}"
    dead = f"{namespace}..{DEAD}"
    service = Service(Config(environ={}, transport=url, namespace=namespace), inbox=writer.inbox)
    service.register(writer.handler())

    async def lies() -> bool:
        return await service.dead_letters.count(dead) == 1

    async def copied() -> None:
        """The same message twice: one is dead-lettered, the other one is noted."""
        del writer.runs[:]
        output = Output(StringValue(value="a"), id=f"{broker}-{len(writer.runs)}-x")
        await service.publish_outputs(TO_WORK, [output])
        await until(lies)

    async with service:
        await copied()
        record = await service.dead_letters.show(dead, f"{broker}-0-x")
        assert record.message.id == f"{broker}-0-x"
        # Noted meanwhile, by hand: as a copy would be that another process handled.
        source = record.message.metadata.get("ce_source", "")
        with sqlite3.connect(sqlite_database.resource) as own:
            own.execute(
                "INSERT INTO protoflow_inbox (day, consumer, handler, source, id)"
                " VALUES (0, ?, 'test.v1.Worker.Do', ?, ?)",
                (f"{namespace}..workers", source, record.message.id),
            )
        own.close()
        with pytest.raises(ValueError, match="reprocess is for the group that failed"):
            await service.dead_letters.replay(dead, to_origin=True, reprocess=True)
        assert await service.dead_letters.replay(dead, reprocess=True) == 1

        async def handled() -> bool:
            return await sqlite_database.effects() == ["a"]

        await until(handled)
        rows = await sqlite_database.read("SELECT run FROM protoflow_inbox")
        assert rows == [(2,)]
        assert service.stats()["test.v1.Worker.Do"].skipped == 0
