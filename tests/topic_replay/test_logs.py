"""Replays on every log: Kafka, JetStream, PostgreSQL and files, beside a group that lives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.contract import pb, pf
from tests.brokers import url_or_skip
from tests.topic_replay.harness import Log, numbers, tasks, transform

GROUP = pf.TransformHandler.__protoflow_spec__.methods[0].group
_HANDLED, _WAITING = 8, 4


@pytest.fixture(params=["kafka", "jetstream", "postgresql", "file"])
def logs(request: pytest.FixtureRequest, tmp_path: Path, capsys: Any) -> Log:
    """A log on each broker that keeps one."""
    name = str(request.param)
    return Log(f"file://{tmp_path}/log" if name == "file" else url_or_skip(name), capsys)


def off_by_one(task: Any) -> Any:
    return pb.Done(number=task.number + (task.number == 5), key=task.key)


async def test_a_replay_moves_no_position_and_publishes_only_without_shadow(logs: Log) -> None:
    await logs.begin(transform())
    await logs.publish(tasks(_HANDLED))
    async with logs.service(transform()) as service:
        stats = service.stats()["suite.v1.Transform.Transform"]
        await until(lambda: stats.handled == _HANDLED)
    published = len(await logs.read())
    await logs.publish(tasks(_HANDLED + _WAITING)[_HANDLED:])
    assert await logs.waiting(GROUP) == _WAITING

    alone = await logs.replay(logs.service(transform()), shadow=True)
    assert sorted(line["output"]["payload"].get("number", 0) for line in alone.lines) == [
        *range(_HANDLED + _WAITING)
    ]
    report = await logs.replay(logs.service(transform()), logs.service(transform(off_by_one)))
    assert (report.code, report.summary["different"]) == (1, 1)
    assert [*report.differences.values()] == [[("number", 5, 6)]]
    assert len(await logs.read()) == published, "a shadow run publishes nothing"

    (record,) = [one for one in await logs.read("tasks") if task_of(one).number == 3]
    again = await logs.replay(logs.service(transform()), start=record.position, number=1)
    assert (again.code, again.counts(), again.summary["published"]) == (0, {"done": 1}, 1)
    assert numbers(await logs.read()).count(3) == 2
    late = await logs.replay(logs.service(transform()), start=record.time + 3600.0)
    assert late.summary["messages"] == 0
    before = await logs.replay(logs.service(transform()), shadow=True, end=record.position)
    keys = {task_of(one).key for one in await logs.read("tasks")}
    assert len(before.lines) <= _HANDLED < len(keys) * 2
    assert await logs.waiting(GROUP) == _WAITING, "the position of the group stays"

    async with logs.service(transform()) as service:
        stats = service.stats()["suite.v1.Transform.Transform"]
        await until(lambda: stats.handled == _WAITING)
    assert await logs.waiting(GROUP) == 0


def task_of(record: Any) -> Any:
    return pb.Task.FromString(record.message.payload)


async def until(condition: Any) -> None:
    """Waits until something holds."""
    import asyncio

    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.02)
