"""Two versions side by side: planted differences are found, and nothing else.

`PROTOFLOW_SHADOW=100000` is the long form: `make shadow`.
"""

from __future__ import annotations

import datetime
import os
import resource
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from protoflow import Output
from protoflow.errors import ConfigError
from protoflow.ids import new_id
from protoflow.middleware import outbox
from protoflow.middleware.dedup_stores import MemoryDeduplication
from protoflow.middleware.deduplicate import deduplicate

from tests.acceptance.contract import pb, pf
from tests.topic_replay.harness import Log, tasks, transform

COUNT = int(os.environ.get("PROTOFLOW_SHADOW", "3300"))
GROUP = pf.TransformHandler.__protoflow_spec__.methods[0].group
#: What the second version does differently, by the number of the task.
PLANTED = {
    COUNT * place // 11: kind
    for place, kind in enumerate(
        ["number", "key", "none", "two", "error", "number", "skip", "topic", "id", "metadata"], 1
    )
}


def planted(task: Any) -> Any:
    """The second version."""
    done = pb.Done(number=task.number, key=task.key)
    kind = PLANTED.get(task.number)
    if kind == "number":
        done.number += 1
    elif kind == "key":
        return pb.Done(number=task.number, key="other")
    elif kind == "none":
        return None
    elif kind == "error":
        raise ValueError("wrong")
    elif kind == "skip":
        from protoflow.outcomes import Skip

        raise Skip
    elif kind == "topic":
        return Output(done, topic="elsewhere")
    elif kind == "id":
        return Output(done, id=f"done-{task.number}")
    elif kind == "metadata":
        return Output(done, metadata={"x-hint": "new"})
    return done


class Planted(pf.TransformHandler):  # type: ignore[misc]  # made at import
    """The second version, which once publishes a second message."""

    async def transform(self, task: Any, context: Any, /) -> Any:
        if PLANTED.get(task.number) == "two":
            await pf.SuiteEventProducer(context).publish_report(pb.Report(id=task.number))
        return planted(task)


EXPECTED: dict[str, list[tuple[str, Any, Any]]] = {
    "none": [("outputs", 1, 0), ("topic", "done", "(absent)")],
    "two": [
        ("outputs", 1, 2),
        ("type", "suite.v1.Done", "suite.report.v1"),
        ("topic", "(absent)", "done"),
    ],
    "error": [
        ("status", "done", "failed"),
        ("error.type", "", "ValueError"),
        ("error.message", "", "wrong"),
        ("outputs", 1, 0),
        ("topic", "done", "(absent)"),
    ],
    "skip": [("status", "done", "skipped"), ("outputs", 1, 0), ("topic", "done", "(absent)")],
    "topic": [("topic", "done", "elsewhere")],
    "metadata": [("metadata.x-hint", "(absent)", "new")],
}


def expected(number: int, kind: str) -> list[tuple[str, Any, Any]]:
    if kind == "number":
        return [("number", number, number + 1)]
    if kind == "key":
        return [("key", f"k{number % 10}", "other"), ("key", f"k{number % 10}", "other")]
    return EXPECTED[kind]


async def test_ten_planted_differences_are_found_and_none_between_equal_versions(log: Log) -> None:
    await log.begin(transform())
    ids: list[str] = []
    for first in range(0, COUNT, 1000):
        ids += await log.publish(tasks(COUNT)[first : first + 1000])
    began, memory = time.monotonic(), peak()
    report = await log.replay(log.service(transform()), log.service(Planted()))
    took = time.monotonic() - began
    assert report.code == 1
    assert report.summary["messages"] == COUNT
    assert report.summary["different"] == len(PLANTED) == 10
    assert report.differences.keys() == {ids[number] for number in PLANTED}
    for number, kind in PLANTED.items():
        found = [
            (path, plain(log, old), plain(log, new))
            for path, old, new in report.differences[ids[number]]
        ]
        if kind == "id":
            ((path, _, new),) = found
            assert (path, new) == ("id", f"done-{number}")
        else:
            assert found == expected(number, kind), kind
    equal = await log.replay(log.service(transform()), log.service(transform()))
    assert (equal.code, equal.lines, equal.summary["different"]) == (0, [], 0)
    assert equal.summary["messages"] == COUNT
    assert await log.read() == [], "nothing is published"
    assert await log.waiting(GROUP) == COUNT, "the position of the group stays"
    with log.capsys.disabled():
        print(f"\n{COUNT:,} messages twice: {COUNT / took:,.0f}/s, {peak() - memory:+.0f} MB")


