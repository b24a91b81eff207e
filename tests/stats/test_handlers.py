from __future__ import annotations

import asyncio
from typing import Any

import pytest
from google.protobuf.wrappers_pb2 import Int64Value
from protoflow import Context, DeadLetter, Unprocessable
from protoflow.contract.spec import BatchPolicy
from protoflow.errors import DecodeError, PublishError
from protoflow.message import Message
from protoflow.stats.dead_letters import DLQTopicMetrics
from protoflow.stats.handlers import (
    OTHER_TOPICS,
    ErrorCategory,
    HandlerStats,
    SentMessages,
    classify_error,
)
from protoflow.stats.latency import SAMPLES, WINDOW

from tests.middleware.harness import NAME, TO_DONE, put, running, worker


def test_percentiles_are_those_of_the_last_runs() -> None:
    stats = HandlerStats()
    for index in range(SAMPLES):
        stats.timings.ran(0.0, 1000.0 + index)
    for index in range(SAMPLES):
        stats.timings.ran(0.0, (index + 1) / 1000)
    latency = stats.timings.latency()
    assert latency.sample_size == SAMPLES
    assert latency.p50_ns == pytest.approx(0.513e9)
    assert latency.p95_ns == pytest.approx(0.973e9)
    assert latency.p99_ns == pytest.approx(1.014e9)
    assert latency.last_ns == pytest.approx(1.024e9)
    assert latency.average_ns > latency.p99_ns  # of all runs, the first ones too


def test_percentiles_are_the_same_however_often_they_are_read() -> None:
    often, once = HandlerStats(), HandlerStats()
    for index in range(2 * SAMPLES + 7):
        for stats in (often, once):
            stats.timings.ran(0.0, index / 1024)
        if index % 37 == 0:
            assert often.timings.latency().last_ns == int(index / 1024 * 1e9)
    assert often.timings.latency() == once.timings.latency()
    assert often.timings.histogram() == once.timings.histogram()


def test_a_handler_that_never_ran_has_no_latency() -> None:
    assert HandlerStats().timings.latency().sample_size == 0


def test_throughput_is_that_of_the_last_minute() -> None:
    stats = HandlerStats()
    for second in range(100):
        stats.timings.ran(second, second + 0.5)
    assert stats.timings.throughput(99.9).messages_in_window == WINDOW
    assert stats.timings.throughput(99.9 + WINDOW / 2).messages_in_window == WINDOW // 2
    assert stats.timings.throughput(99.9 + WINDOW * 5).messages_in_window == 0
    assert stats.timings.throughput(0).total_messages == 100


def test_the_counters_do_not_grow() -> None:
    stats = HandlerStats()
    for index in range(5000):
        stats.timings.ran(index, index + 0.25)
    assert len(stats.timings._samples) == SAMPLES
    assert len(stats.timings._window) == WINDOW
    assert stats.timings.histogram()[-1] == (float("inf"), 5000)
    assert dict(stats.timings.histogram())[0.1] == 0
    assert dict(stats.timings.histogram())[0.25] == 5000


def test_sent_messages_are_counted_for_a_bounded_number_of_topics() -> None:
    sent = SentMessages()
    sent.add([Message(id=str(i), topic=f"topic.{i}", payload=b"") for i in range(1000)])
    counts = sent.by_topic()
    assert len(counts) <= 201
    assert counts[OTHER_TOPICS] == 1000 - 200


@pytest.mark.parametrize(
    ("error", "category"),
    [
        (None, ErrorCategory.NONE),
        (DecodeError("x"), ErrorCategory.VALIDATION),
        (Unprocessable("x"), ErrorCategory.VALIDATION),
        (PublishError("x"), ErrorCategory.TRANSPORT),
        (ConnectionResetError("x"), ErrorCategory.DOWNSTREAM),
        (TimeoutError("x"), ErrorCategory.DOWNSTREAM),
        (DeadLetter("x"), ErrorCategory.OTHER),
        (ValueError("x"), ErrorCategory.OTHER),
    ],
)
def test_errors_have_categories(error: BaseException | None, category: ErrorCategory) -> None:
    assert classify_error(error) is category


async def test_messages_and_attempts_are_counted_apart() -> None:
    seen: list[int] = []

    async def flaky(_message: object, context: Context) -> None:
        seen.append(context.attempt)
        if context.attempt < 3:
            raise ConnectionError("secret words")

    async with running(worker(flaky)) as service:
        await put(service, "a", "b")
        stats = service.service.stats()[NAME]
    assert stats.handled == 2
    assert stats.timings.runs == stats.timings.throughput(0).total_messages == len(seen) == 6
    assert stats.failed_runs == stats.retried == stats.errors.downstream == 4
    assert stats.errors.last_error == "ConnectionError"
    assert stats.timings.latency().sample_size == 6


