"""One handler, old messages: its outputs, its failures, its group."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from protoflow import Service
from protoflow.cli.replay.rest import Rest
from protoflow.errors import CapabilityError, ConfigError, TransportError
from protoflow.ids import new_id
from protoflow.message import Message
from protoflow.middleware.dedup_stores import MemoryDeduplication
from protoflow.middleware.deduplicate import deduplicate
from protoflow.outcomes import RetryAfter, Skip
from protoflow.topic_replay import Entry, Status
from protoflow.topic_replay.window import Window
from protoflow.transport import TopicRecord

from tests.acceptance.contract import pb, pf
from tests.topic_replay.harness import Log, numbers, tasks, transform

GROUP = pf.TransformHandler.__protoflow_spec__.methods[0].group


async def test_outputs_are_published_once_and_in_order_and_the_group_stays(log: Log) -> None:
    await log.begin(transform())
    await log.publish(tasks(60))
    ordered = {"handlers": {"suite.v1.Transform.Transform": {"ordering": "per_partition"}}}
    report = await log.replay(log.service(transform(), config=ordered))
    assert report.code == 0
    assert report.counts() == {"done": 60}
    assert report.summary["published"] == 60
    found = await log.read()
    assert numbers(found) == [*range(60)]
    assert await log.waiting(GROUP) == 60
    again = await log.replay(log.service(transform()))
    assert again.summary["published"] == 60
    ids = [record.message.id for record in await log.read()]
    assert {*ids[:60]} == {*ids[60:]}, "an output keeps its id, so consumers can drop it"


async def test_order_per_key_holds_with_many_runs_at_once(log: Log) -> None:
    seen: dict[str, list[int]] = {}

    class Keyed(pf.KeyedHandler):  # type: ignore[misc]  # made at import
        async def keyed(self, task: Any, context: Any, /) -> None:
            await asyncio.sleep(0.001 * (task.number % 3))
            seen.setdefault(task.key, []).append(task.number)

    await log.publish(tasks(60))
    assert (await log.replay(log.service(Keyed()))).counts() == {"done": 60}
    assert all(found == sorted(found) and len(found) == 6 for found in seen.values())


async def test_a_part_of_the_topic_by_position_by_time_and_by_number(log: Log) -> None:
    await log.publish(tasks(4))
    await asyncio.sleep(0.05)
    await log.publish(tasks(6)[4:])
    records = await log.read("tasks")

    async def found(**part: Any) -> list[int]:
        before = len(await log.read())
        await log.replay(log.service(transform()), concurrency=1, **part)
        return numbers((await log.read())[before:])

    assert await found(start=records[1].position, end=records[3].position) == [1, 2]
    assert await found(start=records[4].time) == [4, 5]
    assert await found(end=records[4].time) == [0, 1, 2, 3]
    assert await found(start=records[2].position, number=2) == [2, 3]
    with pytest.raises(ConfigError, match="no message of the topic begins there"):
        await found(start=str(int(records[1].position) + 1))
    with pytest.raises(ConfigError, match="write a number"):
        await found(start="0/1")


def failing(*wrong: int) -> Any:
    def done(task: Any) -> Any:
        if task.number in wrong:
            raise ValueError(f"no sum in {task.number}")
        return pb.Done(number=task.number)

    return transform(done)


async def test_the_first_failure_stops_and_its_position_continues(log: Log) -> None:
    await log.publish(tasks(20))
    report = await log.replay(log.service(failing(3)), concurrency=1)
    assert report.code == 4
    (failure,) = report.lines
    assert failure["error"] == {
        "class": "exhausted", "type": "ValueError", "message": "no sum in 3",
    }  # fmt: skip
    assert report.counts()["failed"] == 1
    assert numbers(await log.read()) == [0, 1, 2], "nothing later has started"
    position = (await log.read("tasks"))[3].position
    assert report.summary["left"] == [position] == [failure["position"]]
    rest = await log.replay(log.service(failing()), start=position, concurrency=1)
    assert rest.code == 0
    assert numbers(await log.read()) == [*range(20)]


async def test_a_stopped_replay_names_every_partition_with_more_messages() -> None:
    """A partition without a place is not read by the replay that continues."""

    def rest(start: Any) -> Rest:
        made = Rest(start)
        for position, status in (
            ("0/5", Status.DONE),
            ("1/7", Status.DONE),
            ("0/6", Status.FAILED),
            ("1/8", Status.DONE),
            ("0/7", Status.NOT_RUN),
        ):
            record = TopicRecord(message=Message(id="", topic="t", payload=b""), position=position)
            made.add(Entry(record, []), status)
        return made

    assert rest(0.0).places(all_read=True) == ["0/6"]
    assert rest(0.0).places(all_read=False) == ["0/6", "1/8"]
    assert rest(0.0).hides_partitions(all_read=False)
    named = rest("0/5, 1/7,2/9")
    assert named.places(all_read=False) == ["0/6", "1/8", "2/9"]
    assert not named.hides_partitions(all_read=False)


async def test_a_replay_that_stops_before_the_end_says_where_to_continue(log: Log) -> None:
    """Although every message that was read is handled."""
    await log.publish(tasks(400))
    records = await log.read("tasks")
    report = await log.replay(log.service(failing(10)), concurrency=1, number=11)
    assert report.summary["left"] == [records[10].position]

    def broken(self: Any, record: Any) -> Any:
        if record.position == records[300].position:
            raise TransportError("the broker is gone")
        return add(self, record)

    add = Window.add
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Window, "add", broken)
        with pytest.raises(TransportError):
            await log.replay(log.service(transform()))
    summary = json.loads(log.capsys.readouterr().out.splitlines()[-1])
    assert summary["left"]
    at = [record.position for record in records].index(summary["left"][0])
    assert at == summary["messages"] or at == summary["messages"] - 1 == 299


async def test_all_failures_are_reported_and_nothing_is_retried_or_dead_lettered(log: Log) -> None:
    runs: list[int] = []

    def done(task: Any) -> Any:
        runs.append(task.number)
        if task.number == 1:
            raise RetryAfter(0.01, "later")
        if task.number == 2:
            raise ValueError("wrong")
        if task.number == 3:
            raise Skip("not mine")

    await log.begin(transform())
    await log.publish(tasks(5))
    report = await log.replay(log.service(transform(done)), stops=False)
    assert report.code == 4
    assert report.counts() == {"done": 2, "failed": 2, "skipped": 1}
    assert [line["error"]["type"] for line in report.lines] == ["RetryAfter", "ValueError"]
    assert sorted(runs) == [*range(5)], "each message is run once"
    async with log.service(transform()) as service:
        assert [await service.dead_letters.count(topic) for topic in service.dead_letters.topics] \
            == [0]  # fmt: skip


async def test_messages_that_cannot_be_decoded_fail_and_other_types_are_counted(log: Log) -> None:
    await log.publish(tasks(1))
    protobuf = {"content-type": "application/protobuf"}
    await log.publish_raw(b"\xff\xff", **protobuf, ce_type="suite.v1.Task")
    await log.publish_raw(b"", **protobuf, ce_type="suite.v1.Remark")
    await log.publish_raw(None, **protobuf, ce_type="suite.v1.Task")
    report = await log.replay(log.service(transform()), stops=False)
    assert report.counts() == {"done": 1, "failed": 1, "unhandled": 2}
    (failure,) = report.lines
    assert (failure["error"]["class"], failure["error"]["type"]) == ("decode", "DecodeError")


async def test_a_shadow_run_prints_what_it_would_publish(log: Log) -> None:
    class Split(pf.SplitHandler):  # type: ignore[misc]  # made at import
        def __init__(self) -> None:
            self.service: Service

        async def split(self, task: Any, context: Any, /) -> AsyncIterator[Any]:
            producer = pf.SuiteEventProducer(self.service)
            await producer.publish_report(pb.Report(id=task.number, text="at once"))
            for number in range(100):
                yield pb.Done(number=number)

    split = Split()
    split.service = service = log.service(split)
    await log.begin(Split())
    await log.publish(tasks(2))
    group = pf.SplitHandler.__protoflow_spec__.methods[0].group
    report = await log.replay(service, shadow=True)
    assert report.code == 0
    topics = [line["output"]["topic"] for line in report.lines]
    assert topics == [log.topic("reports"), *[log.topic("done")] * 100] * 2
    assert report.lines[1]["output"]["payload"] == {}, "the number 0 is not set"
    assert report.lines[2]["output"]["payload"] == {"number": 1}
    assert report.summary["published"] == 0
    assert await log.read() == await log.read("reports") == []
    assert await log.waiting(group) == 2
    report = await log.replay(log.service(Split2()))
    assert report.summary["published"] == 200


class Split2(pf.SplitHandlerSync):  # type: ignore[misc]  # made at import
    """A generator in a thread."""

    def split(self, task: Any, context: Any, /) -> Iterator[Any]:
        for number in range(100):
            yield pb.Done(number=number)


async def test_batches_and_plain_functions_are_replayed(log: Log) -> None:
    class Sum(pf.BulkSumHandler):  # type: ignore[misc]  # made at import
        async def bulk_sum(self, batch: Any, context: Any, /) -> Any:
            return pb.Done(number=sum(task.number for task in batch))

    class SumSync(pf.BulkSumHandlerSync):  # type: ignore[misc]  # made at import
        def bulk_sum(self, batch: Any, context: Any, /) -> Any:
            return pb.Done(number=sum(task.number for task in batch))

    await log.publish(tasks(10))
    report = await log.replay(log.service(Sum()), concurrency=1)
    assert report.counts() == {"done": 10}
    assert numbers(await log.read()) == [0 + 1 + 2 + 3 + 4, 5 + 6 + 7 + 8 + 9]
    compared = await log.replay(log.service(Sum()), log.service(SumSync()))
    assert (compared.code, compared.differences) == (0, {})
    assert [each["outputs"] for each in compared.summary["versions"]] == [2, 2]


async def test_what_publishes_beside_the_run_is_left_out_of_a_shadow(log: Log) -> None:
    stored: list[Any] = []
    hooked: list[Any] = []

    class Store:
        async def store(self, messages: Any, connection: Any) -> None:
            stored.extend(messages)

    @asynccontextmanager
    async def lifespan(_service: Service) -> AsyncIterator[None]:
        hooked.append("lifespan")
        yield

    from protoflow.middleware import JobHooks

    async def hook(*_: Any) -> None:
        hooked.append("hook")

    hooks = JobHooks(on_job_start=hook)
    await log.publish(tasks(2))

    def make() -> Service:
        return log.service(transform(), outbox=Store(), hooks=hooks, lifespan=lifespan)

    report = await log.replay(make(), shadow=True)
    assert (len(report.lines), stored, hooked) == (2, [], ["lifespan"])
    await log.replay(make())
    assert len(stored) == 2


async def test_a_middleware_that_knows_the_messages_can_be_left_out(log: Log) -> None:
    store = MemoryDeduplication()
    await log.publish(tasks(3))

    def service() -> Service:
        made = log.service(transform())
        made.register_middleware("deduplicate", deduplicate(store))
        return made

    assert (await log.replay(service())).counts() == {"done": 3}
    assert (await log.replay(service())).counts() == {"skipped": 3}
    assert (await log.replay(service(), without=("deduplicate",))).counts() == {"done": 3}


async def test_a_topic_without_a_log_is_refused(tmp_path: Path, capsys: Any) -> None:
    memory = Log("memory://", capsys)
    with pytest.raises(CapabilityError, match="keeps no log"):
        await memory.replay(memory.service(transform()))
    rows = Log(f"sqlite:///{tmp_path}/{new_id()}.db", capsys)
    await rows.begin(transform())
    await rows.publish(tasks(3))
    report = await rows.replay(rows.service(transform()), shadow=True)
    assert len(report.lines) == 3
    assert await rows.waiting(GROUP) == 3


async def test_the_handler_is_named_or_the_only_one_of_the_topic(log: Log) -> None:
    class Work(pf.WorkHandler):  # type: ignore[misc]  # made at import
        async def work(self, task: Any, context: Any, /) -> None:
            """Handles everything."""

    await log.publish(tasks(1))

    def service() -> Service:
        return log.service(transform(), Work())

    with pytest.raises(ConfigError, match="name one with --handler"):
        await log.replay(service())
    with pytest.raises(ConfigError, match="is not a handler"):
        await log.replay(service(), handler="Wrok")
    report = await log.replay(service(), handler="Work")
    assert report.summary["versions"][0]["handler"] == "suite.v1.Work.Work"