def peak() -> float:
    """The most memory of this process, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def plain(log: Log, value: Any) -> Any:
    """A value without the namespace."""
    return value.removeprefix(log.topic("")) if isinstance(value, str) else value


async def test_noise_is_counted_and_what_is_no_noise_is_shown(log: Log) -> None:
    """Times and ids that each run makes are noise; an old time that differs is not."""

    def fresh(task: Any) -> Any:
        return Output(
            pb.Done(number=int(time.time()), key="k"),
            id=new_id(),
            metadata={"x-made": datetime.datetime.now(datetime.UTC).isoformat()},
        )

    def due(day: int) -> Any:
        return transform(
            lambda task: Output(
                pb.Done(number=1_700_000_000 + day), metadata={"x-due": f"2024-01-0{day}T00:00:00Z"}
            )
        )

    await log.publish(tasks(3))
    report = await log.replay(log.service(transform(fresh)), log.service(transform(fresh)))
    assert report.code == 0, report.lines
    assert report.summary["noise"]["Done.id"] == 3
    assert report.summary["noise"]["Done.metadata.x-made"] == 3
    report = await log.replay(log.service(due(1)), log.service(due(2)))
    assert report.summary["different"] == 3
    assert report.summary["fields"] == {"Done.metadata.x-due": 3, "Done.number": 3}
    masks = ("number", "metadata.x-due")
    report = await log.replay(log.service(due(1)), log.service(due(2)), masks=masks)
    assert (report.code, report.summary["different"]) == (0, 0)
    assert report.summary["noise"]["Done.number"] == 3


async def test_streams_and_renamed_handlers_are_compared(log: Log) -> None:
    def split(extra: int) -> Any:
        class Split(pf.SplitHandler):  # type: ignore[misc]  # made at import
            async def split(self, task: Any, context: Any, /) -> AsyncIterator[Any]:
                for number in range(3):
                    yield pb.Done(number=number + extra * (number == 1))

        return Split()

    await log.publish(tasks(5))
    report = await log.replay(log.service(split(0)), log.service(split(7)))
    assert [*report.differences.values()] == [[("number", 1, 8)]] * 5

    async def on_task(task: Any, context: Any) -> Any:
        return pb.Done(number=task.number, key=task.key)

    renamed = log.service()
    renamed.register_proto_handler(
        "other", "tasks", pb.Task, on_task, output_class=pb.Done, publish_topic="done"
    )
    masks = ("metadata.ce_source", "Done.key")  # a plain handler has no contract of outputs
    report = await log.replay(log.service(transform()), renamed, masks=masks)
    assert report.code == 0, report.lines
    assert report.summary["noise"]["Done.id"] == 5


async def test_a_shadow_run_has_no_effects_through_middlewares(log: Log) -> None:
    """Otherwise the live group would skip messages as handled before, which it never handled."""
    seen, kept = MemoryDeduplication(), Kept()

    def service() -> Any:
        return log.service(transform(), middleware=[deduplicate(seen), outbox(kept)])

    await log.publish(tasks(3))
    report = await log.replay(service(), service())
    assert (report.code, report.lines) == (0, [])
    assert report.counts(0) == report.counts(1) == {"done": 3}
    assert [version["outputs"] for version in report.summary["versions"]] == [3, 3]
    assert (len(seen), kept.messages) == (0, [])


class Kept:
    """An outbox store in memory."""

    def __init__(self) -> None:
        self.messages: list[Any] = []

    async def store(self, messages: Any, connection: object = None) -> None:
        self.messages += messages


async def test_failures_of_both_versions_are_no_difference(log: Log) -> None:
    def wrong(task: Any) -> Any:
        raise ValueError(f"at {object()}")

    await log.publish(tasks(3))
    report = await log.replay(log.service(transform(wrong)), log.service(transform(wrong)))
    assert (report.code, report.lines) == (0, [])
    assert report.counts(0) == report.counts(1) == {"failed": 3}


async def test_sensitive_values_are_compared_and_hidden(log: Log) -> None:
    def thing(secret: str) -> Any:
        async def on_task(task: Any, context: Any) -> Any:
            card = pb.Card(number=secret, holder="Ann")
            return pb.Thing(name="n", password=secret, cards=[card], wallet={"a": card})

        made = log.service()
        made.register_proto_handler(
            "t", "tasks", pb.Task, on_task, output_class=pb.Thing, publish_topic="things"
        )
        return made

    await log.publish(tasks(1))
    report = await log.replay(thing("hunter2"), thing("hunter3"))
    ((found),) = report.differences.values()
    assert found == [
        (path, "***", "***") for path in ("password", "cards[0].number", "wallet.a.number")
    ]
    assert "hunter" not in str(report.lines)


async def test_one_service_cannot_be_two_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    from protoflow.cli import target
    from protoflow.cli.replay import versions

    monkeypatch.setattr(target, "load", lambda _name: target)
    with pytest.raises(ConfigError, match="the same Service"):
        versions.services(["app", "app:service"])