async def test_what_never_reaches_the_handler_is_an_error_too() -> None:
    async def never(_message: object, _context: Context) -> None:
        raise AssertionError

    async with running(worker(never)) as service:
        await service.service.publish(
            Message(
                id="1",
                topic="work",
                payload=b"\xff\xff",
                metadata={"ce_type": "google.protobuf.StringValue"},
            )
        )
        await service.settled()
        stats = service.service.stats()[NAME]
        dead_letters = service.service.counters.dead_letters.topics["work..workers..dead"]
    assert (stats.dead_lettered, stats.errors.validation) == (1, 1)
    assert dead_letters.received == dead_letters.current == 1
    assert dead_letters.average_retries == 0


async def test_outputs_and_what_the_service_publishes_are_counted_by_topic() -> None:
    async def answer(message: object, _context: Context) -> Int64Value:
        return Int64Value(value=7)

    async with running(worker(answer, publication=TO_DONE)) as service:
        await put(service, "a", "b", "c")
        assert service.service.stats()[NAME].published == 3
        assert service.service.counters.sent.by_topic() == {"work": 3, "done": 3}


async def test_a_stream_of_outputs_is_counted_whole() -> None:
    async def many(_message: object, _context: Context):  # type: ignore[no-untyped-def]
        for value in range(150):
            yield Int64Value(value=value)

    async with running(worker(many, publication=TO_DONE, streams=True)) as service:
        await put(service, "a")
        assert service.service.stats()[NAME].published == 150


async def test_a_batch_is_one_run_of_several_messages() -> None:
    async def batch(messages: object, _context: Context) -> None:
        await asyncio.sleep(0.2)

    handler = worker(batch, batch=BatchPolicy(max_messages=10, max_wait=0.05))
    async with running(handler) as service:
        await put(service, *"abcde")
        stats = service.service.stats()[NAME]
    assert (stats.timings.runs, stats.timings.throughput(0).total_messages, stats.handled) == (
        1,
        5,
        5,
    )
    assert stats.timings.seconds == pytest.approx(0.2)


async def test_an_average_of_retries_is_kept_for_dead_letters() -> None:
    async def broken(_message: object, _context: Context) -> None:
        raise ValueError

    async with running(worker(broken)) as service:
        await put(service, "a", "b")
        dead_letters = service.service.counters.dead_letters
        topic = dead_letters.topics["work..workers..dead"]
        assert (topic.received, topic.attempts, topic.average_retries) == (2, 6, 2.0)
        assert topic.oldest_at <= topic.newest_at
        assert dead_letters.snapshot()["total_messages"] == 2
        assert await service.service.dead_letters.purge("work..workers..dead") == 2
        assert (topic.current, topic.purged) == (0, 2)
        dead_letters.reset()
        assert topic.received == 0


def test_between_two_counts_of_the_broker_the_counters_go_on() -> None:
    book = DLQTopicMetrics()
    book.add(3, 100.0)
    assert book.oldest_unknown(5)
    book.set_current(5, 7.0, 101.0)
    assert (book.current, book.oldest_at, book.newest_at) == (5, 7.0, 100.0)
    assert not book.oldest_unknown(5)
    book.add(3, 102.0)
    book.purge(2, 103.0)
    assert book.current == 4
    assert book.oldest_unknown(3)  # another process took one
    book.replay(4, 104.0)
    assert (book.current, book.oldest_at) == (0, 0.0)
    assert book.as_dict()["last_updated_at"] == "1970-01-01T00:01:44.000Z"


async def test_the_broker_is_not_asked_at_every_scrape(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(worker(_broken)) as service:
        await put(service, "a")
        transport: Any = service.service.transport
        store = transport.dead_letters
        asked: list[str] = []
        count = store.count

        async def counted(topic: str) -> int:
            asked.append(topic)
            await service.advance(1.0)
            return int(await count(topic))

        monkeypatch.setattr(store, "count", counted)
        reporter = service.service.reporter
        for _ in range(50):
            await reporter.refresh()
            await service.advance(1.0)
        assert len(asked) == 1  # it takes a second, so it may be done every 100 s
        await service.advance(60.0)
        await reporter.refresh()
        assert len(asked) == 2
        service.service.pause(NAME)
        (info,) = service.service.handlers()
        assert [item.status for item in info.stats.dependencies] == ["healthy", "unknown"]


async def _broken(_message: object, _context: Context) -> None:
    raise ValueError
